"""What the ledger holds: plain frozen data.

All times are seconds since the run's start, so they lie in [0, wall]; all durations are seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from asynctest_kit.engine.events import (  # noqa: TC001  # msgspec resolves them to decode
    AuditDifference,
    CaseVerdict,
    Cause,
    Lane,
    Outcome,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "AFTER_START",
    "Attempt",
    "Audit",
    "Bound",
    "BoundKind",
    "Calls",
    "CutOff",
    "Finding",
    "Fixture",
    "LaneShare",
    "Ledger",
    "Phase",
    "PhaseName",
    "SecondAttempts",
    "Service",
    "ServiceSpan",
    "Slice",
    "Step",
    "StepKind",
    "Test",
    "TimeOut",
    "Verdict",
    "Wait",
    "covered",
    "shown_name",
    "waited",
]

#: Phases of a service that are no part of its start.
AFTER_START = ("clone", "drop", "remove")

#: Where the wall time goes, in the order of a run; those from ``services`` to ``idle`` share the loop's.
PhaseName = Literal["start-up", "collect", "services", "fixtures", "tests", "again", "idle", "tear-down", "end"]

StepKind = Literal["start-up", "collect", "service", "fixture", "test", "again", "queue", "idle", "tear-down", "end"]

BoundKind = StepKind | Literal["lane"]


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the run in one phase. The slices of a ledger are contiguous from 0 to the wall."""

    phase: PhaseName
    start: float
    end: float


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of one phase's slices."""

    name: PhaseName
    seconds: float


