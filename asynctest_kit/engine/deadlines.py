"""Deadlines that were met on the fair clock, though by the wall clock they were over.

The problem. Beside others a turn of the loop counts for 1 ms at most (see :mod:`asynctest_kit.engine.fair_loop`). So
what a test waits for may be there before its deadline has passed on the loop's clock, yet after it has by the wall
clock. How long it would have taken alone lies between the two, and nobody knows where: neighbours kept the loop busy,
but what is outside goes by the wall clock. Either the deadline would have been met too, or the test passes wrongly.

How it is seen. Who meets a deadline cancels its timer. If that was due by the wall clock, and alone may have fired, as
far as is known (:meth:`.fair_loop.FairTimer.at_most`), the test that it belongs to by its context is in doubt: it runs
once more, alone, on asyncio's own clock, and that attempt counts (see :mod:`asynctest_kit.engine.reruns`). A deadline
of a shared fixture's code, a server's for instance, may matter to any test: it is a finding, once for each place.

What that attempt says: if it fails by a deadline (one that allowed as long was over, or what it raised tells of a
time-out), the test fails. If it fails otherwise the pass stands, doubtful: the test may be one that can't run twice.

What is no deadline: what this package's own code sets, but where it waits for as long as the user has said: a function
with a local variable ``_users_deadline``; and a pause, ``asyncio.sleep``, which may end late on any loop. But a task
that is nothing but a pause is an alarm, against which something else races. Of shared fixtures only time-outs count
(``asyncio.timeout``, ``wait_for``, anyio's cancel scopes): what else they set and cancel all the time are the idle
times of connections.
"""

from __future__ import annotations

import asyncio
import re
import sys
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asynctest_kit.engine import clock
from asynctest_kit.engine.capture import current_output
from asynctest_kit.engine.code_places import Place, awaited_by, frame_of, is_users
from asynctest_kit.engine.fair_loop import END_PAUSE
from asynctest_kit.engine.watchdog import step_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import CodeType, FrameType

    import pytest

    from asynctest_kit.engine.capture import CaseOutput
    from asynctest_kit.engine.fair_loop import FairTimer, LoneTimer

__all__ = ["COUNTED", "Alone", "Deadlines", "Doubt", "current_fixture", "tells_time_out"]

#: How it came to that.
COUNTED = "beside others a turn of the loop counts for 1 ms at most"

#: The shared fixture whose code runs, as its task is called; empty for a test's.
current_fixture: ContextVar[str] = ContextVar("asynctest_kit_fixture", default="")

_ENGINE = __name__.rpartition(".")[0] + "."

#: Where this package is.
_KIT = f"{Path(__file__).parents[1]}/"

#: What time-outs are made of: whoever uses it has set them.
_MEANS = ("asyncio", "anyio", "async_timeout")

#: Modules and functions that try one address after a pause for another: whichever answers, nobody's time is over.
_PACING = frozenset({
    ("anyio._core._sockets", "connect_tcp"), ("asyncio.staggered", "run_one_coro"),
    ("aiohappyeyeballs._staggered", "run_one_coro"), ("aiohappyeyeballs._staggered", "staggered_race"),
})  # fmt: skip

#: The local variable by which a function of this package tells that its deadlines are the user's.
_MARK = "_users_deadline"

_CANCEL = asyncio.TimerHandle.cancel.__code__

#: asyncio's callback of ``asyncio.wait``.
_END_WAIT = asyncio.tasks._release_waiter  # type: ignore[attr-defined]  # noqa: SLF001

#: Classes whose timers are time-outs: asyncio's and async_timeout's, and anyio's.
_SCOPES = frozenset({"Timeout", "CancelScope"})

#: So many deadlines of one attempt are noted.
_MOST = 20

#: So many that an attempt alone has met; one that sets more is not known to meet them.
_MOST_MET = 1000

#: Two deadlines that were reckoned from the same limit differ at most by a hundredth, or by so many seconds.
_CLOSE = 0.005

#: The part of its time in which a deadline is met with ease.
_EASY = 0.5

