"""Tests that pytest's own protocol runs, while the loop stands still.

Sync tests, unittest cases, doctests and tests on other event loops. Pytest sets their sync fixtures up itself; for a
shared fixture and for an async one it is given the engine's answer at the moment it asks, so there is one value and
one set-up, whoever runs the test, and a test that is skipped sets nothing up. An async fixture of the test's own is
torn down when pytest tears it down, a shared one when its last user is done.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from asynctest_kit.engine import clock, collection
from asynctest_kit.engine.asyncio_fixtures import replaced
from asynctest_kit.engine.executor import Execution, Times, first_line, let_go
from asynctest_kit.engine.failure import FINAL, failure
from asynctest_kit.engine.fixture_call import Finalizers, not_from_running_code, set_up
from asynctest_kit.engine.foreign_hooks import protocol_of_a_plugin
from asynctest_kit.engine.graph import SharedFixture, is_async
from asynctest_kit.engine.own_loop import is_free_of_loops, own_loop_of
from asynctest_kit.engine.reruns import flaky_note
from asynctest_kit.engine.sync_limit import sync_limit
from asynctest_kit.engine.time_limit import TimeLimit, tells_of_time_out
from asynctest_kit.engine.trio_limit import trio_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

    from asynctest_kit.engine.capture import Capture
    from asynctest_kit.engine.collection import Request
    from asynctest_kit.engine.events import Cause
    from asynctest_kit.engine.graph import Case, LocalFixture, Source
    from asynctest_kit.engine.lifetimes import Lifetimes
    from asynctest_kit.engine.pausing_loop import PausingLoop
    from asynctest_kit.engine.plan import PlannedCase

__all__ = ["PytestLane"]


class PytestLane:
    """Runs tests by pytest's protocol, one at a time. A pytest plugin for as long as that goes on."""

    ignores_passed = True  # those that the engine tells of

    def __init__(self, lifetimes: Lifetimes, capture: Capture, loop: PausingLoop) -> None:
        self._lifetimes = lifetimes
        self._capture = capture
        self._loop = loop
        self._present: PlannedCase | None = None
        self._times = Times()
        self._executions: list[Execution] = []
        self._reports: list[pytest.TestReport] = []
        self._attempts = 1
        self._flaky = ""
        self._given: list[pytest.FixtureDef[Any]] = []
        self._may_run_again = False
        self._answered: set[pytest.FixtureDef[Any]] = set()

    async def run(self, planned: PlannedCase, following: PlannedCase | None) -> list[Execution]:
        """Run one test and give its attempts, of which the last counts.

        ``following`` is the next of this lane, for which pytest keeps its wider fixtures up.
        """
        self._executions = []
        self._begin(planned)
        self._present = planned
        try:
            await self._loop.outside(lambda: self._protocol(planned, following))
        except (KeyboardInterrupt, pytest.exit.Exception) as interrupt:
            self._executions[-1].interrupt = interrupt
        finally:
            self._present = None
        *_, execution = self._executions
        execution.times.end = clock.monotonic()
        execution.reports, self._reports = self._reports, []
        execution.attempts, self._attempts = self._attempts, 1
        if self._flaky:
            execution.verdict, execution.note, self._flaky = "flaky", self._flaky, ""
        return self._executions

    def _begin(self, planned: PlannedCase, cause: Cause = "") -> None:
        """Begin an attempt, and end the one before."""
        if self._executions:
            self._executions[-1].times.end = clock.monotonic()
        execution = Execution(planned, cause=cause)
        self._executions.append(execution)
        self._times = execution.times
        self._times.start = self._times.ready = clock.monotonic()

    def _protocol(self, planned: PlannedCase, following: PlannedCase | None) -> None:
        item = planned.case.item
        nextitem = None if following is None else following.case.item
        self._may_run_again = protocol_of_a_plugin(item) is not None or planned.retries > 0
        others = replaced(item.session) if planned.is_on_another_loop else nullcontext()
        with self._capture.handed_over(), others, collection.fixtures_answered(item.session, self):
            try:
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
            except (KeyboardInterrupt, pytest.exit.Exception):
                # Now, while the loop can still help, and not at the session's end, as pytest would.
                collection.tear_down_pytests_own(item.session)
                raise
        if self._may_run_again:
            self._loop.inside(lambda: self._released(planned.case))

    async def _released(self, case: Case) -> None:
        """Let go of the shared fixtures of a test that may have run more than once; errors are told at the end."""
        for lifetime in self._lifetimes.release(case):
            await lifetime.ended.wait()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run a test that has retries until it passes or they are used up; only the last attempt is reported."""
        present = self._present
        if present is None or not present.retries or protocol_of_a_plugin(item) is not None:
            return None
        attempts, reports = 1, collection.reports_of(item, nextitem)
        reason = next((report for report in reports if report.failed), None)
        while attempts <= present.retries and _may_pass(reports):
            self._begin(present, _cause(reports))
            collection.start_afresh(item)
            attempts, latest = attempts + 1, collection.reports_of(item, nextitem)
            if any(report.skipped or FINAL in vars(report) for report in latest):
                break  # which says nothing of the failure
            reports = latest
        if reason is not None and not any(report.failed for report in reports):
            self._flaky = flaky_note(attempts - 1, first_line(reason))
        self._attempts = attempts
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in reports:
            if self._flaky:
                vars(report)["atk_verdict"] = "flaky"
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the report of the test that pytest runs just now."""
        if self._present is not None:
            self._reports.append(report)

    def is_answered(self, definition: pytest.FixtureDef[Any]) -> bool:
        """Whether the fixture is the engine's, which has told the hooks of others of its set-up and will of its end."""
        return definition in self._answered

    def answer(self, definition: pytest.FixtureDef[Any], request: Any) -> Callable[[], object] | None:
        """What gives the value of a fixture that the engine holds; None for one that pytest is to set up."""
        present = self._present
        if present is None or present.case.resolver is None:
            return None
        source = present.case.resolver.source(definition.argname, collection.parent_of(request))
        if present.is_on_another_loop and not is_free_of_loops(source):
            return None
        answer = self._answer(present.case, source, request)
        if answer is not None:
            self._answered.add(definition)
        return answer

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """Note when the test function runs."""
        self._times.call_start = clock.monotonic()
        try:
            with self._limited_call():
                return (yield)
        finally:
            self._times.call_end = clock.monotonic()

    def _limited_call(self) -> AbstractContextManager[None]:
        """Limit the test's call: by a cancel scope of its own loop where it has trio's, else by the process's alarm.

        An alarm raises in the middle of trio's machinery, which doesn't come out of that.
        """
        assert self._present is not None  # noqa: S101  # a test runs
        item, seconds = self._present.case.item, self._present.timeout
        is_on_trio = inspect.iscoroutinefunction(getattr(item, "obj", None)) and (
            own_loop_of(self._present.case, is_coroutine=True) == "trio"
        )
        if seconds and is_on_trio and isinstance(item, pytest.Function):
            return trio_limit(item, seconds, f"{item.name}: the call")
        return self._limit("the call")

    def _limit(self, what: str) -> AbstractContextManager[None]:
        assert self._present is not None  # noqa: S101  # a test runs
        item = self._present.case.item
        return sync_limit(self._present.timeout, f"{item.name}: {what}", item.path, lambda: self._loop.is_running)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, None]:
        """Let go of the shared fixtures after pytest has torn down the test's own."""
        errors: list[BaseException] = []
        try:
            yield
        except (KeyboardInterrupt, pytest.exit.Exception):
            raise
        except BaseException as error:  # noqa: BLE001  # raised below, with those of the shared fixtures
            errors.append(error)
        present = self._present
        if present is None:
            return
        for definition in self._given:
            collection.forget_value(definition)
        self._given.clear()
        self._answered.clear()
        if not self._may_run_again:
            errors += self._loop.inside(lambda: let_go(present.case, self._lifetimes))
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup("errors during test teardown", errors[::-1])

    def _answer(self, present: Case, source: Source, request: Any) -> Callable[[], object] | None:
        if is_async(source.definition.func) and not collection.is_awaited(present.item, source.definition):
            return None  # pytest says what it says of an async fixture that no plugin runs
        if isinstance(source, SharedFixture):
            return lambda: self._shared(source, known=source in present.shared)
        if is_async(source.definition.func):
            return lambda: self._own(source, request)
        return None

    def _shared(self, fixture: SharedFixture, *, known: bool) -> object:
        __tracebackhide__ = True
        self._given.append(fixture.definition)
        if self._loop.is_running:
            return self._lifetimes.now(fixture).value_now()
        lifetime = self._lifetimes.of(fixture) if known else self._lifetimes.hold(fixture)
        try:
            return self._loop.inside(lifetime.value)
        finally:
            self._times.ready = clock.monotonic()

    def _own(self, fixture: LocalFixture, request: Any) -> object:
        """Set an async fixture of the test up; pytest ends it when it ends what it has set up itself."""
        __tracebackhide__ = True
        if self._loop.is_running:
            raise not_from_running_code(fixture.name)
        definition, own = fixture.definition, fixture.request
        finalizers = Finalizers()
        own.owner = _Owner(finalizers, request)
        arguments = {name: own if name == "request" else request.getfixturevalue(name) for name in definition.argnames}
        request.addfinalizer(lambda: self._end_own(fixture, finalizers))
        limit = self._limit_on_loop("the set-up")
        return self._loop.inside(lambda: limit.run(lambda: set_up(definition, own, arguments, finalizers)))

    def _limit_on_loop(self, what: str) -> TimeLimit:
        assert self._present is not None  # noqa: S101  # a test runs
        return TimeLimit(self._present.timeout, f"{self._present.case.item.name}: {what}")

    def _end_own(self, fixture: LocalFixture, finalizers: Finalizers) -> None:
        __tracebackhide__ = True
        title = f"errors while tearing down fixture {fixture.name!r}"
        try:
            self._loop.inside(lambda: finalizers.run(title, lambda: self._limit_on_loop("the tear-down")))
        except asyncio.CancelledError as cancelled:
            # Pytest would leave out the tear-downs that follow.
            raise failure(f"the tear-down of fixture {fixture.name} was cancelled", cancelled) from cancelled


def _may_pass(reports: list[pytest.TestReport]) -> bool:
    """Whether another attempt might pass where these have failed."""
    return any(report.failed for report in reports) and not any(FINAL in vars(report) for report in reports)


def _cause(reports: list[pytest.TestReport]) -> Cause:
    """Why a test with these reports runs again."""
    failed = (first_line(report) for report in reports if report.failed)
    return "time-out" if any(map(tells_of_time_out, failed)) else "failure"


class _Owner:
    """Answers the ``request`` of an async fixture in a test that pytest runs."""

    def __init__(self, finalizers: Finalizers, request: Any) -> None:
        self._finalizers = finalizers
        self._request = request

    def add_finalizer(self, finalizer: Callable[[], object]) -> None:
        """Run ``finalizer`` when the fixture is torn down."""
        self._finalizers.add(finalizer)

    def dynamic_value(self, name: str, request: Request) -> object:
        """Give what pytest has, or can set up now."""
        return request if name == "request" else self._request.getfixturevalue(name)
