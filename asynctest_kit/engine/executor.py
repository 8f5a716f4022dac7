"""One test: its own task, its own context, three phases, one result.

Whatever a test raises ends here. ``Skipped``, ``Failed`` and ``XFailed`` are BaseExceptions, and so is the
cancellation of a time-out; none of them may reach the task group that the tests run in. What does pass is
``KeyboardInterrupt`` and ``pytest.exit``, which end the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest

from asynctest_kit.engine import collection
from asynctest_kit.engine.capture import current_output
from asynctest_kit.engine.lifetimes import CaseFixtures
from asynctest_kit.engine.time_limit import TimeLimit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from asynctest_kit.engine.capture import Capture
    from asynctest_kit.engine.events import Outcome
    from asynctest_kit.engine.foreign_hooks import ForeignHooks
    from asynctest_kit.engine.graph import Case
    from asynctest_kit.engine.lifetimes import Lifetimes
    from asynctest_kit.engine.plan import PlannedCase

__all__ = ["CaseRun", "Execution", "Executor", "Times", "let_go", "outcome_of", "timeout_of"]

When = Literal["setup", "call", "teardown"]


@dataclass(slots=True)
class Times:
    """When a test passed its stations, in seconds on ``CLOCK_MONOTONIC``; 0 for one it never reached."""

    start: float = 0.0
    ready: float = 0.0
    call_start: float = 0.0
    call_end: float = 0.0
    end: float = 0.0


@dataclass(slots=True)
class Execution:
    """What came of one test.

    Attributes:
        reports: pytest's reports, in order; empty if the run was interrupted before it ended.
        times: Its stations.
        interrupt: What ends the whole run (``KeyboardInterrupt``, ``pytest.exit``), or None.
    """

    planned: PlannedCase
    reports: list[pytest.TestReport] = field(default_factory=list)
    times: Times = field(default_factory=Times)
    interrupt: BaseException | None = None

    @property
    def outcome(self) -> Outcome:
        """Pytest's outcome of the whole test."""
        return outcome_of(self.reports)

    @property
    def reason(self) -> str:
        """The first line that tells why it didn't pass."""
        for report in self.reports:
            if not report.passed:
                return _first_line(report)
        return ""


def outcome_of(reports: list[pytest.TestReport]) -> Outcome:
    """One word for a test's reports, worst first."""
    if any(report.failed for report in reports if report.when != "call"):
        return "error"
    if any(report.failed for report in reports):
        return "failed"
    if any(hasattr(report, "wasxfail") for report in reports):
        return "xfailed" if any(report.skipped for report in reports) else "xpassed"
    return "skipped" if any(report.skipped for report in reports) else "passed"


