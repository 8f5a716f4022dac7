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
import time
from typing import TYPE_CHECKING, Any

from asynctest_kit.engine import collection
from asynctest_kit.engine.capture import Capture, charge, current_output
from asynctest_kit.engine.events import CaseFinished, CaseStarted
from asynctest_kit.engine.executor import CaseRun, Execution, Executor
from asynctest_kit.engine.foreign_hooks import foreign_hooks
from asynctest_kit.engine.lifetimes import Lifetimes
from asynctest_kit.engine.plan import by_fixtures
from asynctest_kit.engine.pytest_lane import PytestLane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    import pytest

    from asynctest_kit.engine.events import Sink
    from asynctest_kit.engine.graph import SharedFixture
    from asynctest_kit.engine.pausing_loop import PausingLoop
    from asynctest_kit.engine.plan import Plan, PlannedCase

__all__ = ["Dispatcher"]


_FIXTURE_LIMIT = 300.0


class _Stopped(Exception):  # noqa: N818  # not an error: the run was told to end early
    """Leaves the stages."""


class Dispatcher:
    """Runs a plan.

    An early end (Ctrl-C, ``--maxfail``, ``pytest.exit``) cancels what waits, sets up or runs, and lets tear-downs go
    on: a test that is cancelled tears its own fixtures down, then the shared ones are.
    """

    def __init__(self, session: pytest.Session, plan: Plan, *, concurrency: int, timeout: float, sink: Sink) -> None:
        self.interrupt: BaseException | None = None
        self._session = session
        self._plan = plan
        self._places = asyncio.Semaphore(concurrency)
        self._narrow_gates = asyncio.Semaphore(concurrency)
        self._timeout = timeout
        self._sink = sink
        self._capture = Capture(session.config)
        self._ending = False
        self._gates: set[asyncio.Task[None]] = set()
        self._running: dict[asyncio.Task[Any], CaseRun] = {}
        self._last: PlannedCase | None = None

    async def run(self, loop: PausingLoop) -> None:
        """Run all three stages. Leaves no fixture up and no task running, however it ends."""
        config = self._session.config
        asyncio.get_running_loop().set_exception_handler(charge)
        with self._capture.running(), collection.routed_comparison(config, self._compare):
            async with Lifetimes.opened(self._sink, fixture_limit(self._timeout), loop) as lifetimes:
                executor = Executor(lifetimes, self._capture, self._timeout, foreign_hooks(config))
                by_pytest = PytestLane(lifetimes, self._capture, loop)
                config.pluginmanager.register(by_pytest, "asynctest_kit-pytest-lane")
                try:
                    await self._stages(executor, by_pytest)
                finally:
                    config.pluginmanager.unregister(by_pytest)
                    self._report_late(await lifetimes.close())

    async def _stages(self, executor: Executor, by_pytest: PytestLane) -> None:
        with contextlib.suppress(_Stopped):
            await self._one_by_one(self._plan.before, executor, by_pytest)
            await self._owned(self._together(executor))
            await self._one_by_one(self._plan.after, executor, by_pytest)

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
        for task, run in self._running.items():
            run.interrupt(task)

    async def _together(self, executor: Executor) -> None:
        async with asyncio.TaskGroup() as group:
            for fixtures, cases in by_fixtures(self._plan.shared).items():
                gate = group.create_task(self._gate(group, executor, fixtures, cases))
                self._gates.add(gate)
                gate.add_done_callback(self._gates.discard)

    async def _gate(
        self,
        group: asyncio.TaskGroup,
        executor: Executor,
        fixtures: tuple[SharedFixture, ...],
        cases: Sequence[PlannedCase],
    ) -> None:
        async with self._admitted(fixtures):
            for planned in cases:
                await self._places.acquire()
                context = contextvars.copy_context()
                run = context.run(executor.begin, planned)
                if not run.is_refused and not executor.lifetimes.have_settled(fixtures):
                    # Asked only now: a test that is skipped needs no fixture. One that waits takes no place.
                    self._places.release()
                    await executor.lifetimes.wait_until_up(fixtures)
                    await self._places.acquire()
                self._start(group, run, context)

    def _start(self, group: asyncio.TaskGroup, run: CaseRun, context: contextvars.Context) -> None:
        task = group.create_task(self._in_place(run), name=run.planned.case.nodeid, context=context)
        self._running[task] = run
        task.add_done_callback(self._running.pop)

    @contextlib.asynccontextmanager
    async def _admitted(self, fixtures: tuple[SharedFixture, ...]) -> AsyncIterator[None]:
        if all(fixture.scope == "session" for fixture in fixtures):
            yield
            return
        async with self._narrow_gates:
            yield

    async def _in_place(self, run: CaseRun) -> None:
        self._started(run.planned)
        try:
            execution = await run.to_end()
        finally:
            self._places.release()
        self._log(execution)
        self._finished(execution)

    async def _one_by_one(self, cases: Sequence[PlannedCase], executor: Executor, by_pytest: PytestLane) -> None:
        following = _next_of_pytest_lane(cases)
        for planned in cases:
            if planned.lane == "pytest":
                self._started(planned)
                self._finished(await by_pytest.run(planned, following[planned]))
                if self._ending:
                    raise _Stopped
            else:
                await self._owned(self._alone(executor, planned))

    async def _alone(self, executor: Executor, planned: PlannedCase) -> None:
        await self._places.acquire()
        async with asyncio.TaskGroup() as group:
            context = contextvars.copy_context()
            self._start(group, context.run(executor.begin, planned), context)

    def _started(self, planned: PlannedCase) -> None:
        self._sink(CaseStarted(nodeid=planned.case.nodeid, lane=planned.lane, at=time.monotonic()))

    def _log(self, execution: Execution) -> None:
        """Tell pytest's reporters: a test's reports together, however many tests ran beside it."""
        item = execution.planned.case.item
        with self._capture.suspended():
            item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            for report in execution.reports:
                item.ihook.pytest_runtest_logreport(report=report)
            item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def _finished(self, execution: Execution) -> None:
        times, planned = execution.times, execution.planned
        self._sink(
            CaseFinished(
                nodeid=planned.case.nodeid,
                lane=planned.lane,
                outcome=execution.outcome,
                start=times.start,
                ready=times.ready or times.end,
                call_start=times.call_start or times.end,
                call_end=times.call_end or times.end,
                end=times.end,
                needs=tuple(fixture.id for fixture in planned.case.shared),
                reason=execution.reason,
            )
        )
        self._last = planned
        if execution.interrupt is not None:
            self.interrupt = execution.interrupt
        if self.interrupt is not None or self._session.shouldfail or self._session.shouldstop:
            self._end_early()

    def _report_late(self, errors: list[BaseException]) -> None:
        """Charge the last test with what fixtures raised that no test was left to wait for."""
        if self._last is None:
            return
        item = self._last.case.item
        for error in errors:
            info = collection.call_info("teardown", error, start=time.time(), duration=0.0)
            report = item.ihook.pytest_runtest_makereport(item=item, call=info)
            with self._capture.suspended():
                item.ihook.pytest_runtest_logreport(report=report)

    def _compare(self, op: str, left: object, right: object) -> str | None:
        output = current_output.get()
        item = self._session.items[0] if output is None else output.item
        comparison = collection.comparison_of(item)
        return None if comparison is None else comparison(op, left, right)


def fixture_limit(timeout: float) -> float:
    """Seconds that a shared fixture's set-up or tear-down may take: it may boot services, so more than a test's."""
    return max(_FIXTURE_LIMIT, 5 * timeout) if timeout else 0.0


def _next_of_pytest_lane(cases: Sequence[PlannedCase]) -> dict[PlannedCase, PlannedCase | None]:
    lane = [planned for planned in cases if planned.lane == "pytest"]
    return dict(itertools.zip_longest(lane, lane[1:]))
