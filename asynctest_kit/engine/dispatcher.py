"""Starts tests when their fixtures are up and a place is free, and tells pytest and the event stream what came of it.

The shared lane is a set of gates, one for each distinct set of shared fixtures: a gate waits until its fixtures are up,
then lets its tests through one by one as places come free. So a test waits only for what it needs itself, and one that
waits takes no place. Gates over fixtures narrower than the session are limited in number, so that a suite of a thousand
modules doesn't set a thousand module fixtures up at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from typing import TYPE_CHECKING

from asynctest_kit.engine import collection
from asynctest_kit.engine.capture import Capture, current_output
from asynctest_kit.engine.events import CaseFinished, CaseStarted
from asynctest_kit.engine.executor import Execution, Executor
from asynctest_kit.engine.lifetimes import Lifetimes
from asynctest_kit.engine.plan import by_fixtures
from asynctest_kit.engine.pytest_lane import PytestLane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import pytest

    from asynctest_kit.engine.events import Sink
    from asynctest_kit.engine.graph import SharedFixture
    from asynctest_kit.engine.pausing_loop import PausingLoop
    from asynctest_kit.engine.plan import Plan, PlannedCase

__all__ = ["Dispatcher"]


class _Stopped(Exception):  # noqa: N818  # not an error: the run was told to end early
    """Ends the task group of the shared lane."""


class Dispatcher:
    """Runs a plan."""

    def __init__(self, session: pytest.Session, plan: Plan, *, concurrency: int, timeout: float, sink: Sink) -> None:
        self.interrupt: BaseException | None = None
        self._session = session
        self._plan = plan
        self._places = asyncio.Semaphore(concurrency)
        self._narrow_gates = asyncio.Semaphore(concurrency)
        self._timeout = timeout
        self._sink = sink
        self._capture = Capture(session.config)

    async def run(self, loop: PausingLoop) -> None:
        """Run all three stages. Leaves no fixture up and no task running, however it ends."""
        config = self._session.config
        with self._capture.running(), collection.routed_comparison(config, self._compare):
            async with Lifetimes.opened(self._sink) as lifetimes:
                executor = Executor(lifetimes, self._capture, self._timeout, collection.foreign_setup_hooks(config))
                by_pytest = PytestLane(lifetimes, self._capture, loop)
                config.pluginmanager.register(by_pytest, "asynctest_kit-pytest-lane")
                try:
                    await self._stages(executor, by_pytest)
                finally:
                    config.pluginmanager.unregister(by_pytest)

    async def _stages(self, executor: Executor, by_pytest: PytestLane) -> None:
        with contextlib.suppress(_Stopped):
            await self._one_by_one(self._plan.before, executor, by_pytest)
            await self._together(executor)
            await self._one_by_one(self._plan.after, executor, by_pytest)

    async def _together(self, executor: Executor) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for fixtures, cases in by_fixtures(self._plan.shared).items():
                    group.create_task(self._gate(group, executor, fixtures, cases))
        except* _Stopped as stopped:
            raise stopped.exceptions[0] from None

    async def _gate(
        self,
        group: asyncio.TaskGroup,
        executor: Executor,
        fixtures: tuple[SharedFixture, ...],
        cases: Sequence[PlannedCase],
    ) -> None:
        async with self._admitted(fixtures):
            await executor.lifetimes.wait_until_up(fixtures)
            for planned in cases:
                await self._places.acquire()
                group.create_task(self._in_place(executor, planned), name=planned.case.nodeid)

    @contextlib.asynccontextmanager
    async def _admitted(self, fixtures: tuple[SharedFixture, ...]) -> AsyncIterator[None]:
        if all(fixture.scope == "session" for fixture in fixtures):
            yield
            return
        async with self._narrow_gates:
            yield

    async def _in_place(self, executor: Executor, planned: PlannedCase) -> None:
        try:
            self._started(planned)
            execution = await executor.run(planned)
        finally:
            self._places.release()
        self._log(execution)
        self._finished(execution)

    async def _one_by_one(self, cases: Sequence[PlannedCase], executor: Executor, by_pytest: PytestLane) -> None:
        following = _next_of_pytest_lane(cases)
        for planned in cases:
            self._started(planned)
            if planned.lane == "pytest":
                execution = await by_pytest.run(planned, following[planned])
            else:
                execution = await self._alone(executor, planned)
                self._log(execution)
            self._finished(execution)

    async def _alone(self, executor: Executor, planned: PlannedCase) -> Execution:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(executor.run(planned), name=planned.case.nodeid)
        return task.result()

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
        if execution.interrupt is not None:
            self.interrupt = execution.interrupt
        if self.interrupt is not None or self._session.shouldfail or self._session.shouldstop:
            raise _Stopped

    def _compare(self, op: str, left: object, right: object) -> str | None:
        output = current_output.get()
        item = self._session.items[0] if output is None else output.item
        comparison = collection.comparison_of(item)
        return None if comparison is None else comparison(op, left, right)


def _next_of_pytest_lane(cases: Sequence[PlannedCase]) -> dict[PlannedCase, PlannedCase | None]:
    lane = [planned for planned in cases if planned.lane == "pytest"]
    return dict(itertools.zip_longest(lane, lane[1:]))
