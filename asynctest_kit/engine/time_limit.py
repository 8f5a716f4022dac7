"""A time-out whose failure shows where the test waited, and which ends what doesn't want to end.

The problem. Cancelling is a request. A test that catches its cancellation and goes on, or waits for a task that does,
would hold its fixtures, and the run, for ever. It can't just be left in its task either: set-up, call and tear-down of
a test share one task, because a cancel scope that a fixture entered must be left in the task that entered it.

The rules.

1. The limited code is a coroutine that :meth:`TimeLimit.run` drives itself, in the caller's task. So it can stop
   driving it: the caller goes on in its own task, and the coroutine is suspended where it is.
2. When the time is over the task is cancelled; if that doesn't end the code, twice more, with growing pauses, in which
   an honest clean-up has time to finish. Then it is given up: closed where it is suspended, which runs its ``finally``
   blocks up to their next ``await``. Code that catches even that is never resumed.
3. What others did to the loop doesn't count: ``delay`` tells how long others have blocked it, and the time is prolonged
   by what was added since the start (see :mod:`asynctest_kit.engine.watchdog`).
4. A cancellation that comes from elsewhere stays a cancellation. One by :meth:`TimeLimit.cut_off` too, and code that
   it doesn't end is given up as in 2.

What giving up can't undo: tasks that the code started (see :mod:`asynctest_kit.engine.leaked_tasks`), and a cancel
scope of anyio's that it was inside of, whose clean-up may have to wait: leaving the scopes of fixtures around it then
raises anyio's own error in the tear-down.
"""

from __future__ import annotations

import asyncio
import types
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pytest

from asynctest_kit.engine import clock
from asynctest_kit.engine.code_places import waiting_at
from asynctest_kit.engine.failure import failure
from asynctest_kit.engine.forced_end import end, wake

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

__all__ = ["PAUSES", "TimeLimit", "is_time_out", "tells_of_time_out", "time_out_message"]

T = TypeVar("T")

_TOOK_LONGER = "took longer than its time-out of"

#: Seconds by which a timer of the loop may be early.
_PRECISION = 0.01

#: Seconds after one cancellation until the next, and after the last until the code is given up.
PAUSES = (0.5, 1.0, 1.5)

#: The same for code that is cut off: it did nothing wrong, so its clean-up has longer until it is disturbed.
_CUT_OFF_PAUSES = (2.0, 1.0)


def time_out_message(what: str, seconds: float) -> str:
    """How a time-out is told, whatever finds it."""
    return f"{what} {_TOOK_LONGER} {seconds:g} s"


