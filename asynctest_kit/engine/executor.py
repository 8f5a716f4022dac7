"""One test: its own task, its own context, three phases, one result.

Whatever a test raises ends here. ``Skipped``, ``Failed`` and ``XFailed`` are BaseExceptions, and so is the
cancellation of a time-out; none of them may reach the task group that the tests run in. What does pass is
``KeyboardInterrupt`` and ``pytest.exit``, which end the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest

from asynctest_kit.engine import clock, collection
from asynctest_kit.engine.capture import current_output
from asynctest_kit.engine.case_fixtures import CaseFixtures
from asynctest_kit.engine.code_places import waiting_at
from asynctest_kit.engine.deadlines import tells_time_out
from asynctest_kit.engine.failure import DEADLOCK, FINAL, failure
from asynctest_kit.engine.fair_loop import Account, current_account
from asynctest_kit.engine.guard import StateTouched, Ward, guarded_by
from asynctest_kit.engine.own_threads import open_own_thread
from asynctest_kit.engine.time_limit import TimeLimit, is_time_out

if TYPE_CHECKING:
    import warnings
    from collections.abc import Awaitable, Callable, Iterator

    from asynctest_kit.engine.capture import Capture
    from asynctest_kit.engine.code_places import Place
    from asynctest_kit.engine.deadlines import Alone, Doubt
    from asynctest_kit.engine.events import CaseVerdict, Cause, Outcome
    from asynctest_kit.engine.foreign_hooks import ForeignHooks
    from asynctest_kit.engine.graph import Case
    from asynctest_kit.engine.guard import Guard
    from asynctest_kit.engine.leaked_tasks import LeakedTask, TaskLedger
    from asynctest_kit.engine.lifetimes import Lifetimes
    from asynctest_kit.engine.plan import PlannedCase
    from asynctest_kit.engine.uncaught import Uncaught
    from asynctest_kit.engine.waits import Waits
    from asynctest_kit.engine.watchdog import Watchdog

__all__ = ["CaseRun", "Execution", "Executor", "Times", "first_line", "let_go", "outcome_of"]

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
        cause: Why the test ran once more; empty for its first attempt.
        timed_out: Whether a phase took too long.
        held_up: For whose lock that phase waited, to be read after its time-out; empty if for nobody's.
        held: Whether the test keeps its hold on its shared fixtures, for it will run again.
        doubts: The deadlines that it may have missed; see :mod:`asynctest_kit.engine.deadlines`.
        late: The deadline of its own that came latest, if one came late.
        alone: What came of its deadlines in an attempt alone that is made for doubts.
        tells_time_out: Whether what it raised tells of a time-out of its own.
        touched: The process-global state that it was stopped at, beside others; then there are no reports.
        warnings: What it warned beside others; pytest has been told of those that it gave alone.
        calls: pytest's records of the phases that failed, with their reports, for debuggers and the like.
        verdict: What several attempts at it showed.
        note: The verdict in a sentence; without one empty, or what else made it run alone.
        attempts: How often it ran.
    """

    planned: PlannedCase
    reports: list[pytest.TestReport] = field(default_factory=list)
    times: Times = field(default_factory=Times)
    interrupt: BaseException | None = None
    leaks: list[LeakedTask] = field(default_factory=list)
    cause: Cause = ""
    timed_out: bool = False
    held_up: str = ""
    held: bool = False
    doubts: list[Doubt] = field(default_factory=list)
    late: Doubt | None = None
    alone: Alone | None = None
    tells_time_out: bool = False
    touched: str = ""
    calls: list[tuple[pytest.CallInfo[None], pytest.TestReport]] = field(default_factory=list)
    warnings: list[warnings.WarningMessage] = field(default_factory=list)
    verdict: CaseVerdict = ""
    note: str = ""
    attempts: int = 1

    @property
    def failed(self) -> bool:
        """Whether it counts as failed, in whichever phase."""
        return any(report.outcome == "failed" for report in self.reports)

    @property
    def is_final(self) -> bool:
        """Whether a report says that another attempt would find things as they are; see :data:`FINAL`."""
        return any(FINAL in vars(report) for report in self.reports)

    @property
    def deadlock(self) -> tuple[str, ...]:
        """The other tests of a deadlock that it was the victim of; see :data:`DEADLOCK`."""
        return next((vars(report)[DEADLOCK] for report in self.reports if DEADLOCK in vars(report)), ())

    @property
    def outcome(self) -> Outcome:
        """Pytest's outcome of the whole test."""
        return outcome_of(self.reports)

    def standing(self, place: Place | None) -> str:
        """In which phase it is, and at which line if that is known, in words that go after the test's name."""
        if not self.reports:
            phase = "call" if self.times.call_start else "set-up"
        else:
            last = self.reports[-1]
            phase = "call" if last.when == "setup" and last.passed else "tear-down"
        return f"in its {phase}" + ("" if place is None else f", at {place}")

    @property
    def reason(self) -> str:
        """The first line that tells why it didn't pass."""
        for report in self.reports:
            if report.outcome != "passed":
                return first_line(report)
        return ""

    @property
    def crash(self) -> tuple[str, int] | None:
        """The file and the line where it was raised, as its report has them; None if that shows none."""
        report = next((report for report in self.reports if report.outcome != "passed"), None)
        crash = getattr(report and report.longrepr, "reprcrash", None)
        return None if crash is None else (crash.path, crash.lineno)


