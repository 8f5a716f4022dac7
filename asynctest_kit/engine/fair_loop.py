"""An event loop whose clock doesn't run away from the tests on it.

The problem. A test gives what it calls 10 ms and looks after 20. Alone it passes. Beside sixty others a turn of the
loop may take 15 ms: then both timers are due in the same turn, and the test looks before what it called has had its
turn. Nothing is wrong with the test, nor with its neighbours.

So a turn counts for 1 ms of the loop's time at most, however long it took; waiting counts in full. Timers that are
further apart than that stay in their order, and what runs between them has its turns: ten in 10 ms, for the end of a
time-out passes through several tasks before anybody sees it. A busy loop's timers are late, as they are on any busy
loop; they are just not all late at once. While the loop stands still its clock does too.

For tests that run alone the clock is asyncio's own, so that those that move ``time.monotonic`` move it as well, and
what is patched into asyncio's loop counts (freezegun's ``real_asyncio``).
"""

from __future__ import annotations

import asyncio
import selectors
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FairLoop"]

#: Seconds that a turn counts for at most.
_TURN = 0.001


class _Clock:
    """The loop's time while tests run beside each other, made of turns and waits.

    Attributes:
        runs: Whether they do.
    """

    __slots__ = ("_passed", "_since", "runs")

    def __init__(self) -> None:
        self.runs = False
        self._passed = self._since = 0.0

    def start(self, now: float) -> None:
        """Count from ``now`` on asyncio's clock."""
        self.runs = True
        self._passed, self._since = now, time.monotonic()

    def stop(self) -> None:
        """Leave the time to asyncio's clock."""
        self.runs = False

    def now(self) -> float:
        """The time within a turn."""
        return self._passed + min(time.monotonic() - self._since, _TURN)

    def end_turn(self) -> None:
        """Count the turn that ends now."""
        self._passed = self.now()
        self._since = time.monotonic()

    def end_wait(self) -> None:
        """Count in full what has passed since the turn's end."""
        now = time.monotonic()
        self._passed += now - self._since
        self._since = now


class _Selector(selectors.DefaultSelector):
    """Tells the clock where a turn ends and the next begins."""

    def __init__(self, clock: _Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if not self._clock.runs:
            return super().select(timeout)
        self._clock.end_turn()
        try:
            return super().select(timeout)
        finally:
            self._clock.end_wait()


class FairLoop(asyncio.SelectorEventLoop):
    """asyncio's loop on a clock of its own."""

    def __init__(self) -> None:
        self._fair_clock = _Clock()
        super().__init__(_Selector(self._fair_clock))

    def time(self) -> float:
        """Seconds on the loop's clock."""
        return self._fair_clock.now() if self._fair_clock.runs else super().time()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Limit what a turn counts for, while tests run beside each other in the block."""
        self._fair_clock.start(super().time())
        try:
            yield
        finally:
            self._fair_clock.stop()
