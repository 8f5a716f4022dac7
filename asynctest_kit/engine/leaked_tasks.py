"""Tasks that a test left running: found after its tear-down, named, and ended where that is safe.

The problem. On a loop of its own a test's leftovers die with the loop. On a shared loop they go on: they touch
databases that belong to the next test, fail when nobody can be charged, and keep what they refer to. But not everything
that still runs is a leftover. A connection pool of a session fixture may start its reader when the first test uses it,
in that test's context, and every later test needs that reader.

The rule. A task is ended only if all of this holds:

1. It was made in the test's context, and is not done a few turns of the loop after the tear-down.
2. It was made by the test's own code: the function that called ``create_task`` (or what of asyncio or anyio leads to
   it) is the test function, one of the test's own fixtures, or a function that is written inside of these. A pool, a
   client, an application or a helper makes tasks in functions of its own, and may keep them on purpose.
3. It doesn't run a method of a shared fixture's value: ``create_task(server.serve())`` on a session's server is that
   server's business.

4. It is in no task group of anyio's. One that still runs means that its group was never left, and cancelling it would
   set off a cancellation of that group which never ends.

What fails one of 2 to 4 is left alone, and named as left. Tasks of a shared fixture are none of a test's: they are made
in the fixture's context. Ending is cancelling, a few times with growing pauses, then closing what it runs; what an
ended task raises is told with it and charged to nobody. No leak fails a test: pytest has no such rule.

Tasks are seen through the loop's task factory, around the one that was there. While a suite sets a factory of its own,
and for tasks that are made without the loop (``asyncio.Task(...)``), nothing is seen. Noting a task keeps nothing
alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import weakref
from dataclasses import dataclass
from types import CodeType
from typing import TYPE_CHECKING, Any, Literal

from asynctest_kit.engine.capture import current_output
from asynctest_kit.engine.code_places import awaited_by, frame_of, is_machinery, is_users, place_in_code, waiting_at
from asynctest_kit.engine.forced_end import end, keep_for_ever, wake

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from types import FrameType

    from asynctest_kit.engine.capture import CaseOutput
    from asynctest_kit.engine.code_places import Place

__all__ = ["LeakedTask", "TaskLedger", "end_leftovers"]

#: Turns of the loop that a task gets to end by itself: a task that was cancelled but not awaited needs some.
_TURNS = 3

#: Seconds after a cancellation until the next.
_PAUSES = (0.1, 0.4, 1.0)

#: How many notes are taken until those of tasks that are done are thrown away.
_PRUNE_EVERY = 256

_LOOP_PACKAGES = ("asyncio.", "anyio.", "asynctest_kit.engine.fair_loop")

#: Whether a task tells its context.
_KNOWS_ITS_CONTEXT = sys.version_info >= (3, 12)

#: A task, the code that made it, and the offset of the instruction that did.
_Note = tuple[weakref.ref[asyncio.Task[Any]], CodeType, int]


Fate = Literal["ended", "closed", "stubborn", "left", "grouped"]


@dataclass(frozen=True, slots=True)
class LeakedTask:
    """A task that a test left running.

    Attributes:
        name: The task's name.
        coroutine: Qualified name of what it runs.
        created: Where it was made.
        waiting: Where it waited after the test; None if that is not known.
        fate: ``ended``: it was cancelled. ``closed``: it had to be forced. ``stubborn``: it goes on nevertheless.
            ``left``: it may be shared. ``grouped``: it belongs to a task group of anyio's that was never left.
        error: What it raised when it was cancelled, if anything.
    """

    name: str
    coroutine: str
    created: Place
    waiting: Place | None
    fate: Fate
    error: str = ""

    @property
    def is_finding(self) -> bool:
        """Whether it is the test's own fault, and not a task that was left alone."""
        return self.fate in ("ended", "closed", "stubborn")

    def __str__(self) -> str:
        waiting = "" if self.waiting is None else f", waiting at {self.waiting}"
        endings = {
            "ended": f"it was cancelled, and raised {self.error}" if self.error else "it was cancelled",
            "closed": "it didn't end when it was cancelled, and was closed",
            "stubborn": "it was cancelled, and goes on nevertheless",
            "left": "it was left running, because others may need it",
            "grouped": "it was left running, because the task group that it is in was never left",
        }
        return f"task {self.name!r} ({self.coroutine}), created at {self.created}{waiting}: {endings[self.fate]}"


