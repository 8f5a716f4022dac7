"""Tests that pytest's own protocol runs, while the loop stands still.

Sync tests, unittest cases, doctests and tests on other event loops. What such a test shares with tests on our loop
(an async fixture, a fixture that both use) is set up by the engine and lent to pytest for the time of the test, so
that there is one value and one set-up, whoever runs the test.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from asynctest_kit.engine import collection
from asynctest_kit.engine.executor import Execution, let_go
from asynctest_kit.engine.lifetimes import CaseFixtures

if TYPE_CHECKING:
    from asynctest_kit.engine.capture import Capture
    from asynctest_kit.engine.lifetimes import Lifetimes
    from asynctest_kit.engine.pausing_loop import PausingLoop
    from asynctest_kit.engine.plan import PlannedCase

__all__ = ["PytestLane", "ReportCollector"]


@dataclass(eq=False, slots=True)
class ReportCollector:
    """A pytest plugin that keeps the reports of the test that pytest runs just now."""

    reports: list[pytest.TestReport] = field(default_factory=list)

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the report."""
        self.reports.append(report)


@dataclass(frozen=True, slots=True)
class PytestLane:
    """Runs tests by pytest's protocol, one at a time."""

    lifetimes: Lifetimes
    capture: Capture
    loop: PausingLoop
    collector: ReportCollector

    async def run(self, planned: PlannedCase, following: PlannedCase | None) -> Execution:
        """Run one test; ``following`` is the next of this lane, for which pytest keeps its wider fixtures up."""
        execution = Execution(planned)
        times = execution.times
        times.start = time.monotonic()
        fixtures = CaseFixtures(planned.case, self.lifetimes)
        lent = await fixtures.lend()
        times.ready = times.call_start = time.monotonic()
        self.collector.reports.clear()
        try:
            await self.loop.outside(lambda: self._protocol(planned, following))
        except (KeyboardInterrupt, pytest.exit.Exception) as interrupt:
            execution.interrupt = interrupt
        finally:
            for source in lent:
                collection.take_back(source.definition)
        times.call_end = time.monotonic()
        execution.reports = list(self.collector.reports)
        await self._tear_down(execution, fixtures)
        times.end = time.monotonic()
        return execution

    def _protocol(self, planned: PlannedCase, following: PlannedCase | None) -> None:
        item = planned.case.item
        nextitem = None if following is None else following.case.item
        with self.capture.suspended():
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)

    async def _tear_down(self, execution: Execution, fixtures: CaseFixtures) -> None:
        began, start = time.time(), time.monotonic()
        errors: list[BaseException] = []
        try:
            await fixtures.tear_down()
        except BaseException as error:  # noqa: BLE001  # becomes the test's report below
            errors.append(error)
        errors += await let_go(fixtures.case, self.lifetimes)
        item = fixtures.case.item
        for failure in errors:
            info = collection.call_info("teardown", failure, start=began, duration=time.monotonic() - start)
            report = item.ihook.pytest_runtest_makereport(item=item, call=info)
            execution.reports.append(report)
            with self.capture.suspended():
                item.ihook.pytest_runtest_logreport(report=report)
