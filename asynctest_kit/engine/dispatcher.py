"""Starts tests when their fixtures are up and a place is free, and tells pytest and the event stream what came of it.

The shared lane is a set of gates, one for each distinct set of shared fixtures: a gate waits until its fixtures are up,
then lets its tests through one by one as places come free. So a test waits only for what it needs itself, and one that
waits takes no place. Gates over fixtures narrower than the session are limited in number, so that a suite of a thousand
modules doesn't set a thousand module fixtures up at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from asynctest_kit.engine import clock, collection
from asynctest_kit.engine.ambient import applied, key_of
from asynctest_kit.engine.announcer import Announcer
from asynctest_kit.engine.apart import Apart
from asynctest_kit.engine.background import Background
from asynctest_kit.engine.capture import Capture, current_output
from asynctest_kit.engine.carried import carried
from asynctest_kit.engine.code_places import waiting_at
from asynctest_kit.engine.context_warnings import filters_in_force
from asynctest_kit.engine.deadlines import Deadlines
from asynctest_kit.engine.executor import CaseRun, Execution, Executor, Times
from asynctest_kit.engine.fair_loop import FairLoop
from asynctest_kit.engine.fixture_call import may_ask_while_running
from asynctest_kit.engine.foreign_hooks import foreign_hooks
from asynctest_kit.engine.guard import Guard, guarded_by
from asynctest_kit.engine.leaked_tasks import TaskLedger, end_leftovers
from asynctest_kit.engine.lifetimes import Lifetimes
from asynctest_kit.engine.own_mocks import OwnMocks
from asynctest_kit.engine.places import Places
from asynctest_kit.engine.plan import by_ambient, by_gate
from asynctest_kit.engine.put_back import guarded, targets_of
from asynctest_kit.engine.pytest_lane import PytestLane
from asynctest_kit.engine.reruns import Again, Reruns, Suspects, several, suspects
from asynctest_kit.engine.stashed import AFTER_EACH, TASKS, WAITS
from asynctest_kit.engine.telling import Telling
from asynctest_kit.engine.uncaught import Uncaught
from asynctest_kit.engine.waits import Waits
from asynctest_kit.engine.watchdog import Thresholds, Watchdog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence

    import pytest

    from asynctest_kit.engine.ambient import Ambient
    from asynctest_kit.engine.capture import CaseOutput
    from asynctest_kit.engine.code_places import Place
    from asynctest_kit.engine.deadlines import Alone
    from asynctest_kit.engine.events import Cause, Sink
    from asynctest_kit.engine.graph import Case, SharedFixture
    from asynctest_kit.engine.memory import Memory
    from asynctest_kit.engine.pausing_loop import PausingLoop
    from asynctest_kit.engine.plan import Plan, PlannedCase
    from asynctest_kit.engine.treatment import Options
    from asynctest_kit.engine.watchdog import Blocked

__all__ = ["Dispatcher"]


_FIXTURE_LIMIT = 300.0

#: How an attempt alone ended that says nothing of the failure before it.
_ENDS = {
    "skipped": "was skipped",
    "xfailed": "was expected to fail, and did",
    "failed": "found what it needs gone",
    "error": "found what it needs gone",
}

#: Seconds after Ctrl-C until it is said what the end waits for.
_STOPPING = 1.0


class _Stopped(Exception):  # noqa: N818  # not an error: the run was told to end early
    """Leaves the stages."""


class Dispatcher:
    """Runs a plan.

    An early end (Ctrl-C, ``--maxfail``, ``pytest.exit``) cancels what waits, sets up or runs, and lets tear-downs go
    on: a test that is cancelled tears its own fixtures down, then the shared ones are.

    Args:
        debugs: Whether a debugger is to be opened where a test fails.
    """

    def __init__(  # noqa: PLR0913  # what a run is made of
        self,
        session: pytest.Session,
        plan: Plan,
        options: Options,
        memory: Memory,
        *,
        sink: Sink,
        debugs: bool = False,
    ) -> None:
        self.interrupt: BaseException | None = None
        self._session = session
        self._plan = plan
        self._options = options
        self._narrow_gates = asyncio.Semaphore(options.concurrency)
        self._reruns = Reruns(memory, triages=not session.config.getoption("maxfail") and len(plan.shared) > 1)
        apart = Apart(plan.apart)
        self._places = Places(options.concurrency, options.groups, apart, lambda: bool(self._running))
        self._telling = Telling(sink, apart.waited_for)
        self._waits = Waits(sink, memory, {planned.case.nodeid: planned for planned in plan.shared})
        session.config.stash[WAITS] = self._waits
        self._deadlines = Deadlines(self._waiting, self._telling.note, memory.is_met)
        self._sink = sink
        self._debugs = debugs
        self._capture = Capture(session.config)
        may_stop = bool(session.config.getoption("maxfail") or session.config.getoption("stepwise", False))
        self._announcer = Announcer(session.config, self._capture, self._end_early_if_told, at_once=may_stop)
        self._ending = False
        self._gates: set[asyncio.Task[None]] = set()
        self._running: dict[CaseRun, asyncio.Task[Any]] = {}
        self._last: PlannedCase | None = None
        self._settling: Again | None = None
        self._loop: PausingLoop | None = None
        self._lifetimes: Lifetimes | None = None
        self._terminal = -1

    async def run(self, loop: PausingLoop) -> None:
        """Run all three stages. Leaves no fixture up and no task running, however it ends."""
        config = self._session.config
        self._loop = loop
        asyncio.get_running_loop().set_default_executor(_executor(self._options.concurrency))
        mocks = OwnMocks()
        guard = Guard(asyncio.get_running_loop(), on_modules=mocks.look_again)
        limit = fixture_limit(self._options.timeout)
        with contextlib.ExitStack() as around:
            around.enter_context(self._terminal_open())
            watchdog = self._watchdog()
            around.enter_context(Background(self._telling.note).watching(asyncio.get_running_loop()))
            around.enter_context(self._capture.running())
            around.enter_context(carried((current_output, guarded_by, filters_in_force)))
            uncaught = Uncaught(config, lambda: loop.is_running)
            around.enter_context(uncaught.kept())
            around.enter_context(mocks.installed())
            around.enter_context(guard.installed())
            around.enter_context(collection.routed_comparison(config, self._compare))
            around.enter_context(watchdog.watching())
            config.stash[TASKS] = ledger = TaskLedger()
            around.enter_context(ledger.installed(asyncio.get_running_loop()))
            async with Lifetimes.opened(self._sink, limit, loop, guarded=_guarded(self._plan)) as lifetimes:
                self._lifetimes = lifetimes
                hooks = foreign_hooks(config)
                executor = Executor(
                    lifetimes=lifetimes,
                    capture=self._capture,
                    guard=guard,
                    watchdog=watchdog,
                    ledger=ledger,
                    hooks=hooks,
                    fail_slow=self._options.fail_slow,
                    debugs=self._debugs,
                    shows=bool(config.getoption("setupshow", False)),
                    uncaught=uncaught,
                    waits=self._waits,
                )
                by_pytest = PytestLane(lifetimes, self._capture, loop)
                config.pluginmanager.register(by_pytest, "asynctest_kit-pytest-lane")
                try:
                    await self._stages(executor, by_pytest)
                finally:
                    self._tell_waiting()
                    self._announcer.flush()
                    config.pluginmanager.unregister(by_pytest)
                    errors = await lifetimes.close()
                    if not loop.is_given_up:  # else all tear-downs were cancelled
                        self._report_late(errors)
            await end_leftovers()

    @contextlib.contextmanager
    def _terminal_open(self) -> Iterator[None]:
        self._terminal = os.dup(1)
        try:
            yield
        finally:
            os.close(self._terminal)
            self._terminal = -1

    def _tell_at_once(self, text: str) -> None:
        """Write to the terminal, past all capture."""
        os.write(self._terminal, f"\n{text}\n".encode())

    def interrupted(self) -> None:
        """Ctrl-C has come: if the end takes longer than a moment, say what it waits for."""
        asyncio.get_running_loop().call_later(_STOPPING, self._tell_stopping)

    def _tell_stopping(self) -> None:
        fixtures = [] if self._lifetimes is None else self._lifetimes.ending()
        running = [run.planned.case.nodeid for run, task in self._running.items() if not task.done()]
        waits = running + [f"fixture {one}" for one in fixtures]
        if waits and self._terminal >= 0:
            self._tell_at_once(f"stopping: waiting for {several(waits)}; Ctrl-C again ends at once")

    def _waiting(self, output: CaseOutput) -> Place | None:
        """Where the test of ``output`` waits."""
        task = next((task for run, task in self._running.items() if run.output is output), None)
        return None if task is None else waiting_at(task.get_coro())

    def _watchdog(self) -> Watchdog:
        """Have blocks of the loop reported; one that lasts at once."""

        def tell_stuck(blocked: Blocked) -> None:
            self._tell_at_once(f"{blocked}, and still does:\n{blocked.stack}")

        def note(blocked: Blocked) -> None:
            where = "" if blocked.place is None else f" at {blocked.place}"
            text = f"blocked the event loop for {blocked.seconds:.2g} s{where}"
            self._telling.note(blocked.nodeid, text, blocked.stack)

        thresholds = Thresholds(blocked=self._options.block_threshold)
        own_work = (CaseRun.report.__code__, Announcer.flush.__code__)
        return Watchdog(asyncio.get_running_loop(), thresholds, note, tell_stuck, own_work)

    async def _stages(self, executor: Executor, by_pytest: PytestLane) -> None:
        self._keep_for_who_asks(executor.lifetimes)
        with contextlib.suppress(_Stopped):
            await self._one_by_one(self._plan.before, executor, by_pytest)
            for ambient, cases in by_ambient(self._plan.shared).items():
                await self._owned(self._wave(executor, ambient, cases))
            await self._one_by_one(self._plan.after, executor, by_pytest)
            await self._run_again(executor)

    def _keep_for_who_asks(self, lifetimes: Lifetimes) -> None:
        """Keep the session's fixtures to the end if tests may ask for them while running, or if that is asked for."""
        cases = [planned.case for planned in (*self._plan.before, *self._plan.shared, *self._plan.after)]
        if self._options.keeps_session or any(map(may_ask_while_running, cases)):
            _keep_of_session(cases, lifetimes)

    async def _owned(self, body: Coroutine[Any, Any, None]) -> None:
        """Run ``body`` in a task that ends before this returns, and that an interrupt ends in order.

        A task group would cancel its tests wherever they are, in the middle of their tear-down too.
        """
        task = asyncio.create_task(body)
        interrupted = False
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                interrupted = True
                self._end_early()
        task.result()
        if interrupted:
            raise asyncio.CancelledError
        if self._ending:
            raise _Stopped

    def _end_early(self) -> None:
        """Cancel whatever doesn't tear down yet."""
        self._ending = True
        for gate in self._gates:
            gate.cancel()
        for run, task in self._running.items():
            if not (run.is_tearing_down or run.is_interrupted):
                self._telling.cut_off(run.execution, run.waiting(task))
            run.interrupt(task)

    async def _wave(self, executor: Executor, ambient: Ambient, cases: Sequence[PlannedCase]) -> None:
        """Run tests beside each other, with what is changed around each of them changed around all."""
        if ambient:
            # Under pytest these are set up before a test's own fixtures, so without the change.
            for planned in cases:
                executor.lifetimes.hold_for(planned.case)
                await executor.lifetimes.wait_until_up(planned.case.shared)
        targets = {
            target
            for planned in cases
            for fixture in planned.case.local
            for target in targets_of(fixture.definition.func)
        }
        with guarded(targets), applied(ambient), _fair_loop(self._deadlines):
            await self._together(executor, cases)
        self._announcer.flush()

    async def _together(self, executor: Executor, everything: Sequence[PlannedCase]) -> None:
        async with asyncio.TaskGroup() as group:
            for (fixtures, limited), cases in by_gate(everything).items():
                gate = group.create_task(self._gate(group, executor, fixtures, self._places.group(limited), cases))
                self._gates.add(gate)
                gate.add_done_callback(self._gates.discard)

    async def _gate(
        self,
        group: asyncio.TaskGroup,
        executor: Executor,
        fixtures: tuple[SharedFixture, ...],
        limited: asyncio.Semaphore,
        cases: Sequence[PlannedCase],
    ) -> None:
        since = clock.monotonic()
        async with self._admitted(fixtures):
            waiting = deque(cases)
            while waiting:
                planned = await self._places.next(waiting, limited)
                context = contextvars.copy_context()
                run = context.run(executor.begin, planned, once_more=self._reruns.once_more)
                if not run.is_refused and not executor.lifetimes.have_settled(fixtures):
                    # Asked only now: a test that is skipped needs no fixture. One that waits takes no place.
                    self._places.give_back()
                    try:
                        await executor.lifetimes.wait_until_up(fixtures)
                    except asyncio.CancelledError:
                        unstarted = [planned, *waiting]
                        self._cut_off_at_gate(unstarted, since, executor.lifetimes.waiting(fixtures))
                        raise
                    await self._places.take()
                self._start(group, self._in_place(run, limited), run, context)

    def _cut_off_at_gate(self, cases: Sequence[PlannedCase], since: float, waiting: str) -> None:
        for planned in cases:
            self._telling.cut_off(Execution(planned, times=Times(start=since)), waiting)

    def _start(
        self,
        group: asyncio.TaskGroup,
        body: Coroutine[Any, Any, None],
        run: CaseRun,
        context: contextvars.Context,
    ) -> None:
        """Start a test; ``body`` takes it off those that run, unless it is cancelled before it begins."""
        self._running[run] = group.create_task(body, name=run.planned.case.nodeid, context=context)

    @contextlib.asynccontextmanager
    async def _admitted(self, fixtures: tuple[SharedFixture, ...]) -> AsyncIterator[None]:
        if all(fixture.scope == "session" for fixture in fixtures):
            yield
            return
        async with self._narrow_gates:
            yield

    async def _in_place(self, run: CaseRun, limited: asyncio.Semaphore) -> None:
        self._telling.started(run.planned)
        try:
            execution = await run.to_end()
        finally:
            del self._running[run]
            self._places.end(run.planned, limited)
        self._settled(execution)

    def _settled(self, execution: Execution) -> None:
        """Report a first attempt, unless there will be another."""
        if self._reruns.take(execution):
            self._telling.uncounted(execution)
        else:
            self._announcer.tell(execution)
            self._finished(execution)

    async def _one_by_one(self, cases: Sequence[PlannedCase], executor: Executor, by_pytest: PytestLane) -> None:
        following = _next_of_pytest_lane(cases)
        for planned in cases:
            self._telling.started(planned)
            if planned.lane == "pytest":
                *before, execution = await by_pytest.run(planned, following[planned])
                for attempt in before:
                    self._telling.uncounted(attempt)
                self._finished(execution)
            else:
                self._settled(await self._attempt(executor, planned, once_more=self._reruns.once_more))
                self._announcer.flush()
            for check in self._session.config.stash.get(AFTER_EACH, ()):
                await check(planned.case.nodeid)
            self._stop_if_told()

    async def _attempt(
        self,
        executor: Executor,
        planned: PlannedCase,
        *,
        once_more: Callable[[CaseRun], bool],
        cause: Cause = "",
        alone: Alone | None = None,
    ) -> Execution:
        """Run a test alone; have its deadlines noted in ``alone``."""
        with contextlib.nullcontext() if alone is None else _watched(alone):
            (execution,) = await self._attempts(executor, [planned], once_more=once_more, cause=cause)
        execution.alone = alone
        return execution

    async def _attempts(
        self,
        executor: Executor,
        cases: Sequence[PlannedCase],
        *,
        once_more: Callable[[CaseRun], bool],
        cause: Cause,
    ) -> list[Execution]:
        """Run some tests at once, and only them."""
        executions: list[Execution] = []

        async def attempt(run: CaseRun) -> None:
            try:
                executions.append(await run.to_end())
            finally:
                del self._running[run]

        async def attempts() -> None:
            ambient = key_of(cases[0].ambient)  # the same for all: others didn't run beside it
            fairly = _fair_loop() if len(cases) > 1 else contextlib.nullcontext()
            with applied(ambient), fairly:
                async with asyncio.TaskGroup() as group:
                    for planned in cases:
                        context = contextvars.copy_context()
                        run = context.run(executor.begin, planned, once_more=once_more)
                        run.execution.cause = cause
                        self._start(group, attempt(run), run, context)

        try:
            await self._owned(attempts())
        except (_Stopped, asyncio.CancelledError):
            for execution in executions if cause else ():  # a first one is told of as one that started
                self._telling.uncounted(execution)
            raise
        return executions

    # --- what runs again ----------------------------------------------------------------------------------------------

    async def _run_again(self, executor: Executor) -> None:
        while (again := self._reruns.next()) is not None:
            if self._reruns.is_worth_it(again):
                self._settling = again
                await self._settle(executor, again)
            else:
                failed = "It failed beside others and was not run again alone: too much failed for that."
                doubted = "It was not run again alone: too many were in doubt for that"
                self._say(again, again.first, failed=failed, doubted=doubted)
                self._announcer.tell(again.first)
                self._finished(again.first)
                self._stop_if_told()

    def _tell_waiting(self) -> None:
        """Report the failures that were to be run again alone when the run ended; with ``--maxfail`` one was enough."""
        again = self._settling or self._reruns.next()
        while again is not None:
            if again.last is not None:
                self._telling.uncounted(again.last)
            if again.first.reports and not self._session.shouldfail:
                failed = self._reruns.cut_off(again, running=again is self._settling)
                doubted = "The run ended before it was run again alone"
                self._say(again, again.first, failed=failed, doubted=doubted)
                self._announcer.tell(again.first)
                self._finished(again.first)
            elif again is not self._settling:  # whose second attempt was cut off
                now = clock.monotonic()
                waits = Execution(again.planned, times=Times(start=now), cause=again.cause)
                self._telling.cut_off(waits, f"waits to be run again alone: {again.planned.reason}", now)
            again = self._reruns.next()

    async def _settle(self, executor: Executor, again: Again) -> None:
        executor.lifetimes.renew(again.planned.case)
        goes_on = True
        while goes_on:
            self._telling.started(again.planned)
            execution = await self._attempt(
                executor,
                again.planned,
                once_more=self._holds_for(again),
                cause=again.cause,
                alone=self._deadlines.alone() if again.looks_at_deadlines else None,
            )
            goes_on = self._reruns.judge(again, execution)
            if goes_on:
                self._telling.uncounted(execution)
        if (stands := self._reruns.attempt_that_stands(again, execution)) is not None:
            self._telling.uncounted(execution)
            ended = f"Run again alone, it {_ENDS[execution.outcome]}, which says nothing of"
            doubted = self._reruns.failed_otherwise(execution) or f"{ended} that"
            self._say(again, stands, failed=f"{ended} this failure.", doubted=doubted)
            stands.attempts, execution = again.attempts + (not execution.failed), stands
        elif self._reruns.settle(again, execution):
            execution = await self._blame(executor, again, execution)
        elif again.first.touched and execution.failed:
            _add_section(
                execution,
                f"It was stopped beside others, for it touched {again.first.touched}, and ran again alone. What it had "
                "done before it was stopped was done twice.",
            )
        elif again.doubt is not None and execution.failed:
            _add_section(execution, self._reruns.missed(again))
        elif other := self._reruns.other_failure(again, execution):
            _add_section(execution, other)
        self._settling = None
        self._announcer.tell(execution)
        self._announcer.flush()
        self._finished(execution)
        self._stop_if_told()

    def _say(self, again: Again, stands: Execution, *, failed: str, doubted: str) -> None:
        """Say why no attempt alone speaks of one that stands: in its report if it failed, by a verdict if it passed."""
        if again.doubt is None or stands is not again.first:
            _add_section(stands, failed)
        else:
            stands.verdict, stands.note = "doubtful", self._reruns.unchecked(again, doubted)

    def _holds_for(self, again: Again) -> Callable[[CaseRun], bool]:
        return lambda run: self._reruns.holds(again, run)

    async def _blame(self, executor: Executor, again: Again, alone: Execution) -> Execution:
        """Find out beside whom a test fails that passes alone; give the attempt that counts."""
        beside = self._reruns.neighbours(again)
        # Some have ended with their last user: each attempt would set them up again.
        _keep_of_session([planned.case for planned in beside], executor.lifetimes)

        async def fails_beside(others: Sequence[PlannedCase]) -> bool:
            victim = again.first.planned
            together = [victim, *others]
            for one in together:
                executor.lifetimes.hold_for(one.case)
            executions = await self._attempts(executor, together, once_more=lambda _: False, cause="tracing")
            for execution in executions:
                self._telling.uncounted(execution)
            return any(execution.failed for execution in executions if execution.planned is victim)

        if again.first.held_up:
            found = Suspects(beside, known=again.first.held_up)
        elif (doubt := again.doubt_of_failure) is not None:
            found = Suspects(beside, doubt=doubt)
        elif self._reruns.may_trace():
            found = await suspects(beside, fails_beside)
        else:
            found = Suspects(beside)
        counts = again.first if self._options.interference_fails else alone
        if counts is again.first:
            self._telling.uncounted(alone)
        counts.verdict, counts.note, counts.attempts = "interference", found.sentence(), alone.attempts
        _add_section(counts, found.section())
        return counts

    def _stop_if_told(self) -> None:
        if self._ending:
            raise _Stopped

    # --- what is told -------------------------------------------------------------------------------------------------

    def _finished(self, execution: Execution) -> None:
        self._telling.finished(execution)
        self._last = execution.planned
        if execution.interrupt is not None:
            self.interrupt = execution.interrupt
        self._end_early_if_told()

    def _end_early_if_told(self) -> None:
        self.interrupt = self.interrupt or self._announcer.interrupt
        if isinstance(self.interrupt, KeyboardInterrupt) and self._loop is not None:
            self._loop.note_interrupt(self.interrupt)
        if self.interrupt is not None or self._session.shouldfail or self._session.shouldstop:
            self._end_early()

    def _report_late(self, errors: list[BaseException]) -> None:
        """Charge the last test with what fixtures raised that no test was left to wait for."""
        if self._last is None:
            return
        item = self._last.case.item
        for error in errors:
            info = collection.call_info("teardown", error, start=clock.wall(), duration=0.0)
            report = item.ihook.pytest_runtest_makereport(item=item, call=info)
            with self._capture.suspended():
                item.ihook.pytest_runtest_logreport(report=report)

    def _compare(self, op: str, left: object, right: object) -> str | None:
        output = current_output.get()
        item = self._session.items[0] if output is None else output.item
        comparison = collection.comparison_of(item)
        return None if comparison is None else comparison(op, left, right)