class TaskLedger:
    """Knows which running test made which task, on one loop."""

    def __init__(self) -> None:
        self._notes: dict[CaseOutput | None, list[_Note]] = {}

    @contextlib.contextmanager
    def installed(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Note the tasks that are made on ``loop`` until the block ends."""
        previous = loop.get_task_factory()
        factory = _factory(self._notes, previous)
        loop.set_task_factory(factory)
        try:
            yield
        finally:
            if loop.get_task_factory() is factory:
                loop.set_task_factory(previous)

    def open(self, output: CaseOutput) -> None:
        """Note the tasks of a test from now on."""
        self._notes.setdefault(output, [])

    def close_if_clean(self, output: CaseOutput) -> bool:
        """Don't note the tasks of a test any more, if it has made none; tell whether that is so."""
        if not self.has_none(output):
            return False
        self._notes.pop(output, None)
        return True

    def has_none(self, output: CaseOutput) -> bool:
        """Whether a test has made no tasks that are still noted."""
        return not self._notes.get(output)

    def whereabouts(self, task: asyncio.Task[Any]) -> str:
        """Where a task of the running test was made, and where it waits, to be added to a sentence about it."""
        notes = self._notes.get(current_output.get(), ())
        made = next((place_in_code(code, at) for reference, code, at in notes if reference() is task), None)
        waiting = waiting_at(task.get_coro())
        places = [f"created at {made}"] if made is not None else []
        if waiting is not None and is_users(waiting.file):
            places.append(f"waiting at {waiting}")
        return f" in a task {', '.join(places)}" if places else ""

    async def close(
        self,
        output: CaseOutput,
        functions: Iterable[Callable[..., Any]],
        shared: Collection[object] = (),
    ) -> list[LeakedTask]:
        """End what a test has left, after its tear-down; don't note its tasks any more.

        Args:
            output: The test's.
            functions: The test's own code: its function, and those of its own fixtures.
            shared: The values of the shared fixtures that it used.
        """
        pending = _pending(self._notes.pop(output, ()))
        if not pending:
            return []
        # In a task of its own: what is cancelled may cancel the task that made it, which is the caller.
        ending = asyncio.get_running_loop().create_task(
            _leaks(pending, _codes_of(functions), shared), context=contextvars.Context()
        )
        while not ending.done():
            with contextlib.suppress(asyncio.CancelledError):  # bounded, and a tear-down runs to its end
                await asyncio.wait([ending])
        return ending.result()


async def _leaks(
    pending: Sequence[tuple[asyncio.Task[Any], CodeType, int]],
    own: Collection[CodeType],
    shared: Collection[object],
) -> list[LeakedTask]:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    leaks = [_Leak(*made) for made in pending if not made[0].done()]
    for leak in leaks:
        if _is_grouped(leak.task):
            leak.fate = "grouped"
        elif leak.code in own and not _runs_method_of(leak.task, shared):
            leak.fate = "ended"
    forced = await _cancelled([leak.task for leak in leaks if leak.fate == "ended"])
    for leak in leaks:
        if leak.task in forced:
            leak.fate = "closed" if leak.task.done() else "stubborn"
    return [leak.told() for leak in leaks]


class _OwnedTask(asyncio.Task[Any]):
    """A task that can be asked later whose it was, where tasks don't tell their context."""

    atk_output: CaseOutput | None = None


for _name in ("__module__", "__name__", "__qualname__"):
    setattr(_OwnedTask, _name, getattr(asyncio.Task, _name))  # it is shown to people


def _factory(notes: dict[CaseOutput | None, list[_Note]], previous: Any) -> Any:
    """A task factory that takes notes. It runs for every task, so it is written for speed."""
    get_frame, reference, current = sys._getframe, weakref.ref, current_output.get  # noqa: SLF001  # the fast way

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        context = options.get("context")
        output = current() if context is None else context.get(current_output)
        if previous is not None:
            task = previous(loop, coroutine, **options)
        elif _KNOWS_ITS_CONTEXT:
            task = asyncio.Task(coroutine, loop=loop, **options)
        else:
            task = _OwnedTask(coroutine, loop=loop, **options)
            task.atk_output = output
        noted = notes.get(output)
        if noted is None or task.done():
            return task
        frame = get_frame(1)
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_LOOP_PACKAGES):
            frame = frame.f_back
        noted.append((reference(task), frame.f_code, frame.f_lasti))
        if not len(noted) % _PRUNE_EVERY:
            noted[:] = [note for note in noted if _is_pending(note[0]())]
        return task

    return factory