class ServiceSpan(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of a service's start or end."""

    phase: str
    start: float
    end: float


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A service of the run.

    Attributes:
        name: What the user calls it.
        provider: Who gave it; empty if it never was ready.
        detail: For people: the image, or the binary and its version.
        ready: When it answered, or None.
        spans: In order of their start.
        fixtures: The shared fixtures that waited for it.
    """

    name: str
    provider: str
    detail: str
    ready: float | None
    spans: tuple[ServiceSpan, ...]
    fixtures: tuple[str, ...]

    @property
    def started_until(self) -> float:
        """When its start was over, migrations included, or given up; 0 if it never began."""
        return max([self.ready or 0.0, *(span.end for span in self.spans if span.phase not in AFTER_START)])

    def seconds(self, phase: str) -> float | None:
        """Return how long ``phase`` took, or None if it never was."""
        spans = [span for span in self.spans if span.phase == phase]
        return covered((span.start, span.end) for span in spans) if spans else None


class Fixture(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of a shared fixture; ``teardown`` is None if it was not torn down."""

    id: str
    name: str
    scope: str
    setup_start: float
    setup_end: float
    teardown: tuple[float, float] | None
    needs: tuple[str, ...]
    failed: bool


def shown_name(fixture: Fixture, services: Iterable[Service]) -> str:
    """Return what users call a fixture: one of the kit's own goes by the service that it starts."""
    if not fixture.name.startswith("_"):
        return fixture.name

    return next((service.name for service in services if fixture.name in service.fixtures), fixture.name)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a test did to others or left behind; see :class:`asynctest_kit.engine.events.FindingMade`."""

    nodeid: str
    text: str
    detail: str


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """A service's state next to what it was before; see :class:`asynctest_kit.engine.events.AuditFinished`."""

    service: str
    things: int
    differences: tuple[AuditDifference, ...]

    @property
    def is_same(self) -> bool:
        """Whether all is as it was, save for what no rung isolates."""
        return all(one.is_known for one in self.differences)


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """One who waited for another one's lock; see :class:`asynctest_kit.engine.events.WaitFinished`."""

    nodeid: str
    holder: str
    what: str
    is_test: bool
    holder_is_test: bool
    statement: str
    holder_statement: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.end - self.start


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one route of the application under test, by all tests.

    Attributes:
        method: Their method.
        route: Their path, without what names one thing of many.
        count: How many.
        seconds: The sum of their times.
        longest: The time of the longest.
    """

    method: str
    route: str
    count: int
    seconds: float
    longest: float


class TimeOut(msgspec.Struct, frozen=True, kw_only=True):
    """A test, or what it used, waited for ``what``, in words, and gave up."""

    nodeid: str
    what: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.end - self.start


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a test; see :class:`asynctest_kit.engine.events.Attempt` for its times and its cause."""

    nodeid: str
    lane: Lane
    start: float
    ready: float
    call_start: float
    call_end: float
    end: float
    needs: tuple[str, ...]
    cause: Cause = ""
    kept_from: str = ""

    @property
    def in_turn(self) -> bool:
        """Whether it started as others had ended: it ran alone, or to trace a failure, beside a few."""
        return self.lane != "shared" or bool(self.cause)

    @property
    def wait(self) -> float:
        """Waiting for shared fixtures."""
        return self.ready - self.start

    @property
    def call(self) -> float:
        """In the test function."""
        return self.call_end - self.call_start

    @property
    def total(self) -> float:
        """With its own fixtures, without waiting for shared ones."""
        return self.end - self.ready


class Test(Attempt, frozen=True, kw_only=True):
    """One test, with the times of the attempt that counts; see :class:`asynctest_kit.engine.events.CaseFinished`."""

    __test__ = False  # not for pytest to collect

    outcome: Outcome
    reason: str
    attempts: int = 1
    verdict: CaseVerdict = ""
    note: str = ""


class CutOff(Attempt, frozen=True, kw_only=True):
    """A test that an early end of the run cut off, or kept from starting, and where it waited."""

    waiting: str


class SecondAttempts(msgspec.Struct, frozen=True, kw_only=True):
    """The tests that ran once more, and what that cost; none of it is in the lanes.

    Attributes:
        tests: How many tests ran again, because of a time-out, a failure, process-global state or a doubtful deadline.
        attempts: How often, with those attempts by which a failure was traced to others.
        seconds: The sum of the attempts' times.
        wall: The wall time during which any of them ran.
        causes: For each cause the tests that it made run again, or the attempts for ``tracing``.
    """

    tests: int
    attempts: int
    seconds: float
    wall: float
    causes: dict[Cause, int]


class LaneShare(msgspec.Struct, frozen=True, kw_only=True):
    """The first attempts in one lane: how many, the sum of their times, and the wall time in which any of them ran."""

    lane: Lane
    tests: int
    seconds: float
    wall: float


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the critical path.

    Attributes:
        kind: What was done; ``again`` is a test that ran once more; ``queue`` and ``idle`` are gaps.
        name: The service, fixture id or node id; empty for the run's own phases.
        part: The service's phase, or ``set-up``, ``call`` or ``tear-down`` of a test.
        start: Its start.
        end: Its end, and the next step's start.
    """

    kind: StepKind
    name: str = ""
    part: str = ""
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.end - self.start


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """A contributor to the critical path.

    Attributes:
        kind: What it is, as in its steps; ``lane`` for tests that waited for one another.
        name: Which service, fixture, test or lane; empty for the run's own phases.
        seconds: Its time on the critical path: the most that removing it can gain.
        sentence: What it does to the run.
        remedy: What would change that.
    """

    kind: BoundKind
    name: str
    seconds: float
    sentence: str
    remedy: str


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """What the time of a run was spent on.

    Attributes:
        wall: From the process's start to the end of the run, or to the last event of an interrupted one.
        wall_clock: The run's start, in seconds since the Unix epoch; None if unknown.
        arguments: The run's arguments.
        complete: Whether the run came to its end; an interrupt that pytest caught is not its end.
        exit_code: pytest's, or None if the stream was cut off.
        collected: How many tests were collected, or None.
        concurrency: Most tests at once that were allowed, or None.
        slices: A partition of the wall time.
        phases: The slices summed; every phase once.
        services: By name.
        fixtures: Shared fixtures, in order of their set-up's end.
        tests: In order of their end.
        findings: What tests did to others or left behind.
        waits: Who waited for another one's lock, in order of their start.
        audits: The services whose state was compared, by name; none if that was not asked for.
        calls: Those of the application under test, by route: those that took most together first.
        time_outs: Waits that ended in one, in order of their start.
        unfinished: Node ids of tests that did not end, because the run did, or the stream.
        cut_off: Those of them of which it is known where they waited.
        lanes: The lanes that had tests.
        second_attempts: The tests that ran once more.
        critical_path: Contiguous steps from 0 to the wall.
        lower_bound: The wall time if every test could run beside every other: the longest single chain of needs,
            with the durations observed.
        test_seconds: The sum of all first attempts' :attr:`Attempt.total`.
        tests_wall: The wall time during which any first attempt ran.
        peak: Most first attempts running at once.
        bounds: What is on the critical path, largest first.
    """

    wall: float
    wall_clock: float | None
    arguments: tuple[str, ...]
    complete: bool
    exit_code: int | None
    collected: int | None
    concurrency: int | None
    slices: tuple[Slice, ...]
    phases: tuple[Phase, ...]
    services: tuple[Service, ...]
    fixtures: tuple[Fixture, ...]
    tests: tuple[Test, ...]
    findings: tuple[Finding, ...]
    waits: tuple[Wait, ...]
    audits: tuple[Audit, ...]
    calls: tuple[Calls, ...]
    time_outs: tuple[TimeOut, ...]
    unfinished: tuple[str, ...]
    cut_off: tuple[CutOff, ...]
    lanes: tuple[LaneShare, ...]
    second_attempts: SecondAttempts
    critical_path: tuple[Step, ...]
    lower_bound: float
    test_seconds: float
    tests_wall: float
    peak: int
    bounds: tuple[Bound, ...]

    @property
    def effective_concurrency(self) -> float:
        """How many tests ran at once, on average over the time during which any ran; 0 without tests."""
        return self.test_seconds / self.tests_wall if self.tests_wall else 0.0

    def waited(self, test: Attempt) -> float:
        """Seconds of a test's attempt that counts in which it waited for others' locks."""
        return waited(test, self.waits)

    def slowest(self, count: int) -> tuple[Test, ...]:
        """Return the ``count`` tests that took longest with their own fixtures, slowest first."""
        return tuple(sorted(self.tests, key=lambda test: (-test.total, test.nodeid))[:count])


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a run held its budget; ``share`` is wall / budget."""

    wall: float
    budget: float
    share: float
    held: bool


def waited(attempt: Attempt, waits: Iterable[Wait]) -> float:
    """Return for how long of an attempt its test waited for others' locks."""
    own = (wait for wait in waits if wait.is_test and wait.nodeid == attempt.nodeid)
    spans = ((max(wait.start, attempt.ready), min(wait.end, attempt.end)) for wait in own)
    return covered((start, end) for start, end in spans if end > start)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of ``spans``."""
    total = 0.0
    reached = float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
