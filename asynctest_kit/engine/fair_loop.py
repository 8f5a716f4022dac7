"""An event loop whose clock doesn't run away from the tests on it.

The problem. A test gives what it calls 10 ms and looks after 20. Alone it passes. Beside sixty others a turn of the
loop may take 15 ms: then both timers are due in the same turn, and the test looks before what it called has had its
turn. Nothing is wrong with the test, nor with its neighbours.

So a turn counts for 1 ms of the loop's time at most, however long it took; waiting counts in full. Timers that are
further apart than that stay in their order, and what runs between them has its turns: ten in 10 ms, for the end of a
time-out passes through several tasks before anybody sees it. A busy loop's timers are late, as they are on any busy
loop; they are just not all late at once. While the loop stands still its clock does too.

The price: while neighbours keep the loop busy, what waits for something outside may be done before a timer that was due
long ago by the wall clock. Alone that timer would have fired. So each timer knows when it is due by the wall clock; if
it is cancelled later, that is told (see :mod:`asynctest_kit.engine.deadlines`).

For tests that run alone the clock is asyncio's own, so that those that move ``time.monotonic`` move it as well, and
what is patched into asyncio's loop counts (freezegun's ``real_asyncio``). There it can be told which timers fire.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVarTuple

from asynctest_kit.engine import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context

__all__ = ["FairLoop", "FairTimer", "LoneTimer"]

Ts = TypeVarTuple("Ts")

#: Seconds that a turn counts for at most.
_TURN = 0.001


class _Clock:
    """The loop's time while tests run beside each other, made of turns and waits.

    Attributes:
        runs: Whether they do.
        told: What it has told last.
        wall: What the wall clock was then.
    """

    __slots__ = ("_passed", "_since", "runs", "told", "wall")

    def __init__(self) -> None:
        self.runs = False
        self._passed = self._since = self.told = self.wall = 0.0

    def start(self, now: float) -> None:
        """Count from ``now`` on asyncio's clock."""
        self.runs = True
        self._passed, self._since = now, time.monotonic()
        self.now()

    def stop(self) -> None:
        """Leave the time to asyncio's clock."""
        self.runs = False

    def now(self) -> float:
        """The time within a turn."""
        self.wall = wall = time.monotonic()
        self.told = told = self._passed + min(wall - self._since, _TURN)
        return told

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


class FairTimer(asyncio.TimerHandle):
    """A timer on the fair clock.

    Attributes:
        made: The time on the wall clock when it was made.
        due: The time on the wall clock from which on it would have fired alone.
    """

    __slots__ = ("due", "made")
    made: float
    due: float


class LoneTimer(asyncio.TimerHandle):
    """A timer of a test that runs alone, on asyncio's clock.

    Attributes:
        made: The time on the wall clock when it was made.
        seconds: In how many it was to fire.
        has_run: Whether it has fired.
    """

    __slots__ = ("has_run", "made", "seconds")
    made: float
    seconds: float
    has_run: bool

    def _run(self) -> None:
        self.has_run = True
        self._loop._timer_ended(self)  # type: ignore[attr-defined]  # noqa: SLF001  # no other loop makes one
        super()._run()


class FairLoop(asyncio.SelectorEventLoop):
    """asyncio's loop on a clock of its own."""

    if TYPE_CHECKING:  # what it has of asyncio's loop
        _debug: bool
        _timer_cancelled_count: int
        _scheduled: list[asyncio.TimerHandle]
        _check_closed: Callable[[], None]
        _check_thread: Callable[[], None]
        _check_callback: Callable[[object, str], None]

    def __init__(self) -> None:
        self._fair_clock = _Clock()
        self._on_overdue: Callable[[FairTimer], object] | None = None
        self._on_ended: Callable[[LoneTimer], object] | None = None
        super().__init__(_Selector(self._fair_clock))

    def time(self) -> float:
        """Seconds on the loop's clock."""
        return self._fair_clock.now() if self._fair_clock.runs else super().time()

    @contextmanager
    def shared(self, on_overdue: Callable[[FairTimer], object] | None = None) -> Iterator[None]:
        """Limit what a turn counts for, while tests run beside each other in the block.

        ``on_overdue`` is called with each timer that was made in the block, and is cancelled after it was due by the
        wall clock; of those that had fired by then too.
        """
        self._fair_clock.start(super().time())
        self._on_overdue = on_overdue
        try:
            yield
        finally:
            self._on_overdue = None
            self._fair_clock.stop()

    @contextmanager
    def watched(self, on_ended: Callable[[LoneTimer], object]) -> Iterator[None]:
        """Have ``on_ended`` called with each timer that is made in the block, when it fires and when it is cancelled.

        A pause's is cancelled after it has fired, too.
        """
        self._on_ended = on_ended
        try:
            yield
        finally:
            self._on_ended = None

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call ``callback(*args)`` when the clock shows ``when``: asyncio's code, but for the kind of timer."""
        fair = self._fair_clock
        if when is None or not (fair.runs or self._on_ended):
            return super().call_at(when, callback, *args, context=context)
        self._check_closed()
        if self._debug:
            self._check_thread()
            self._check_callback(callback, "call_at")
        timer: Any
        if fair.runs:
            timer = FairTimer(when, callback, args, self, context)
            timer.made = fair.wall
            timer.due = when + fair.wall - fair.told
        else:
            timer = LoneTimer(when, callback, args, self, context)
            timer.made, timer.seconds, timer.has_run = clock.monotonic(), when - self.time(), False
        if timer._source_traceback:  # noqa: SLF001  # as are the lines below
            del timer._source_traceback[-1]  # noqa: SLF001
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # noqa: SLF001
        return timer  # type: ignore[no-any-return]

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if handle._scheduled:  # type: ignore[attr-defined]  # noqa: SLF001  # asyncio's code again
            self._timer_cancelled_count += 1
        if type(handle) is FairTimer:
            if self._on_overdue is not None and time.monotonic() >= handle.due:
                self._on_overdue(handle)
        elif type(handle) is LoneTimer:
            self._timer_ended(handle)

    def _timer_ended(self, timer: LoneTimer) -> None:
        if self._on_ended is not None:
            self._on_ended(timer)
