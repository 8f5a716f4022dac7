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

Whether it would have fired alone is known if nothing came from outside for its test meanwhile. A step comes from
outside if what made it ready did: the selector, another thread, or another step from outside; a timer does not. Each
test has an account of when that came, and of how long its steps took: alone it would have taken these and the fair
clock's time, at most.

For tests that run alone the clock is asyncio's own, so that those that move ``time.monotonic`` move it as well, and
what is patched into asyncio's loop counts (freezegun's ``real_asyncio``). There it can be told which timers fire.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import selectors
import time
import weakref
from contextlib import contextmanager
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVarTuple

from asynctest_kit.engine import clock

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator
    from contextvars import Context

__all__ = ["END_PAUSE", "OF_FIXTURES", "Account", "FairLoop", "FairTimer", "LoneTimer", "current_account"]

Ts = TypeVarTuple("Ts")

#: Seconds that a turn counts for at most.
_TURN = 0.001

#: A timer that fires so many seconds after it was due by the wall clock is late.
_LATE = 0.05

#: Shorter steps are not added up: a turn's time holds twenty of them.
_SHORT = 0.00005

_run_step = asyncio.Handle._run  # noqa: SLF001  # its name isn't public, and has been the same since 3.4
_now = time.monotonic

#: asyncio's callback of a pause.
END_PAUSE = asyncio.futures._set_result_unless_cancelled  # type: ignore[attr-defined]  # noqa: SLF001


class Account:
    """What the steps of a test were, or those of all shared fixtures.

    Attributes:
        came: When what made them ready last came from outside, by the wall clock.
        seconds: How long they took, but for the shortest.
        youngest: When the last of the tasks that have paused was begun.
    """

    __slots__ = ("came", "seconds", "youngest")

    def __init__(self) -> None:
        self.came = self.seconds = self.youngest = 0.0


#: Whose account a step belongs to.
current_account: ContextVar[Account] = ContextVar("asynctest_kit_account")

#: The engine's.
_NOBODYS = Account()

#: What all shared fixtures did: any of them may be what a test waits for.
OF_FIXTURES = Account()


class _Clock:
    """The loop's time while tests run beside each other, made of turns and waits.

    Attributes:
        runs: Whether they do.
        told: What it has told last.
        wall: What the wall clock was then.
        since: When the present turn has begun, by the wall clock.
        step_since: When the present step has.
        came: When what made that ready came from outside, by the wall clock; 0 if it did not.
    """

    __slots__ = ("_passed", "came", "runs", "since", "step_since", "told", "wall")

    def __init__(self) -> None:
        self.runs = False
        self._passed = self.since = self.step_since = self.came = self.told = self.wall = 0.0

    def start(self, now: float) -> None:
        """Count from ``now`` on asyncio's clock."""
        self.runs = True
        self._passed, self.since = now, time.monotonic()
        self.step_since = self.came = self.since
        self.now()

    def stop(self) -> None:
        """Leave the time to asyncio's clock."""
        self.runs = False

    def now(self) -> float:
        """The time within a turn."""
        self.wall = wall = time.monotonic()
        self.told = told = self._passed + min(wall - self.since, _TURN)
        return told

    def end_turn(self) -> None:
        """Count the turn that ends now."""
        self._passed = self.now()
        self.since = time.monotonic()

    def end_wait(self) -> None:
        """Count in full what has passed since the turn's end."""
        now = time.monotonic()
        self._passed += now - self.since
        self.since = self.step_since = self.came = now