#: Classes of errors that tell of a time-out: of asyncio, clients, drivers, and of a server that ended a statement.
_TIME_OUT = re.compile(r"time_?d?_?out|deadline_?exceeded|query_?cancell?ed|^cancelled_?error$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A deadline that was over by the wall clock when it was met; or came late by it.

    Attributes:
        seconds: How long it allowed.
        took: How long it took by the wall clock.
        place: Where the user's code was then; None if that isn't known.
        was_met: Whether it was.
    """

    seconds: float
    took: float
    place: Place | None
    was_met: bool = True

    def __str__(self) -> str:
        where = "" if self.place is None else f" at {self.place}"
        what = "met" if self.was_met else "over"
        return f"a deadline of {self.seconds:.3g} s{where}, which was {what} after {self.took:.3g} s by the wall clock"

    def allows(self, seconds: float) -> bool:
        """Whether it is as long as one of ``seconds``."""
        return abs(seconds - self.seconds) <= max(self.seconds / 100, _CLOSE)

    def may_be(self, other: Doubt) -> bool:
        """Whether it is as long as another one, and known to be of the same function, whatever its line."""
        here, there = self.place, other.place
        if here is None or there is None or not self.allows(other.seconds):
            return False
        return (here.file, here.function) == (there.file, there.function)


class Alone:
    """What came of the deadlines of an attempt alone.

    Attributes:
        missed: Those that were over.
        met: The others.

    Args:
        waiting: Where a test waits.
    """

    def __init__(self, waiting: Callable[[CaseOutput], Place | None]) -> None:
        self.missed: list[Doubt] = []
        self.met: list[Doubt] = []
        self._waiting = waiting

    def made(self, timer: LoneTimer) -> None:
        """Note where it is made."""
        timer.place = _users_place(_of_step(sys._getframe(), timer))  # noqa: SLF001  # as in asyncio

    def ended(self, timer: LoneTimer) -> None:
        """Note one of the test's, which fires or is cancelled."""
        context = timer._context  # type: ignore[attr-defined]  # noqa: SLF001  # the only way
        output = context.get(current_output)
        if output is None or not _is_deadline(timer):
            return
        took = clock.monotonic() - timer.made
        if timer.has_run:
            self.missed.append(Doubt(timer.seconds, took, timer.place, was_met=False))
        elif len(self.met) < _MOST_MET:
            place = _running_place(timer) or self._waiting(output)
            self.met.append(Doubt(timer.seconds, took, place))

    def has_missed(self, doubts: Iterable[Doubt]) -> bool:
        """Whether one was over that allowed as long as one of ``doubts``."""
        return any(doubt.allows(one.seconds) for doubt in doubts for one in self.missed)

    def always_misses(self, doubt: Doubt) -> bool:
        """Whether ``doubt`` was over, and none that may be it was met: one that is as long elsewhere says nothing."""
        return (
            any(map(doubt.may_be, self.missed)) and not any(map(doubt.may_be, self.met)) and len(self.met) < _MOST_MET
        )

    def has_met_with_ease(self, doubt: Doubt) -> bool:
        """Whether each that was as long as ``doubt``, and at its line, was met in less than half the time."""
        same = [one for one in self.met if one.place == doubt.place and doubt.allows(one.seconds)]
        is_easy = all(one.took < _EASY * one.seconds for one in same)
        return bool(same) and is_easy and not self.has_missed([doubt]) and len(self.met) < _MOST_MET


def _unknown(_: pytest.Item, __: Doubt) -> bool:
    return False


class Deadlines:
    """Looks at the timers that were cancelled after they were due by the wall clock.

    Args:
        waiting: Where a test waits.
        note: Is told the findings: whose, and what.
        is_met: Whether it is known of a test that it meets a deadline.
    """

    def __init__(
        self,
        waiting: Callable[[CaseOutput], Place | None],
        note: Callable[[str, str], object],
        is_met: Callable[[pytest.Item, Doubt], bool] = _unknown,
    ) -> None:
        self._waiting = waiting
        self._note = note
        self._is_met = is_met
        self._noted: set[tuple[str, Place | None]] = set()

    def overdue(self, timer: FairTimer) -> None:
        """Doubt the test that ``timer`` belongs to, if it was a deadline that had not passed on the fair clock."""
        context = timer._context  # type: ignore[attr-defined]  # noqa: SLF001  # the only way
        output = context.get(current_output)
        if output is not None:
            if len(output.doubts) < _MOST and _is_deadline(timer) and _is_met(timer):
                place = _running_place(timer) or self._waiting(output)
                doubt = _doubt(timer, place)
                if not self._is_met(output.item, doubt):
                    output.doubts.append(doubt)
        elif (fixture := context.get(current_fixture)) and _is_time_out(timer) and _is_met(timer):
            self._note_once(fixture, _doubt(timer, _running_place(timer)))

    def late(self, timer: FairTimer) -> None:
        """Note of the test that ``timer`` belongs to that a time-out comes, after twice its time or more."""
        output = timer._context.get(current_output)  # type: ignore[attr-defined]  # noqa: SLF001  # as above
        if output is None or not (_is_of_a_scope(timer) or timer._callback is _END_WAIT):  # type: ignore[attr-defined]  # noqa: SLF001
            return
        late = _doubt(timer, None)
        if late.took >= 2 * late.seconds and (output.late is None or output.late.took < late.took):
            output.late = replace(late, place=self._waiting(output), was_met=False)

    def alone(self) -> Alone:
        """What is to be told of the timers of an attempt alone."""
        return Alone(self._waiting)

    def _note_once(self, fixture: str, doubt: Doubt) -> None:
        if (fixture, doubt.place) in self._noted:
            return
        self._noted.add((fixture, doubt.place))
        self._note(
            fixture,
            f"may have missed {doubt}; {COUNTED}. A test that relies on it may pass beside others and fail alone: "
            "`atk(exclusive=True)` runs it on asyncio's clock",
        )


def tells_time_out(error: BaseException) -> bool:
    """Whether ``error``, what it came from, or one in the group that it is, tells of a time-out."""
    return any(_TIME_OUT.search(kind.__name__) for one in _all_of(error) for kind in type(one).__mro__)


def _all_of(error: BaseException) -> Iterator[BaseException]:
    """An error, its causes and contexts, those in groups, and so on; each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [other for other in (one.__cause__, one.__context__) if other is not None]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


def _doubt(timer: FairTimer, place: Place | None) -> Doubt:
    return Doubt(timer.due - timer.made, clock.monotonic() - timer.made, place)


def _is_deadline(timer: asyncio.TimerHandle) -> bool:
    callback = timer._callback  # type: ignore[attr-defined]  # noqa: SLF001
    if callback is END_PAUSE:
        task = asyncio.current_task()
        return task is not None and getattr(task.get_coro(), "cr_code", None) is asyncio.sleep.__code__
    return not str(getattr(callback, "__module__", "")).startswith(_ENGINE)


def _is_time_out(timer: FairTimer) -> bool:
    return _is_of_a_scope(timer) or _is_running(asyncio.wait_for.__code__)


def _is_of_a_scope(timer: FairTimer) -> bool:
    callback = timer._callback  # type: ignore[attr-defined]  # noqa: SLF001
    return type(getattr(callback, "__self__", None)).__name__ in _SCOPES


def _is_met(timer: FairTimer) -> bool:
    """Whether it is cancelled by whom it was set for, before it has run, and may have run by then alone."""
    return _is_pending(timer) and timer.at_most() >= timer.due - timer.made and not _is_kits(timer)


def _is_pending(timer: FairTimer) -> bool:
    """Whether it has not run: what is cancelled afterwards was no deadline that was met."""
    if timer._scheduled:  # type: ignore[attr-defined]  # noqa: SLF001
        return True
    ready = timer._loop._ready  # type: ignore[attr-defined]  # noqa: SLF001
    return any(one is timer for one in ready)


def _is_kits(timer: asyncio.TimerHandle) -> bool:
    """Whether code of this package cancels it that has set it for itself, or it only paces who connects."""
    for frame in _cancelling(timer):
        module = str(frame.f_globals.get("__name__", ""))
        if (module, frame.f_code.co_name) in _PACING:
            return True
        if module.partition(".")[0] not in _MEANS:
            return frame.f_code.co_filename.startswith(_KIT) and _MARK not in frame.f_code.co_varnames
    return False


def _running_place(timer: asyncio.TimerHandle) -> Place | None:
    """The line of the user's code that cancels it."""
    return _users_place(_cancelling(timer))


def _users_place(frames: Iterable[FrameType]) -> Place | None:
    place = next((frame for frame in frames if is_users(frame.f_code.co_filename)), None)
    return None if place is None else Place(place.f_code.co_filename, place.f_lineno, place.f_code.co_name)


def _cancelling(timer: asyncio.TimerHandle) -> Iterator[FrameType]:
    """The frames of the loop's step that cancels it, but asyncio's own method, then of who waits, innermost first."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  # as in asyncio
    while frame is not None and frame.f_code is not _CANCEL:
        frame = frame.f_back
    yield from _of_step(frame, timer)
    if timer._callback is _END_WAIT:  # type: ignore[attr-defined]  # noqa: SLF001  # what is waited for cancels it
        yield from _waiting_for(timer._args[0])  # noqa: SLF001


def _of_step(frame: FrameType | None, timer: asyncio.TimerHandle) -> Iterator[FrameType]:
    """The frames below ``frame`` that are of the step of the loop."""
    step = step_of(frame, timer._loop)  # type: ignore[attr-defined]  # noqa: SLF001
    while frame is not None and (frame := frame.f_back) is not step and frame is not None:
        yield frame


def _waiting_for(future: asyncio.Future[Any]) -> Iterator[FrameType]:
    """The frames of the tasks that wait for it, innermost first."""
    for wake, _ in future._callbacks or ():  # noqa: SLF001  # the only way
        if isinstance(task := getattr(wake, "__self__", None), asyncio.Task):
            frames = [frame_of(one) for one in awaited_by(task.get_coro())]
            yield from (frame for frame in reversed(frames) if frame is not None)


def _is_running(code: CodeType) -> bool:
    frame: FrameType | None = sys._getframe()  # noqa: SLF001
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None