def _is_pending(task: asyncio.Task[Any] | None) -> bool:
    return task is not None and not task.done()


def _pending(notes: Sequence[_Note]) -> list[tuple[asyncio.Task[Any], CodeType, int]]:
    current = asyncio.current_task()
    tasks = ((reference(), code, instruction) for reference, code, instruction in notes)
    return [
        (task, code, instruction)
        for task, code, instruction in tasks
        if task is not None and task is not current and not task.done()
    ]


def _codes_of(functions: Iterable[Callable[..., Any]]) -> set[CodeType]:
    """The code of ``functions`` and of everything that is written inside of them."""
    codes: set[CodeType] = set()
    for function in functions:
        inner: Any = function
        while inner is not None:
            code = getattr(inner, "__code__", None)
            _collect(code, codes)
            inner = getattr(inner, "__wrapped__", None)
    return codes


def _collect(code: object, codes: set[CodeType]) -> None:
    if isinstance(code, CodeType):
        codes.add(code)
        for constant in code.co_consts:
            _collect(constant, codes)


def _runs_method_of(task: asyncio.Task[Any], values: Collection[object]) -> bool:
    frame = getattr(task.get_coro(), "cr_frame", None)
    if frame is None or not frame.f_code.co_argcount:
        return False
    first = frame.f_locals.get(frame.f_code.co_varnames[0])
    return frame.f_code.co_varnames[0] == "self" and any(first is value for value in values)


def _is_grouped(task: asyncio.Task[Any]) -> bool:
    frame = frame_of(task.get_coro())
    return frame is not None and frame.f_globals.get("__name__", "").startswith("anyio.")


async def _cancelled(tasks: list[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Cancel ``tasks`` until all are done, within bounds; give those that had to be forced."""
    for pause in _PAUSES:
        pending = [task for task in tasks if not task.done()]
        if not pending:
            return set()
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=pause)
    forced = {task for task in tasks if not task.done()}
    await _force(forced)
    return forced


async def _force(tasks: set[asyncio.Task[Any]]) -> None:
    """Close what ``tasks`` run, so that each ends with the error that its coroutine is over."""
    closed = [task for task in tasks if not end(task.get_coro())[0]]
    for task in closed:
        task.cancel()
        wake(task)
    if closed:
        await asyncio.wait(closed, timeout=_PAUSES[0])


async def end_leftovers() -> None:
    """End every task of the loop but this one, at the end of the run, whatever they do about it.

    The loop's own closing would wait for them without end. What catches everything is hidden from it.
    """
    tasks = list(asyncio.all_tasks() - {asyncio.current_task()})
    forced = await _cancelled(tasks)
    for task in tasks:
        if not task.done():
            keep_for_ever([task])
            asyncio._unregister_task(task)  # noqa: SLF001  # documented, for those who make tasks of their own
        elif not task.cancelled() and (error := task.exception()) is not None and task not in forced:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "unhandled exception at the end of the run", "exception": error, "task": task}
            )


class _Leak:
    """A task that still runs; what is told of it is looked up before it is cancelled."""

    def __init__(self, task: asyncio.Task[Any], code: CodeType, instruction: int) -> None:
        self.task = task
        self.code = code
        self.fate: Fate = "left"
        self._created = place_in_code(code, instruction)
        self._waiting = waiting_at(task.get_coro())
        self._coroutine = _name_of(task.get_coro())

    def told(self) -> LeakedTask:
        """Tell what became of it."""
        task, fate = self.task, self.fate
        # Asked for in any case: an error that nobody asks for is told when the task is freed.
        raised = task.exception() if task.done() and not task.cancelled() else None
        error = raised if fate == "ended" else None
        return LeakedTask(
            task.get_name(), self._coroutine, self._created, self._waiting, fate, "" if error is None else repr(error)
        )


def _name_of(coroutine: object) -> str:
    """The name of a task's coroutine, or of the first in it that isn't what runs it."""
    chain = [one for one in awaited_by(coroutine) if (frame := frame_of(one)) and not is_machinery(_file_of(frame))]
    named = chain[0] if chain else coroutine
    return getattr(named, "__qualname__", type(named).__qualname__)


def _file_of(frame: FrameType) -> str:
    return frame.f_code.co_filename
