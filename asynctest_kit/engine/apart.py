"""Pairs of tests that don't run beside each other: a test starts only while none of its partners runs.

Whoever may not start holds nothing meanwhile, neither a place nor its group's, so nobody waits for one who waits.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asynctest_kit.engine.plan import PlannedCase

__all__ = ["Apart"]

_Pair = tuple["PlannedCase", "PlannedCase"]


class Apart:
    """Who of some pairs runs.

    Args:
        pairs: The pairs; a test may be in many.
    """

    def __init__(self, pairs: Iterable[_Pair]) -> None:
        self._partners: dict[PlannedCase, set[PlannedCase]] = {}
        for one, other in pairs:
            self._partners.setdefault(one, set()).add(other)
            self._partners.setdefault(other, set()).add(one)
        self._running: set[PlannedCase] = set()
        self._held_up: dict[PlannedCase, PlannedCase] = {}
        self._waiting: set[asyncio.Future[None]] = set()

    def may_start(self, planned: PlannedCase) -> bool:
        """Whether no partner runs."""
        for partner in self._partners.get(planned, _NONE) & self._running:
            self._held_up[planned] = partner
            return False
        return True

    def waited_for(self, planned: PlannedCase) -> str:
        """For whose end it waited last, a node id; empty if it could start at once."""
        partner = self._held_up.get(planned)
        return "" if partner is None else partner.case.nodeid

    def start(self, planned: PlannedCase) -> None:
        """It runs, or is about to."""
        if planned in self._partners:
            self._running.add(planned)

    def end(self, planned: PlannedCase) -> None:
        """It runs no more."""
        if planned in self._running:
            self._running.discard(planned)
            for future in self._waiting:
                if not future.done():
                    future.set_result(None)

    async def change(self) -> None:
        """Wait until one of those that have partners ends."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)


_NONE: frozenset[PlannedCase] = frozenset()