def _keep_of_session(cases: Iterable[Case], lifetimes: Lifetimes) -> None:
    """Keep what the session's fixtures of ``cases`` are, or come to be, to the end of the run."""
    for fixture in {fixture for case in cases for fixture in case.shared if fixture.scope == "session"}:
        lifetimes.hold(fixture)


def _guarded(plan: Plan) -> frozenset[SharedFixture]:
    """The shared fixtures that may not change process-global state: others run beside those that they are up for."""
    return frozenset(
        fixture for planned in plan.shared for fixture in planned.case.shared if fixture.scope != "session"
    )


def _executor(concurrency: int) -> ThreadPoolExecutor:
    """As many threads as every test beside each other would have on a loop of its own; made when they are needed."""
    each = min(32, (os.cpu_count() or 1) + 4)  # as asyncio's default
    return ThreadPoolExecutor(min(512, concurrency * each), thread_name_prefix="asyncio")


def _fair_loop(deadlines: Deadlines | None = None) -> contextlib.AbstractContextManager[None]:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, FairLoop):
        return contextlib.nullcontext()
    return loop.shared() if deadlines is None else loop.shared(deadlines.overdue, deadlines.late)


def _watched(alone: Alone) -> contextlib.AbstractContextManager[None]:
    loop = asyncio.get_running_loop()
    return loop.watched(alone.made, alone.ended) if isinstance(loop, FairLoop) else contextlib.nullcontext()


def _add_section(execution: Execution, text: str) -> None:
    """Say something in the report of the phase that failed; in the call's where none did."""
    reports = [report for report in execution.reports if report.failed] or execution.reports[1:2]
    for report in reports[:1]:
        report.sections.append(("asynctest_kit", text))


def fixture_limit(timeout: float) -> float:
    """Seconds that a shared fixture's set-up or tear-down may take: it may boot services, so more than a test's."""
    return max(_FIXTURE_LIMIT, 5 * timeout) if timeout else 0.0


def _next_of_pytest_lane(cases: Sequence[PlannedCase]) -> dict[PlannedCase, PlannedCase | None]:
    lane = [planned for planned in cases if planned.lane == "pytest"]
    return dict(itertools.zip_longest(lane, lane[1:]))