def _first_line(report: pytest.TestReport) -> str:
    longrepr = report.longrepr
    if isinstance(longrepr, tuple):
        return longrepr[2].splitlines()[0] if longrepr[2] else ""
    crash = getattr(longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(longrepr or "")
    return text.splitlines()[0] if text else ""


@dataclass(frozen=True, slots=True)
class Executor:
    """What all tests on the loop have in common.

    Attributes:
        lifetimes: The shared fixtures of the run.
        capture: Where output goes.
        timeout: Seconds that a test's own set-up, its call and its tear-down may each take; 0 for no limit.
        hooks: What conftest files and other plugins want called around a test's phases.
    """

    lifetimes: Lifetimes
    capture: Capture
    timeout: float
    hooks: ForeignHooks

    def begin(self, planned: PlannedCase) -> CaseRun:
        """Look at a test of the shared or the exclusive lane before it may take anything: its marks and set-up hooks.

        Call it in the context that the test will run in.
        """
        run = CaseRun(planned, self)
        run.check()
        return run


async def let_go(case: Case, lifetimes: Lifetimes) -> list[BaseException]:
    """Release the shared fixtures of a finished test; wait for those that this ends and give their errors."""
    ended = lifetimes.release(case)
    for lifetime in ended:
        await lifetime.ended.wait()
    return [error for lifetime in reversed(ended) for error in lifetime.take_teardown_error()]


def timeout_of(item: pytest.Item, default: float) -> float:
    """The time-out that marks give (``atk(timeout=)``, then ``timeout(seconds)``), or ``default``, in seconds."""
    mark = item.get_closest_marker("atk")
    if mark is not None and "timeout" in mark.kwargs:
        return float(mark.kwargs["timeout"])
    mark = item.get_closest_marker("timeout")
    if mark is not None:
        return float(mark.kwargs.get("timeout", mark.args[0] if mark.args else default))
    return default


class CaseRun:
    """One test from its marks to its tear-down.

    Attributes:
        planned: The test.
    """

    def __init__(self, planned: PlannedCase, executor: Executor) -> None:
        self.planned = planned
        self.is_tearing_down = False
        self.is_interrupted = False
        self.case = planned.case
        self.execution = Execution(planned)
        self.execution.times.start = time.monotonic()
        self.executor = executor
        self.fixtures = CaseFixtures(planned.case, executor.lifetimes)
        self.values: dict[str, Any] = {}
        item = planned.case.item
        assert isinstance(item, pytest.Function)  # noqa: S101  # the plan hands everything else to pytest
        self.item = item
        self.output = executor.capture.open(item)
        self.limit = timeout_of(item, executor.timeout)
        self.exclusive = planned.lane == "exclusive"
        self.refusal: BaseException | None = None
        self._entered = contextlib.ExitStack()
        self._protocol = contextlib.ExitStack()

    @property
    def is_refused(self) -> bool:
        """Whether a mark or a hook has kept it from running."""
        return self.refusal is not None

    def check(self) -> None:
        """Apply its marks and the set-up hooks of others."""
        current_output.set(self.output)
        try:
            self._protocol.enter_context(self.executor.hooks.protocol(self.item))
            collection.evaluate_marks(self.item)
            self._entered.enter_context(self.executor.hooks.setup(self.item))
        except BaseException as refusal:  # noqa: BLE001  # raised again in the set-up phase
            self.refusal = refusal

    def interrupt(self, task: asyncio.Task[Any]) -> None:
        """Cut it off, unless it is tearing down already: that always runs to its end."""
        if not self.is_tearing_down:
            self.is_interrupted = True
            task.cancel()

    async def to_end(self) -> Execution:
        """Run it. Raises nothing that the test raised."""
        try:
            await self._phases()
        except (KeyboardInterrupt, pytest.exit.Exception) as interrupt:
            self.execution.interrupt = interrupt
            await self._abandon(interrupt)
        self.execution.times.end = time.monotonic()
        return self.execution

    async def _phases(self) -> None:
        with self._protocol, self._warnings():
            setup = await self._phase("setup", self._set_up)
            if setup:
                await self._phase("call", self._call)
            self.is_tearing_down = True
            await self._phase("teardown", self._tear_down)
        collection.clear_runtime_state(self.item)
        self.output.close()

    async def _abandon(self, reason: BaseException) -> None:
        """Tear the test's own fixtures down, for which there will be no report."""
        self.is_tearing_down = True
        try:
            await self.fixtures.tear_down()
        except BaseException as error:  # noqa: BLE001  # told with the reason
            reason.add_note(f"and while tearing down {self.case.nodeid}: {error!r}")

    @contextlib.contextmanager
    def _warnings(self) -> Iterator[None]:
        if not self.exclusive:
            yield
            return
        with collection.caught_warnings(self.item.config, self.item):
            yield

    async def _phase(self, when: When, body: Callable[[], Awaitable[None]]) -> bool:
        """Run one phase and make its report; tell whether the test may go on."""
        __tracebackhide__ = True
        if self.output.caplog is not None:
            collection.note_caplog_phase(self.item, when, self.output.caplog)
        if self.exclusive:
            os.environ["PYTEST_CURRENT_TEST"] = f"{self.item.nodeid} ({when})".replace("\x00", "(null)")
        began, start = time.time(), time.monotonic()
        error: BaseException | None = None
        try:
            with self.executor.capture.phase() if self.exclusive else contextlib.nullcontext():
                await body()
            collection.raise_unraisable(self.item.config)
        except (KeyboardInterrupt, pytest.exit.Exception):
            raise
        except asyncio.CancelledError as cancelled:
            _uncancel()
            if self.is_interrupted:
                await self._abandon(cancelled)
                raise
            error = cancelled
        except BaseException as raised:  # noqa: BLE001  # a test may raise anything; it becomes its report
            error = _unwrapped(raised)
        finally:
            if self.exclusive:
                os.environ.pop("PYTEST_CURRENT_TEST", None)
        if background := self.output.take_errors():
            error = _with_background(error, background, self.item)
        self.output.end_phase(when)
        info = collection.call_info(when, error, start=began, duration=time.monotonic() - start)
        report = self.item.ihook.pytest_runtest_makereport(item=self.item, call=info)
        self.execution.reports.append(report)
        return error is None

    async def _set_up(self) -> None:
        __tracebackhide__ = True
        times = self.execution.times
        with self._entered:
            if self.refusal is not None:
                raise self.refusal
            await self.fixtures.wait()
            times.ready = time.monotonic()
            async with TimeLimit(self.limit, f"{self.item.name}: the set-up"):
                self.values = await self.fixtures.set_up()
        self.item.funcargs = dict(self.values)

    async def _call(self) -> None:
        __tracebackhide__ = True
        times = self.execution.times
        arguments = {
            name: self.case.request if name == "request" else self.values[name]
            for name in collection.test_argument_names(self.item)
        }
        times.call_start = time.monotonic()
        try:
            with self.executor.hooks.call(self.item):
                async with TimeLimit(self.limit, f"{self.item.name}: the call"):
                    await cast("Callable[..., Awaitable[object]]", self.item.obj)(**arguments)
        finally:
            times.call_end = time.monotonic()
            collection.refresh_xfail(self.item)

    async def _tear_down(self) -> None:
        __tracebackhide__ = True
        with contextlib.ExitStack() as hooks:
            errors: list[BaseException] = []
            try:
                hooks.enter_context(self.executor.hooks.teardown(self.item))
            except BaseException as error:  # noqa: BLE001  # fixtures are torn down in any case; raised below
                errors.append(error)
            try:
                async with TimeLimit(self.limit, f"{self.item.name}: the tear-down"):
                    await self.fixtures.tear_down()
            except BaseException as error:  # noqa: BLE001  # shared ones are let go of in any case; raised below
                errors.append(error)
            errors += await let_go(self.case, self.executor.lifetimes)
            if errors:
                raise _one_of(errors, f"errors while tearing down {self.item!r}")


def _uncancel() -> None:
    """What was cancelled was a phase, not the task: the next phase runs in it too."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


def _one_of(errors: list[BaseException], title: str) -> BaseException:
    return errors[0] if len(errors) == 1 else BaseExceptionGroup(title, errors)


def _with_background(error: BaseException | None, background: list[BaseException], item: pytest.Item) -> BaseException:
    """A phase's error, with what failed in tasks and callbacks that nobody awaited; those alone fail it too."""
    if error is None or isinstance(error, (pytest.skip.Exception, pytest.xfail.Exception)):
        return _one_of(background, f"errors in the background of {item!r}")
    for one in background:
        error.add_note(f"and in the background: {one!r}")
    return error


def _unwrapped(error: BaseException) -> BaseException:
    """A group with one outcome in it is that outcome; anything else stays as it was raised."""
    inner = error
    while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
        inner = inner.exceptions[0]
    outcomes = (pytest.skip.Exception, pytest.fail.Exception, pytest.xfail.Exception)
    return inner if isinstance(inner, outcomes) else error
