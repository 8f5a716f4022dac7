"""For how many tests there is place, and when one more may start."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asynctest_kit.engine import clock

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Mapping

    from asynctest_kit.engine.apart import Apart
    from asynctest_kit.engine.plan import PlannedCase

__all__ = ["Places"]

#: Seconds: a turn of the loop that leaves time for one more test, how long it counts, and how long one is waited for.
_SHORT_TURN = 0.002
_MOMENT = 0.0005
_IMPATIENCE = 0.1


class Places:
    """The places of tests that run beside each other.

    Args:
        concurrency: How many there are.
        groups: How many tests of a group may run at once, by its name; of one that isn't here, one.
        apart: Who must not run beside whom.
        is_busy: Whether any test runs.
    """

    def __init__(self, concurrency: int, groups: Mapping[str, int], apart: Apart, is_busy: Callable[[], bool]) -> None:
        self._concurrency = concurrency
        self._limits = groups
        self._apart = apart
        self._is_busy = is_busy
        self._free = asyncio.Semaphore(concurrency)
        self._groups: dict[str, asyncio.Semaphore] = {}
        self._calm = asyncio.Lock()
        self._calm_at = 0.0

    def group(self, name: str | None) -> asyncio.Semaphore:
        """The places of a group of tests; of those without one there are as many as can run."""
        if name is None:
            return asyncio.Semaphore(self._concurrency)
        if name not in self._groups:
            self._groups[name] = asyncio.Semaphore(self._limits.get(name, 1))
        return self._groups[name]

    async def next(self, waiting: deque[PlannedCase], limited: asyncio.Semaphore) -> PlannedCase:
        """Take the first of ``waiting`` beside whom nobody runs from whom it is kept apart, and a place for it."""
        while True:
            await limited.acquire()
            await self.take()
            for planned in waiting:
                if self._apart.may_start(planned):
                    self._apart.start(planned)
                    waiting.remove(planned)
                    return planned
            self.give_back()
            limited.release()
            await self._apart.change()

    async def take(self) -> None:
        """Wait for a free place, and until the loop has time for one more test.

        Sixty tests that start in one turn of the loop would keep each other from meeting the time limits that they set
        themselves. So tests start one by one, each when a turn is short; those that wait don't keep others waiting.
        """
        await self._free.acquire()
        async with self._calm:
            now = clock.monotonic()
            if now - self._calm_at < _MOMENT:
                return
            deadline = now + _IMPATIENCE
            while self._is_busy() and now < deadline:
                before = now
                await asyncio.sleep(0)
                now = clock.monotonic()
                if now - before < _SHORT_TURN:
                    break
            self._calm_at = now

    def give_back(self) -> None:
        """Leave it to the next."""
        self._free.release()

    def end(self, planned: PlannedCase, limited: asyncio.Semaphore) -> None:
        """A test has ended that :meth:`next` gave a place."""
        self._apart.end(planned)
        self.give_back()
        limited.release()