def is_time_out(error: BaseException) -> bool:
    """Whether ``error``, or one in the group that it is, tells of a time-out."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_time_out, error.exceptions))
    return isinstance(error, pytest.fail.Exception) and tells_of_time_out(str(error))


def tells_of_time_out(text: str) -> bool:
    """Whether ``text`` is, or holds, what :func:`time_out_message` gave."""
    return _TOOK_LONGER in text


def _nobody() -> float:
    return 0.0


def _unknown() -> str:
    return ""


class TimeLimit:
    """Fails what runs inside when it takes longer than ``seconds`` (0: no limit).

    The failure carries the traceback of the cancellation, so its report ends at the line that waited.

    Args:
        seconds: The limit.
        what: What is limited, for the message.
        delay: Seconds for which others have blocked the loop so far; only its growth is used.
        pauses: See :data:`PAUSES`.
        cause: Tells why it took so long, to be read after the message; empty if nobody knows.
    """

    __slots__ = ("_before", "_cancels", "_cause", "_delay", "_is_cut_off", "_is_given_up", "_is_over", "_known_delay",
                 "_pauses", "_seconds", "_start", "_task", "_timer", "_what")  # fmt: skip

    def __init__(
        self,
        seconds: float,
        what: str,
        delay: Callable[[], float] = _nobody,
        pauses: tuple[float, ...] = PAUSES,
        cause: Callable[[], str] = _unknown,
    ) -> None:
        self._cause = cause
        self._seconds = seconds
        self._what = what
        self._delay = delay
        self._pauses = pauses
        self._known_delay = 0.0
        self._start = 0.0
        self._cancels = 0
        self._before = 0
        self._is_given_up = self._is_cut_off = self._is_over = False
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, body: Callable[[], Awaitable[T]]) -> T:
        """Await ``body()``, in this task.

        Raises:
            Failed: It took too long. What it raised itself when it was cancelled is raised instead, with a note.
        """
        __tracebackhide__ = True
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine runs in a task here
        self._task = task
        self._before = task.cancelling()
        self._start = clock.monotonic()
        try:
            awaitable = body()
            coroutine = awaitable if type(awaitable) is types.CoroutineType else _awaited(awaitable)
            result: T = await self._driven(coroutine)
        except BaseException as error:
            self._judge(error)
            raise
        finally:
            self._is_over = True
            if self._timer is not None:
                self._timer.cancel()
        if self._is_cut_off:
            raise asyncio.CancelledError
        if self._has_expired() and not self._is_given_up:
            raise failure(f"{self._message}, and it swallowed its cancellation")
        return result

    def cut_off(self, pauses: tuple[float, ...] = _CUT_OFF_PAUSES) -> bool:
        """Cancel the code that runs inside for good, as a time-out would; tell whether any does.

        What it raises then is raised; if it returns, or is given up, :exc:`asyncio.CancelledError`.
        """
        if self._task is None or self._is_over:
            return False
        if not self._cancels:
            if self._timer is not None:
                self._timer.cancel()
            self._is_cut_off = True
            self._pauses = pauses
            self._insist()
        return True

    @property
    def _message(self) -> str:
        return time_out_message(self._what, self._seconds) + self._cause()

    def _judge(self, error: BaseException) -> None:
        """Turn the cancellation by which the code ended into a failure."""
        __tracebackhide__ = True
        if self._is_cut_off or not self._has_expired() or self._is_given_up:
            return
        if isinstance(error, asyncio.CancelledError):
            raise pytest.fail.Exception(self._message).with_traceback(error.__traceback__) from None
        error.add_note(f"({self._message}, and raised this when it was cancelled)")

    def _has_expired(self) -> bool:
        """Stop the clock; tell whether the time was over, and nobody else cancelled the task meanwhile."""
        if self._timer is None or self._task is None:
            return False
        self._timer.cancel()
        for _ in range(self._cancels):
            self._task.uncancel()
        return self._cancels > 0 and self._task.cancelling() <= self._before

    def _arm(self, task: asyncio.Task[Any]) -> None:
        """Start the clock: when the code waits for the first time, since nothing can end it before."""
        self._known_delay = self._delay()
        spent = clock.monotonic() - self._start
        self._timer = task.get_loop().call_later(self._seconds - spent, self._expire)

    def _expire(self) -> None:
        assert self._task is not None  # noqa: S101  # the clock started in it
        loop = self._task.get_loop()
        delay = self._delay()
        early = self._seconds - (clock.monotonic() - self._start)
        if not self._cancels and early > _PRECISION:
            # A test has moved the loop's clock.
            self._timer = loop.call_later(early, self._expire)
            return
        if not self._cancels and delay > self._known_delay:
            self._timer = loop.call_later(delay - self._known_delay, self._expire)
            self._known_delay = delay
            return
        self._insist()

    def _insist(self) -> None:
        """Cancel the code, and once more after each pause until it is given up."""
        assert self._task is not None  # noqa: S101  # the code runs in it
        if self._cancels == len(self._pauses):
            self._give_up(self._task)
            return
        self._timer = self._task.get_loop().call_later(self._pauses[self._cancels], self._insist)
        self._cancels += 1
        self._task.cancel()

    def _give_up(self, task: asyncio.Task[Any]) -> None:
        self._is_given_up = True
        self._cancels += 1
        task.cancel()
        wake(task)

    @types.coroutine
    def _driven(self, driven: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Await ``driven``, which :func:`awaited_by` knows by this name, until it is given up."""
        __tracebackhide__ = True
        resume: Callable[[Any], Any] = driven.send
        argument: Any = None
        try:
            while True:
                try:
                    waited_for = resume(argument)
                except StopIteration as end:
                    result: T = end.value
                    return result
                if self._timer is None and self._seconds and self._task is not None:
                    self._arm(self._task)
                try:
                    argument = yield waited_for
                    resume = driven.send
                except GeneratorExit:
                    driven.close()
                    raise
                except BaseException as error:  # noqa: BLE001  # thrown into the coroutine, as ``await`` would
                    # Without this frame: it would stand once more at the end, behind the line that waited.
                    tb = error.__traceback__
                    argument = error.with_traceback(None if tb is None else tb.tb_next)
                    resume = driven.throw
                if self._is_given_up:
                    self._abandon(driven)
        finally:
            argument = None  # its traceback holds this frame

    def _abandon(self, coroutine: Coroutine[Any, Any, Any]) -> NoReturn:
        __tracebackhide__ = True
        place = waiting_at(coroutine)
        where = "" if place is None else f" at {place}"
        left, errors = end(coroutine)
        if self._is_cut_off:
            raise asyncio.CancelledError
        text = f"{self._message} and doesn't end when it is cancelled"
        if left:
            raise failure(f"{text}: it is left behind{where}")
        if errors:
            raise failure(f"{text}: it was closed{where}, and raised {errors[0]!r}", errors[0])
        raise failure(f"{text}: it was closed{where}")


async def _awaited(awaitable: Awaitable[T]) -> T:
    __tracebackhide__ = True
    return await awaitable
