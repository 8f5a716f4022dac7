"""Who blocks the event loop, told while it does, and how long others had to wait for it.

The problem. One test that computes, or calls something that blocks, stops every other test. Their time-outs go on
meanwhile, so the ones that fail are the victims.

How it is seen. A thread looks at the loop's thread 20 times a second. The loop runs everything through handles; one
handle that still runs at the next look blocks. So nothing is put on the loop, a loop that waits or is busy with many
short steps is never taken for blocked, and while the loop stands still for a sync test there is no handle. Times are
right to about one look. A call that holds the interpreter's lock keeps the thread out too; it is seen afterwards, if
the loop's thread spent the time computing.

Who it is charged to. A handle carries the context that it runs in, and with it the test; a shared fixture's task has a
name. While a debugger is open nobody is charged and nothing is told, and the time counts for no time-out.

The threshold of half a second lies at the time-outs that impatient clients use, and above what a first import or a busy
machine costs. It decides what is told; for time-outs every delay counts that was seen.

Only loops whose handles are asyncio's own are seen: not uvloop's.
"""

from __future__ import annotations

import asyncio
import collections
import gc
import logging
import operator
import os
import sys
import threading
import time
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from asynctest_kit.engine import clock
from asynctest_kit.engine.capture import current_output
from asynctest_kit.engine.code_places import is_users, running, warm_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import CodeType, FrameType

    from asynctest_kit.engine.capture import CaseOutput
    from asynctest_kit.engine.code_places import Place

__all__ = ["Blocked", "Thresholds", "Watchdog", "frames_of_threads", "step_of"]

_RUN = asyncio.Handle._run.__code__  # noqa: SLF001  # the frame by which a step of the loop is known

#: A stack with a frame of one of these stands still because a person looks at it.
_DEBUGGERS = frozenset(
    {"IPython", "_pydevd_bundle", "bdb", "code", "debugpy", "ipdb", "pdb", "pdbpp", "pydevd", "pudb"}
)

_log = logging.getLogger(__name__)


def frames_of_threads() -> dict[int, FrameType]:
    """What each thread runs, by its number.

    Python 3.11 makes frames for that while it holds the lock under which threads are made, and making them may have it
    look for garbage; what is called then, a callback or a finalizer, may let a thread run that waits for the lock, and
    the process stands still (CPython's issue 106883). So nothing is looked for meanwhile, and no other thread runs
    between the three calls, which are one instruction.
    """
    if sys.version_info >= (3, 12) or not gc.isenabled():
        return sys._current_frames()  # noqa: SLF001  # the only way
    calls: tuple[Callable[[], Any], ...] = (gc.disable, sys._current_frames, gc.enable)  # noqa: SLF001
    frames: dict[int, FrameType]
    _, frames, _ = map(operator.call, calls)
    return frames


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When what is told, in seconds.

    Attributes:
        blocked: For how long the loop must be blocked until that is told; 0 turns the watchdog off.
        stuck: For how long until it is told while it still lasts.
        look: Between two looks.
    """

    blocked: float = 0.5
    stuck: float = 5.0
    look: float = 0.05


@dataclass(frozen=True, slots=True)
class Blocked:
    """Something blocked the loop, or does so still.

    Attributes:
        nodeid: The test, or the name of the task, such as ``fixture tests::server``.
        seconds: For how long.
        place: The line of the user's code that blocks; None if none of it is the user's.
        stack: The stack as in a traceback, without what runs it.
    """

    nodeid: str
    seconds: float
    place: Place | None
    stack: str

    def __str__(self) -> str:
        where = "" if self.place is None else f" at {self.place}"
        return f"{self.nodeid} has blocked the event loop for {self.seconds:.3g} s{where}"


#: Those that have a thread.
_watching: weakref.WeakSet[Watchdog] = weakref.WeakSet()


@cache
def _stop_before_forks() -> None:
    """Python warns of forks while there are threads, and a test may count warnings as errors."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork)


def _before_fork() -> None:
    for watchdog in list(_watching):
        watchdog.before_fork()


class _Step:
    """One handle that the loop runs."""

    __slots__ = ("blocked", "handle", "is_debugged", "is_told", "output", "seen", "since")

    def __init__(self, handle: asyncio.Handle, since: float, seen: float) -> None:
        self.handle = weakref.ref(handle)  # a strong one would keep a task from being freed when it ends
        self.since = since
        self.seen = seen
        self.output: CaseOutput | None = handle._context.get(current_output)  # type: ignore[attr-defined]  # noqa: SLF001
        self.blocked: Blocked | None = None
        self.is_told = False
        self.is_debugged = False