class _Selector(selectors.DefaultSelector):
    """Tells the clock where a turn ends and the next begins; enters what is ready into its account."""

    def __init__(self, clock: _Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if not self._clock.runs:
            return super().select(timeout)
        self._clock.end_turn()
        try:
            ready = super().select(timeout)
        finally:
            self._clock.end_wait()
        for key, _ in ready:
            for handle in key.data or ():
                if handle is not None:
                    _account_of(handle).came = self._clock.since
        return ready


def _run(handle: Any) -> None:
    """Run a step on the fair clock, and enter it into its account."""
    fair, account = handle._loop._fair_clock, handle._context.get(current_account, _NOBODYS)  # noqa: SLF001
    if handle.came > account.came:  # noqa: PLR1730  # max takes twice as long
        account.came = handle.came
    fair.came = account.came
    try:
        _run_step(handle)
    finally:
        fair.came = fair.since
        now = _now()
        if now - fair.step_since > _SHORT:
            account.seconds += now - fair.step_since
        fair.step_since = now
        handle = None  # an error's traceback may keep this frame, and would keep the task that failed


def _run_timer(timer: Any) -> None:
    """The same of a timer; one that is late is told before."""
    told = timer._loop._on_late  # noqa: SLF001
    if told is not None and _now() >= timer.due + _LATE:
        told(timer)
    try:
        _run(timer)
    finally:
        timer = None  # as above


def _account_of(handle: Any) -> Account:
    account: Account = handle._context.get(current_account, _NOBODYS)  # noqa: SLF001
    return account


class _Step(asyncio.Handle):
    """A step on the fair clock.

    Attributes:
        came: When what made it ready came from outside, by the wall clock; 0 if it did not.
    """

    __slots__ = ("came",)
    came: float
    _run = _run


class FairTimer(asyncio.TimerHandle):
    """A timer on the fair clock.

    Attributes:
        made: The time on the wall clock when it was made.
        due: The time on the wall clock from which on it would have fired alone.
        told: The time on the fair clock when it was made.
        before: What its account and that of the shared fixtures had of seconds then.
        came: 0, for nothing that it makes ready comes from outside.
    """

    __slots__ = ("before", "came", "due", "made", "told")
    made: float
    due: float
    told: float
    before: float
    came: float
    _run = _run_timer

    def at_most(self) -> float:
        """Seconds that would have passed alone since it was made; infinite if something outside may have taken them.

        What the code under it looks at again and again between pauses may be outside, too.
        """
        loop: FairLoop = self._loop  # type: ignore[attr-defined]
        fair = loop._fair_clock  # noqa: SLF001
        account, task = _account_of(self), asyncio.current_task()
        if task is None or max(fair.came, account.came, account.youngest, loop.paused_at(task)) >= self.made:
            return math.inf
        steps = account.seconds + OF_FIXTURES.seconds - self.before + time.monotonic() - fair.step_since
        return fair.now() - self.told + steps


class LoneTimer(asyncio.TimerHandle):
    """A timer of a test that runs alone, on asyncio's clock.

    Attributes:
        made: The time on the wall clock when it was made.
        seconds: In how many it was to fire.
        has_run: Whether it has fired.
        place: Where it was made; for who watches.
    """

    __slots__ = ("has_run", "made", "place", "seconds")
    made: float
    place: Any
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
        _ready: deque[asyncio.Handle]
        _thread_id: int | None
        _check_closed: Callable[[], None]
        _check_thread: Callable[[], None]
        _check_callback: Callable[[object, str], None]

    def __init__(self) -> None:
        self._fair_clock = _Clock()
        self._tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], tuple[float, float]] = weakref.WeakKeyDictionary()
        self._on_overdue: Callable[[FairTimer], object] | None = None
        self._on_late: Callable[[FairTimer], object] | None = None
        self._on_made: Callable[[LoneTimer], object] | None = None
        self._on_ended: Callable[[LoneTimer], object] | None = None
        super().__init__(_Selector(self._fair_clock))

    def time(self) -> float:
        """Seconds on the loop's clock."""
        return self._fair_clock.now() if self._fair_clock.runs else super().time()

    @contextmanager
    def shared(
        self,
        on_overdue: Callable[[FairTimer], object] | None = None,
        on_late: Callable[[FairTimer], object] | None = None,
    ) -> Iterator[None]:
        """Limit what a turn counts for, while tests run beside each other in the block.

        ``on_overdue`` is called with each timer that was made in the block, and is cancelled after it was due by the
        wall clock; of those that had fired by then too. ``on_late`` is called with those that are about to fire late.
        """
        self._fair_clock.start(super().time())
        self._on_overdue, self._on_late = on_overdue, on_late
        try:
            yield
        finally:
            self._on_overdue = self._on_late = None
            self._fair_clock.stop()

    @contextmanager
    def watched(
        self, on_made: Callable[[LoneTimer], object], on_ended: Callable[[LoneTimer], object]
    ) -> Iterator[None]:
        """Have each timer told that is made in the block: by whom it is made, when it fires, and when it is cancelled.

        A pause's is cancelled after it has fired, too.
        """
        self._on_made, self._on_ended = on_made, on_ended
        try:
            yield
        finally:
            self._on_made = self._on_ended = None

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """As asyncio's; it is remembered when it was begun."""
        task = super().create_task(coro, **options)
        if self._fair_clock.runs:
            self._tasks[task] = (self._fair_clock.wall, 0.0)
        return task

    def _note_pause(self) -> None:
        """The pause of the present task ends."""
        if (task := asyncio.current_task()) is not None:
            account = current_account.get(_NOBODYS)
            begun, _ = self._tasks.get(task, (0.0, 0.0))
            account.youngest = max(account.youngest, begun)
            self._tasks[task] = begun, time.monotonic()

    def paused_at(self, task: asyncio.Task[Any]) -> float:
        """When a task's last pause has ended, by the wall clock; 0 if it had none."""
        return self._tasks.get(task, (0.0, 0.0))[1]

    def _call_soon(self, callback: Any, args: Any, context: Context | None) -> asyncio.Handle:
        """As asyncio's, but for the kind of step."""
        fair = self._fair_clock
        step: Any = (_Step if fair.runs else asyncio.Handle)(callback, args, self, context)
        if fair.runs:
            step.came = fair.came if get_ident() == self._thread_id else time.monotonic()
        if step._source_traceback:  # noqa: SLF001
            del step._source_traceback[-1]  # noqa: SLF001
        self._ready.append(step)
        return step  # type: ignore[no-any-return]

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
            timer.told, timer.came = fair.told, 0.0
            timer.due = when + fair.wall - fair.told
            account = _account_of(timer)
            timer.before = account.seconds + OF_FIXTURES.seconds
        else:
            timer = LoneTimer(when, callback, args, self, context)
            timer.made, timer.seconds, timer.has_run = clock.monotonic(), when - self.time(), False
            timer.place = None
            if self._on_made is not None:
                self._on_made(timer)
        if timer._source_traceback:  # noqa: SLF001  # as are the lines below
            del timer._source_traceback[-1]  # noqa: SLF001
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # noqa: SLF001
        return timer  # type: ignore[no-any-return]

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if handle._scheduled:  # type: ignore[attr-defined]  # noqa: SLF001  # asyncio's code again
            self._timer_cancelled_count += 1
        if type(handle) is FairTimer:
            if handle._callback is END_PAUSE:  # type: ignore[attr-defined]  # noqa: SLF001
                self._note_pause()
            if self._on_overdue is not None and time.monotonic() >= handle.due:
                self._on_overdue(handle)
        elif type(handle) is LoneTimer:
            self._timer_ended(handle)

    def _timer_ended(self, timer: LoneTimer) -> None:
        if self._on_ended is not None:
            self._on_ended(timer)