def outcome_of(reports: list[pytest.TestReport]) -> Outcome:
    """One word for a test's reports, worst first."""
    if all(report.outcome == "passed" and not hasattr(report, "wasxfail") for report in reports):
        return "passed"
    if any(report.failed for report in reports if report.when != "call"):
        return "error"
    if any(report.failed for report in reports):
        return "failed"
    if any(hasattr(report, "wasxfail") for report in reports):
        return "xfailed" if any(report.skipped for report in reports) else "xpassed"
    return "skipped" if any(report.skipped for report in reports) else "passed"


def first_line(report: pytest.TestReport) -> str:
    """The first line that a report has to say."""
    longrepr = report.longrepr
    if isinstance(longrepr, tuple):
        return longrepr[2].splitlines()[0] if longrepr[2] else ""
    crash = getattr(longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(longrepr or "")
    return text.splitlines()[0] if text else ""


_NOTHING: contextlib.AbstractContextManager[object] = contextlib.nullcontext()

#: Marks that pytest evaluates before a test.
_SKIPPING = frozenset({"skip", "skipif", "xfail"})


def _never(_: CaseRun) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Executor:
    """What all tests on the loop have in common.

    Attributes:
        lifetimes: The shared fixtures of the run.
        capture: Where output goes.
        guard: Stops tests beside others from changing process-global state.
        watchdog: Knows for how long others have blocked the loop.
        ledger: Knows which test made which task.
        hooks: What conftest files and other plugins want called around a test's phases.
        fail_slow: Seconds from which on a call that passed fails; 0 for no limit.
        debugs: Whether a debugger is to be opened where a test fails.
        shows: Whether tests are shown between their fixtures.
        uncaught: What finalizers and threads have raised.
        waits: Who waits for whom.
        begun: The tests that have run before.
    """

    lifetimes: Lifetimes
    capture: Capture
    guard: Guard
    watchdog: Watchdog
    ledger: TaskLedger
    hooks: ForeignHooks
    fail_slow: float = 0.0
    debugs: bool = False
    shows: bool = False
    uncaught: Uncaught | None = None
    waits: Waits | None = None
    begun: set[pytest.Item] = field(default_factory=set)

    def begin(self, planned: PlannedCase, *, once_more: Callable[[CaseRun], bool] = _never) -> CaseRun:
        """Look at a test of the shared or the exclusive lane before it may take anything: its marks and set-up hooks.

        Call it in the context that the test will run in. ``once_more`` tells, when its own fixtures are torn down,
        whether it will run again: then it keeps its hold on the shared ones.
        """
        run = CaseRun(planned, self, once_more)
        run.check()
        return run


async def let_go(case: Case, lifetimes: Lifetimes) -> list[BaseException]:
    """Release the shared fixtures of a finished test; wait for those that this ends and give their errors."""
    ended = lifetimes.release(case)
    for lifetime in ended:
        await lifetime.ended.wait()
    return [error for lifetime in reversed(ended) for error in lifetime.take_teardown_error()]


class CaseRun:
    """One test from its marks to its tear-down.

    Attributes:
        planned: The test.
        ward: What the guard knows of it; None for one that runs alone.
        has_failed: Whether any phase has, once its own fixtures are torn down.
    """

    def __init__(self, planned: PlannedCase, executor: Executor, once_more: Callable[[CaseRun], bool]) -> None:
        self.planned = planned
        self.is_tearing_down = False
        self.is_interrupted = False
        self.has_failed = False
        self.case = planned.case
        self.execution = Execution(planned)
        self.execution.times.start = clock.monotonic()
        self.executor = executor
        self.values: dict[str, Any] = {}
        item = planned.case.item
        assert isinstance(item, pytest.Function)  # noqa: S101  # the plan hands everything else to pytest
        self.item = item
        self.output = executor.capture.open(item, alone=planned.lane == "exclusive")
        self.execution.warnings = self.output.warnings
        self.limit = planned.timeout
        self.exclusive = planned.lane == "exclusive"
        self.ward = None if self.exclusive else Ward()
        self.fixtures = CaseFixtures(planned.case, executor.lifetimes, ambient=planned.ambient, ward=self.ward)
        self._once_more = once_more
        self._passed = collection.PassedReports(item)
        self._close_thread: Callable[[], None] | None = None
        self.refusal: BaseException | None = None
        self._limited: TimeLimit | None = None
        self._limit_from = 0.0
        self._entered: contextlib.AbstractContextManager[object] = _NOTHING
        self._protocol: contextlib.AbstractContextManager[object] = _NOTHING

    @property
    def is_refused(self) -> bool:
        """Whether a mark or a hook has kept it from running."""
        return self.refusal is not None

    def check(self) -> None:
        """Apply its marks and the set-up hooks of others."""
        if self.item in self.executor.begun:
            collection.start_afresh(self.item)
        self.executor.begun.add(self.item)
        current_output.set(self.output)
        current_account.set(Account())
        guarded_by.set(self.ward)
        self.executor.guard.look_again()
        marks, hooks = collection.mark_names(self.item), self.executor.hooks
        try:
            if not self.exclusive:
                self._close_thread = open_own_thread()
                self.executor.capture.warnings.open_scope()
                if "filterwarnings" in marks:
                    collection.apply_mark_filters(self.item)
            if hooks.protocol.impls or hooks.setup.impls:
                self.executor.ledger.open(self.output)
            if hooks.protocol.impls:
                self._protocol = _entered(hooks.protocol(self.item))
            if not _SKIPPING.isdisjoint(marks):
                collection.evaluate_marks(self.item)
            if hooks.setup.impls:
                self._entered = _entered(hooks.setup(self.item))
        except BaseException as refusal:  # noqa: BLE001  # raised again in the set-up phase
            self.refusal = refusal

    def interrupt(self, task: asyncio.Task[Any]) -> None:
        """Cut it off, unless it is tearing down already: that always runs to its end."""
        if not self.is_tearing_down:
            self.is_interrupted = True
            if self._limited is None or not self._limited.cut_off():
                task.cancel()

    def waiting(self, task: asyncio.Task[Any]) -> str:
        """Where the suspended test waits."""
        return self.execution.standing(waiting_at(task.get_coro()))

    async def to_end(self) -> Execution:
        """Run it. Raises nothing that the test raised."""
        try:
            await self._phases()
        except (KeyboardInterrupt, pytest.exit.Exception) as interrupt:
            self.execution.interrupt = interrupt
            await self._abandon(interrupt)
        self.execution.times.end = clock.monotonic()
        self._limited = None  # it asks us for delays: let go of, so that no garbage is left to be found
        if self.is_touched:
            self.execution.reports.clear()
        return self.execution

    @property
    def is_touched(self) -> bool:
        """Whether the guard has stopped it, so that what it did since counts for nothing."""
        if self.ward is not None and self.ward.touched:
            self.execution.touched = self.ward.touched
        return bool(self.execution.touched)

    async def _phases(self) -> None:
        self.executor.ledger.open(self.output)
        with self._protocol, self._warnings():
            if self._is_set_up_at_once() or await self._phase("setup", self._set_up):
                await self._phase("call", self._call)
            self.is_tearing_down = True
            if not self._is_torn_down_at_once():
                await self._phase("teardown", self._tear_down)
        collection.clear_runtime_state(self.item)
        if self._close_thread is not None:
            self._close_thread()
        self.executor.capture.close(self.output)

    async def _abandon(self, reason: BaseException) -> None:
        """Tear the test's own fixtures down, for which there will be no report."""
        self.is_tearing_down = True
        try:
            await self.fixtures.tear_down(self._limit)
        except BaseException as error:  # noqa: BLE001  # told with the reason
            reason.add_note(f"and while tearing down {self.case.nodeid}: {error!r}")

    def _warnings(self) -> contextlib.AbstractContextManager[object]:
        return self._caught_warnings() if self.exclusive else _NOTHING

    @contextlib.contextmanager
    def _caught_warnings(self) -> Iterator[None]:
        with self.executor.capture.warnings.suspended(), collection.caught_warnings(self.item.config, self.item):
            yield

    async def _phase(self, when: When, body: Callable[[], Awaitable[None]]) -> bool:
        """Run one phase and make its report; tell whether the test may go on."""
        __tracebackhide__ = True
        if self.output.caplog is not None:
            collection.note_caplog_phase(self.item, when, self.output.caplog)
        if self.exclusive:
            os.environ["PYTEST_CURRENT_TEST"] = f"{self.item.nodeid} ({when})".replace("\x00", "(null)")
        start = clock.monotonic()
        error = await self._error_of(body)
        if isinstance(error, StateTouched):
            self.execution.touched = error.what
        if self.is_touched:
            return False
        if error is not None and is_time_out(error):
            self.execution.timed_out = True
            self.execution.held_up = self._waited_for()
        elif error is not None and tells_time_out(error):
            self.execution.tells_time_out = True
        self.report(when, error, clock.wall(start), clock.monotonic() - start)
        return error is None

    async def _error_of(self, body: Callable[[], Awaitable[None]]) -> BaseException | None:
        """Run a phase's body; give what it raised, or what failed in its background."""
        __tracebackhide__ = True
        error: BaseException | None = None
        try:
            with self.executor.capture.phase() if self.exclusive else _NOTHING:
                await body()
            if self.executor.uncaught is not None:
                self.executor.uncaught.warn(self.output)
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
        return error

    def report(self, when: When, error: BaseException | None, began: float, duration: float) -> None:
        """Make the report of a phase that has ended."""
        self.output.end_phase(when)
        reports = self.execution.reports
        if self.fixtures.has_reports:
            reports += self.fixtures.take_reports()
        if error is None and not self.executor.hooks.reports:
            report = self._passed.report(when, start=began, duration=duration)
            if report is not None:
                reports.append(report)
                return
        info = collection.call_info(when, error, start=began, duration=duration)
        report = self.item.ihook.pytest_runtest_makereport(item=self.item, call=info)
        reports.append(report)
        if error is not None and collection.wants_interaction(info, report):
            self._interaction(info, report)

    def _interaction(self, info: pytest.CallInfo[None], report: pytest.TestReport) -> None:
        """Let a debugger open while the fixtures are still up; else pytest's hook waits for the test's reports."""
        if not self.executor.debugs:
            self.execution.calls.append((info, report))
            return
        with self.executor.capture.suspended():
            self.item.ihook.pytest_exception_interact(node=self.item, call=info, report=report)

    @property
    def _is_plain(self) -> bool:
        """Whether nothing is to be done around a phase, and nothing has happened yet that it would be charged with."""
        output = self.output
        return not (self.exclusive or self.is_touched or output.caplog is not None or output.errors or output.uncaught)

    def _is_set_up_at_once(self) -> bool:
        """Set up a test that has nothing to be set up: by far the most have not, and a phase costs as much as they."""
        executor = self.executor
        if not self._is_plain or self.refusal is not None or self._entered is not _NOTHING or executor.shows:
            return False
        start = clock.monotonic()
        values = self.fixtures.set_up_at_once()
        if values is None:
            return False
        self.execution.times.ready = clock.monotonic()
        self.values = values
        self.item.funcargs = dict(values)
        self.report("setup", None, clock.wall(start), self.execution.times.ready - start)
        return True

    def _is_torn_down_at_once(self) -> bool:
        """Tear down a test that has nothing to be torn down and has left nothing."""
        executor = self.executor
        if not self._is_plain or executor.hooks.teardown.impls or self.execution.failed:
            return False
        start = clock.monotonic()
        if not (executor.ledger.has_none(self.output) and self.fixtures.tear_down_at_once()):
            return False
        executor.ledger.close_if_clean(self.output)
        self.execution.doubts = self.output.doubts
        self.execution.held = self._once_more(self)
        if not self.execution.held:
            executor.lifetimes.release(self.case)
        self.report("teardown", None, clock.wall(start), clock.monotonic() - start)
        return True

    async def _set_up(self) -> None:
        __tracebackhide__ = True
        times = self.execution.times
        with self._entered:
            if self.refusal is not None:
                raise self.refusal
            await self.fixtures.wait()
            times.ready = clock.monotonic()
            if self.case.local:
                self.values = await self._limit("the set-up").run(self.fixtures.set_up)
            else:
                self.values = await self.fixtures.set_up()
        self.item.funcargs = dict(self.values)
        if self.executor.shows:
            with self.executor.capture.suspended():
                collection.show_item(self.item)

    async def _call(self) -> None:
        __tracebackhide__ = True
        times = self.execution.times
        arguments = {
            name: self.case.request if name == "request" else self.values[name]
            for name in collection.test_argument_names(self.item)
        }
        function = cast("Callable[..., Awaitable[object]]", self.item.obj)
        delay = self._delay() if self.executor.fail_slow else 0.0
        times.call_start = clock.monotonic()
        try:
            with self.executor.hooks.call(self.item):
                await self._limit("the call").run(lambda: function(**arguments))
        finally:
            times.call_end = clock.monotonic()
            collection.refresh_xfail(self.item)
        if self.executor.fail_slow:
            self._refuse_slow(times.call_end - times.call_start - (self._delay() - delay))

    def _limit(self, what: str) -> TimeLimit:
        self._limit_from = clock.monotonic()
        self._limited = TimeLimit(self.limit, f"{self.item.name}: {what}", self._delay, cause=self._waited_for)
        return self._limited

    def _waited_for(self) -> str:
        """Whom the present phase has waited for, for its time-out's message."""
        waits = self.executor.waits
        return "" if waits is None else waits.cause(self.item.nodeid, self._limit_from)

    def _delay(self) -> float:
        """Seconds for which others have blocked the loop, which are not charged to this test."""
        return self.executor.watchdog.delay_of(self.output)

    async def _leaks(self) -> list[LeakedTask]:
        if self.executor.ledger.close_if_clean(self.output):
            return []
        own = [self.item.function, *(fixture.definition.func for fixture in self.case.local)]
        shared = [self.executor.lifetimes.of(fixture) for fixture in self.case.shared]
        values = [lifetime.value_now() for lifetime in shared if lifetime.is_up]
        return await self.executor.ledger.close(self.output, own, values)

    def _refuse_slow(self, seconds: float) -> None:
        limit = self.executor.fail_slow
        if seconds > limit:
            raise failure(f"{self.item.name} passed, but took {seconds:.2f} s; --fail-slow allows {limit:g} s")

    async def _tear_down(self) -> None:
        __tracebackhide__ = True
        errors: list[BaseException] = []
        entered = _NOTHING
        try:
            if self.executor.hooks.teardown.impls:
                entered = _entered(self.executor.hooks.teardown(self.item))
        except BaseException as error:  # noqa: BLE001  # fixtures are torn down in any case; raised below
            errors.append(error)
        with entered:
            try:
                await self.fixtures.tear_down(self._limit)
            except BaseException as error:  # noqa: BLE001  # shared ones are let go of in any case; raised below
                errors.append(error)
            self.execution.leaks = await self._leaks()
            # Not one that hung: it would hang again.
            self.has_failed = self.execution.failed or any(not is_time_out(error) for error in errors)
            self.execution.doubts, self.execution.late = self.output.doubts, self.output.late
            self.execution.held = self.is_touched or self._once_more(self)
            if not self.execution.held:
                errors += await let_go(self.case, self.executor.lifetimes)
            if errors:
                raise _one_of(errors, f"errors while tearing down {self.item!r}")


def _entered(around: contextlib.AbstractContextManager[object]) -> contextlib.ExitStack:
    """Enter ``around`` now; leave it when the result is left."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(around)
        return stack.pop_all()


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