class Watchdog:
    """Watches one loop from a thread, for as long as :meth:`watching` lasts. Make it in the loop's own thread.

    Args:
        loop: The loop.
        thresholds: When what is told.
        on_blocked: Called on the loop after a block has ended.
        on_stuck: Called once for a block, by the watchdog's thread while the loop is still blocked.
        own_work: Code that works for the run, not for a test: what blocks in it is told only if the user's code that
            it calls does.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        thresholds: Thresholds,
        on_blocked: Callable[[Blocked], object],
        on_stuck: Callable[[Blocked], object] | None = None,
        own_work: Iterable[CodeType] = (),
    ) -> None:
        self._own_work = frozenset(own_work)
        self._loop = loop
        self._thresholds = thresholds
        self._on_blocked = on_blocked
        self._on_stuck = on_stuck
        self._watched = threading.get_ident()
        self._cpu_clock = _cpu_clock(self._watched)
        self._stop = threading.Event()
        self._stop.set()
        self._thread: threading.Thread | None = None
        self._changes = threading.Lock()
        self._step: _Step | None = None
        self._last_look = self._last_cpu = 0.0
        self._delay = 0.0
        self._own: dict[CaseOutput | None, float] = {}
        self._ended: collections.deque[Blocked] = collections.deque()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch until the block ends."""
        if not self._thresholds.blocked:
            yield
            return
        warm_up()  # what it needs is looked up now, not while a stack is taken
        _stop_before_forks()
        _watching.add(self)
        self._start()
        try:
            yield
        finally:
            _watching.discard(self)
            self._halt()
            self._look()
            self._tell_ended()

    def _start(self) -> None:
        if self not in _watching or not self._stop.is_set():
            return
        self._stop.clear()
        self._last_look, self._last_cpu = clock.monotonic(), self._cpu()
        self._thread = threading.Thread(target=self._watch, name="asynctest_kit watchdog", daemon=True)
        self._thread.start()

    def _halt(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def before_fork(self) -> None:
        """Have no thread while the process forks, and a new one when the loop has its next turn."""
        self._halt()
        self._loop.call_soon_threadsafe(self._start)

    def delay_of(self, output: CaseOutput | None) -> float:
        """Seconds for which the loop was blocked by others than the test of ``output``, since the watchdog started.

        It only grows: what was added between two calls is what others cost the test meanwhile.
        """
        with self._changes:
            delay, step = self._delay - self._own.get(output, 0.0), self._step
        if step is None or (step.output is output and not step.is_debugged):
            return delay
        lasting = clock.monotonic() - step.since
        return delay + lasting if self._counts(step, lasting) else delay

    def _counts(self, step: _Step, seconds: float) -> bool:
        """Whether it blocks: seen at two looks, or the look that should have seen it is overdue."""
        return step.seen > step.since or seconds >= 2 * self._thresholds.look

    def _watch(self) -> None:
        try:
            while not self._stop.wait(self._thresholds.look):
                self._look()
        except Exception:  # noqa: BLE001  # logged
            # Not raised: pytest would charge it to the test that runs.
            _log.exception("the watchdog of the event loop failed, and watches no more")

    def _look(self) -> None:
        """Find out what the loop runs. The stack is whole until this thread waits for something."""
        frame = None if self._stop.is_set() else frames_of_threads().get(self._watched)
        running_step = step_of(frame, self._loop)
        handle = None if running_step is None else running_step.f_locals["self"]
        now, cpu = clock.monotonic(), self._cpu()
        step = self._step
        if step is not None and handle is not None and step.handle() is handle:
            step.seen = now
        else:
            ended, step = step, None if handle is None else _Step(handle, self._since(now, cpu), now)
            with self._changes:
                self._step = step
                if ended is not None:
                    self._end(ended, now)
        self._last_look, self._last_cpu = now, cpu
        if step is not None and frame is not None and running_step is not None:
            self._judge(step, frame, running_step, now - step.since)

    def _since(self, now: float, cpu: float) -> float:
        """Since when a handle runs that is seen for the first time: since the last look if nothing else could run."""
        gap = now - self._last_look
        was_kept_out = gap - self._thresholds.look >= self._thresholds.blocked and cpu - self._last_cpu >= gap / 2
        return self._last_look + self._thresholds.look if was_kept_out else now

    def _judge(self, step: _Step, frame: FrameType, outermost: FrameType, seconds: float) -> None:
        if seconds < self._thresholds.blocked:
            return
        if step.is_debugged or _is_debugged(frame):
            step.is_debugged = True
            return
        is_stuck = seconds >= self._thresholds.stuck and not step.is_told
        if (step.blocked is not None and not is_stuck) or self._is_own_work(frame):
            return
        place, stack = running(frame, outermost)
        step.blocked = Blocked(self._name(step), seconds, place, stack)
        if is_stuck:
            step.is_told = True
            if self._on_stuck is not None:
                self._on_stuck(step.blocked)

    def _is_own_work(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if frame.f_code in self._own_work:
                return True
            if is_users(frame.f_code.co_filename):
                return False
            frame = frame.f_back
        return False

    def _name(self, step: _Step) -> str:
        if step.output is not None:
            return step.output.item.nodeid
        task = asyncio.current_task(self._loop)
        return "a callback" if task is None else task.get_name()

    def _end(self, step: _Step, now: float) -> None:
        seconds = now - step.since
        if not self._counts(step, seconds):
            return
        self._delay += seconds
        if step.is_debugged:
            return
        if step.output is not None:
            self._own[step.output] = self._own.get(step.output, 0.0) + seconds
        if step.blocked is not None:
            told = step.blocked
            self._ended.append(Blocked(told.nodeid, seconds, told.place, told.stack))
            if not self._stop.is_set():
                self._loop.call_soon_threadsafe(self._tell_ended)

    def _tell_ended(self) -> None:
        while self._ended:
            self._on_blocked(self._ended.popleft())

    def _cpu(self) -> float:
        """Seconds that the loop's thread has computed; where that can't be known, none."""
        return 0.0 if self._cpu_clock is None else time.clock_gettime(self._cpu_clock)


def _cpu_clock(thread: int) -> int | None:
    return time.pthread_getcpuclockid(thread) if hasattr(time, "pthread_getcpuclockid") else None


def step_of(frame: FrameType | None, loop: asyncio.AbstractEventLoop) -> FrameType | None:
    """The frame of the handle of ``loop`` that the thread of ``frame`` runs, whatever other loop runs inside of it."""
    while frame is not None:
        if frame.f_code is _RUN:
            handle: asyncio.Handle = frame.f_locals["self"]
            if handle._loop is loop:  # type: ignore[attr-defined]  # noqa: SLF001  # as its context
                return frame
        frame = frame.f_back
    return None


def _is_debugged(frame: FrameType | None) -> bool:
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] in _DEBUGGERS:
            return True
        frame = frame.f_back
    return False
