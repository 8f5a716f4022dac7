"""The report that a program reads: one JSON document, whose schema is in ``docs/report.schema.json``.

Keys ending in ``_s`` are seconds; moments (``start_s``, ``ready_s``) count from the run's start. The version is raised
when a key changes its meaning or goes; a new key does not raise it, so read leniently.
"""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from asynctest_kit import __version__
from asynctest_kit.budget.entries import BoundKind, PhaseName, StepKind  # noqa: TC001  # msgspec resolves them
from asynctest_kit.engine.events import CaseVerdict, Cause, Lane, Outcome  # noqa: TC001  # msgspec resolves them, Verdict
from asynctest_kit.report.files import check_writable, replacing
from asynctest_kit.report.redaction import without_passwords

if TYPE_CHECKING:
    from pathlib import Path

    from asynctest_kit import budget

__all__ = ["VERSION", "Report", "check_writable", "report", "schema", "write"]

VERSION: Final = 1

Moment = Annotated[float, Meta(ge=0, description="Seconds since the run's start.")]
Duration = Annotated[float, Meta(ge=0, description="Seconds.")]


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What the run ran on; a version is null if the package has none."""

    python: str
    platform: str
    pytest: str | None
    asynctest_kit: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The run as a whole."""

    started: Annotated[str | None, Meta(description="ISO 8601, UTC; null if unknown.")]
    arguments: tuple[str, ...]
    complete: Annotated[
        bool, Meta(description="False for a run that was interrupted: it is told up to its last event.")
    ]
    exit_code: Annotated[int | None, Meta(description="pytest's; null if the events were cut off.")]
    collected: Annotated[int | None, Meta(description="Tests collected.")]
    wall_s: Duration


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict."""

    budget_s: Duration
    wall_s: Duration
    share: Annotated[float, Meta(description="wall_s / budget_s.")]
    held: bool


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the wall time; the parts add up to it."""

    name: PhaseName
    duration_s: Duration


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a service's start or end."""

    phase: Annotated[
        str, Meta(description="resolve, pull, create, boot, ready, migrate, prepare, clone, drop, snapshot or remove.")
    ]
    start_s: Moment
    duration_s: Duration


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A service and who gave it; provider and detail are empty, and ready_s is null, if it never was ready."""

    name: str
    provider: str
    detail: str
    ready_s: Annotated[float | None, Meta(description="Seconds since the run's start.")]
    spans: tuple[Span, ...]


class Fixture(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of a shared fixture, its waits included; teardown_s is null if it was not torn down."""

    id: str
    name: str
    scope: str
    start_s: Moment
    setup_s: Duration
    teardown_s: Annotated[float | None, Meta(description="Seconds.")]
    needs: Annotated[tuple[str, ...], Meta(description="Ids of the shared fixtures that had to be up first.")]
    failed: bool


class Test(msgspec.Struct, frozen=True, kw_only=True):
    """One test. Its durations follow one another from start_s."""

    nodeid: str
    outcome: Outcome
    lane: Annotated[
        Lane,
        Meta(description="shared: beside others. exclusive: alone on the loop. pytest: alone, by pytest's protocol."),
    ]
    reason: Annotated[str, Meta(description="First line of the failure, or why it was skipped; empty when passed.")]
    start_s: Moment
    wait_s: Annotated[float, Meta(ge=0, description="Seconds of waiting for shared fixtures.")]
    setup_s: Annotated[float, Meta(ge=0, description="Seconds in which its own fixtures were set up.")]
    call_s: Annotated[float, Meta(ge=0, description="Seconds in the test function; 0 if it never was called.")]
    teardown_s: Annotated[float, Meta(ge=0, description="Seconds in which its own fixtures were torn down.")]
    needs: Annotated[tuple[str, ...], Meta(description="Ids of the shared fixtures that it used.")]
    attempts: Annotated[
        int, Meta(ge=1, description="How often it ran; lane, cause and the times are of the attempt that counts.")
    ]
    cause: Annotated[
        Cause,
        Meta(
            description="Why it ran once more: its attempt before took too long (time-out), failed (failure), failed "
            "as an xfail mark expects (expected failure), was stopped at process-global state (state), was the "
            "victim of a deadlock (deadlock), or passed though it may have missed a deadline (deadline). Empty for a "
            "first attempt; tracing only among second attempts."
        ),
    ]
    verdict: Annotated[
        CaseVerdict,
        Meta(
            description="flaky: failed, then passed. interference: failed beside others, passes alone. "
            "moved: touched process-global state beside others, was stopped and ran alone. deadlock: was the victim of "
            "a deadlock with another test, and passed alone. doubtful: passed beside others, but may have missed a "
            "deadline, and no attempt alone has shown whether it did. Empty otherwise."
        ),
    ]
    note: Annotated[
        str, Meta(description="The verdict in a sentence; without one, the deadline that made it run alone.")
    ]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a test did to others or left behind."""

    nodeid: Annotated[str, Meta(description="The test, or the name of the task, or the setting.")]
    text: Annotated[str, Meta(description="To be read after its name.")]
    detail: Annotated[str, Meta(description="Where, at length: a stack; empty if there is none.")]


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """One who waited for another one's lock in a database."""

    nodeid: Annotated[str, Meta(description="Who waited: a test; if is_test is false, in words what else.")]
    holder: Annotated[
        str, Meta(description="Who had the lock: a test; if holder_is_test is false, in words what else.")
    ]
    what: Annotated[str, Meta(description='What was waited for: a row, a unique key, a table, to be read after "for".')]
    is_test: bool
    holder_is_test: bool
    statement: Annotated[str, Meta(description="What waited; shortened.")]
    holder_statement: Annotated[str, Meta(description="What the holder ran last; shortened.")]
    start_s: Moment
    duration_s: Duration


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing of a service that is not what it was before the tests."""

    text: Annotated[str, Meta(description="For people: what, before and after.")]
    is_known: Annotated[bool, Meta(description="Whether it is something that no rung isolates, such as a sequence.")]
    nodeid: Annotated[str, Meta(description="After which test it was found; empty if they ran beside each other.")]


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """A service whose state was compared with what it was before the tests that used it."""

    service: str
    same: Annotated[bool, Meta(description="Whether all is as it was, save for what no rung isolates.")]
    things: Annotated[int, Meta(ge=0, description="How many things were compared.")]
    differences: tuple[Difference, ...]


class CutOff(msgspec.Struct, frozen=True, kw_only=True):
    """A test that the end of the run cut off, or that still waited for its shared fixtures then."""

    nodeid: str
    lane: Lane
    start_s: Moment
    duration_s: Duration
    waiting: Annotated[str, Meta(description="Where it waited, to be read after its name; empty if that is not known.")]


class SecondAttempts(msgspec.Struct, frozen=True, kw_only=True):
    """Tests that ran once more, alone, and what that cost. Nothing of it is in concurrency and its lanes."""

    tests: Annotated[int, Meta(ge=0, description="Tests that ran again.")]
    attempts: Annotated[int, Meta(ge=0, description="How often, with attempts to find who made them fail.")]
    sum_s: Duration
    wall_s: Annotated[float, Meta(ge=0, description="Seconds in which any of them ran.")]
    causes: Annotated[
        dict[Cause, int], Meta(description="How many tests ran again for which cause; for tracing, how many attempts.")
    ]


class LaneShare(msgspec.Struct, frozen=True, kw_only=True):
    """The tests first run in one lane: the sum of their times, and the wall time in which any of them ran."""

    lane: Lane
    tests: int
    sum_s: Duration
    wall_s: Duration


class Concurrency(msgspec.Struct, frozen=True, kw_only=True):
    """How many tests ran at once, second attempts left out."""

    limit: Annotated[int | None, Meta(description="Most that were allowed.")]
    peak: Annotated[int, Meta(description="Most that there were.")]
    effective: Annotated[float, Meta(description="sum_s / wall_s: the average while any ran.")]
    sum_s: Annotated[
        float, Meta(ge=0, description="Seconds of all tests together, waits for shared fixtures left out.")
    ]
    wall_s: Annotated[float, Meta(ge=0, description="Seconds in which any test ran.")]
    lower_bound_s: Annotated[
        float, Meta(ge=0, description="Wall time in seconds if every test could run beside every other.")
    ]
    lanes: tuple[LaneShare, ...]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the critical path: each starts where the one before it ends, and together they are the wall time."""

    kind: StepKind
    name: Annotated[str, Meta(description="The service, fixture id or node id; empty for the run's own phases.")]
    part: Annotated[str, Meta(description="The service's phase; set-up, call, tear-down or unfinished of a test.")]
    start_s: Moment
    duration_s: Duration


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """What the critical path is made of, summed by cause, largest first."""

    kind: BoundKind
    name: Annotated[str, Meta(description="Which service, fixture, test or lane; empty for the run's own phases.")]
    duration_s: Annotated[
        float, Meta(ge=0, description="Seconds on the critical path: the most that a change can gain.")
    ]
    sentence: Annotated[str, Meta(description="For people.")]
    remedy: Annotated[str, Meta(description="For people: what would change it.")]


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one route of the application under test."""

    method: str
    route: Annotated[str, Meta(description="The path, without what names one thing of many.")]
    calls: Annotated[int, Meta(ge=1, description="How many.")]
    sum_s: Duration
    longest_s: Duration


class TimeOut(msgspec.Struct, frozen=True, kw_only=True):
    """A wait that ended in a time-out."""

    nodeid: str
    what: Annotated[str, Meta(description="What was waited for: a call, or a service with a fault.")]
    start_s: Moment
    duration_s: Duration


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A run of asynctest_kit. Keys ending in _s are seconds; moments count from the run's start."""

    version: Literal[1]
    environment: Environment
    run: Run
    budget: Budget
    phases: tuple[Phase, ...]
    services: tuple[Service, ...]
    fixtures: Annotated[tuple[Fixture, ...], Meta(description="Shared fixtures, in the order in which they were up.")]
    tests: Annotated[tuple[Test, ...], Meta(description="In the order in which they ended.")]
    findings: Annotated[tuple[Finding, ...], Meta(description="What tests did to others or left behind.")]
    waits: Annotated[tuple[Wait, ...], Meta(description="Who waited for another one's lock, in order of their start.")]
    audits: Annotated[tuple[Audit, ...], Meta(description="Of --audit-isolation; empty without it.")]
    calls: Annotated[tuple[Calls, ...], Meta(description="Of the application under test, by route, longest first.")]
    time_outs: Annotated[tuple[TimeOut, ...], Meta(description="Waits that ended in one, in order of their start.")]
    unfinished: Annotated[tuple[str, ...], Meta(description="Node ids of tests that did not end, because the run did.")]
    cut_off: Annotated[tuple[CutOff, ...], Meta(description="Where those of them waited of which it is known.")]
    concurrency: Concurrency
    second_attempts: SecondAttempts
    critical_path: tuple[Step, ...]
    bounds: tuple[Bound, ...]


def write(path: Path, ledger: budget.Ledger, verdict: budget.Verdict) -> None:
    """Write the report to ``path``, at once or not at all, without passwords.

    Raises:
        SettingsError: The file can't be written; :func:`check_writable` tells before the run.
    """
    encoded = msgspec.json.encode(report(ledger, verdict))
    text = without_passwords(msgspec.json.format(encoded, indent=2).decode())
    with replacing(path) as file:
        file.write(text.encode() + b"\n")


def schema() -> str:
    """Return the JSON schema of the report, as ``docs/report.schema.json`` holds it."""
    described: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "asynctest_kit report",
        **msgspec.json.schema(Report),
    }
    return msgspec.json.format(msgspec.json.encode(described), indent=2).decode() + "\n"


def report(ledger: budget.Ledger, verdict: budget.Verdict) -> Report:
    """Return the report as data."""
    return Report(
        version=VERSION,
        environment=_environment(),
        run=_run(ledger),
        budget=Budget(budget_s=verdict.budget, wall_s=_s(verdict.wall), share=_s(verdict.share), held=verdict.held),
        phases=tuple(Phase(name=phase.name, duration_s=_s(phase.seconds)) for phase in ledger.phases),
        services=tuple(_service(service) for service in ledger.services),
        fixtures=tuple(_fixture(fixture) for fixture in ledger.fixtures),
        tests=tuple(_test(test) for test in ledger.tests),
        findings=tuple(Finding(nodeid=one.nodeid, text=one.text, detail=one.detail) for one in ledger.findings),
        waits=tuple(_wait(wait) for wait in ledger.waits),
        audits=tuple(_audit(audit) for audit in ledger.audits),
        calls=tuple(_calls(one) for one in ledger.calls),
        time_outs=tuple(
            TimeOut(nodeid=one.nodeid, what=one.what, start_s=_s(one.start), duration_s=_s(one.seconds))
            for one in ledger.time_outs
        ),
        unfinished=ledger.unfinished,
        cut_off=tuple(_one_cut_off(one) for one in ledger.cut_off),
        concurrency=_concurrency(ledger),
        second_attempts=_second_attempts(ledger.second_attempts),
        critical_path=tuple(_step(step) for step in ledger.critical_path),
        bounds=tuple(_bound(bound) for bound in ledger.bounds),
    )


def _s(seconds: float) -> float:
    """Round to microseconds: what is beyond is noise of the floating point."""
    return round(seconds, 6)


def _environment() -> Environment:
    try:
        pytest = version("pytest")
    except PackageNotFoundError:
        pytest = None
    return Environment(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=f"{sys.platform} {platform.machine()}",
        pytest=pytest,
        asynctest_kit=__version__,
    )


def _run(ledger: budget.Ledger) -> Run:
    started = None if ledger.wall_clock is None else datetime.fromtimestamp(ledger.wall_clock, UTC)
    return Run(
        started=started.isoformat(timespec="milliseconds") if started else None,
        arguments=ledger.arguments,
        complete=ledger.complete,
        exit_code=ledger.exit_code,
        collected=ledger.collected,
        wall_s=_s(ledger.wall),
    )


def _service(service: budget.Service) -> Service:
    return Service(
        name=service.name,
        provider=service.provider,
        detail=service.detail,
        ready_s=None if service.ready is None else _s(service.ready),
        spans=tuple(
            Span(phase=span.phase, start_s=_s(span.start), duration_s=_s(span.end - span.start))
            for span in service.spans
        ),
    )


def _fixture(fixture: budget.Fixture) -> Fixture:
    return Fixture(
        id=fixture.id,
        name=fixture.name,
        scope=fixture.scope,
        start_s=_s(fixture.setup_start),
        setup_s=_s(fixture.setup_end - fixture.setup_start),
        teardown_s=_s(fixture.teardown[1] - fixture.teardown[0]) if fixture.teardown else None,
        needs=fixture.needs,
        failed=fixture.failed,
    )


def _test(test: budget.Test) -> Test:
    return Test(
        nodeid=test.nodeid,
        outcome=test.outcome,
        lane=test.lane,
        reason=test.reason,
        start_s=_s(test.start),
        wait_s=_s(test.wait),
        setup_s=_s(test.call_start - test.ready),
        call_s=_s(test.call),
        teardown_s=_s(test.end - test.call_end),
        needs=test.needs,
        attempts=test.attempts,
        cause=test.cause,
        verdict=test.verdict,
        note=test.note,
    )


def _wait(wait: budget.Wait) -> Wait:
    return Wait(
        nodeid=wait.nodeid,
        holder=wait.holder,
        what=wait.what,
        is_test=wait.is_test,
        holder_is_test=wait.holder_is_test,
        statement=wait.statement,
        holder_statement=wait.holder_statement,
        start_s=_s(wait.start),
        duration_s=_s(wait.seconds),
    )


def _calls(calls: budget.Calls) -> Calls:
    return Calls(
        method=calls.method,
        route=calls.route,
        calls=calls.count,
        sum_s=_s(calls.seconds),
        longest_s=_s(calls.longest),
    )


def _audit(audit: budget.Audit) -> Audit:
    return Audit(
        service=audit.service,
        same=audit.is_same,
        things=audit.things,
        differences=tuple(
            Difference(text=one.text, is_known=one.is_known, nodeid=one.nodeid) for one in audit.differences
        ),
    )


def _one_cut_off(one: budget.CutOff) -> CutOff:
    return CutOff(
        nodeid=one.nodeid,
        lane=one.lane,
        start_s=_s(one.start),
        duration_s=_s(one.end - one.start),
        waiting=one.waiting,
    )


def _second_attempts(second: budget.SecondAttempts) -> SecondAttempts:
    return SecondAttempts(
        tests=second.tests,
        attempts=second.attempts,
        sum_s=_s(second.seconds),
        wall_s=_s(second.wall),
        causes=second.causes,
    )


def _concurrency(ledger: budget.Ledger) -> Concurrency:
    return Concurrency(
        limit=ledger.concurrency,
        peak=ledger.peak,
        effective=_s(ledger.effective_concurrency),
        sum_s=_s(ledger.test_seconds),
        wall_s=_s(ledger.tests_wall),
        lower_bound_s=_s(ledger.lower_bound),
        lanes=tuple(
            LaneShare(lane=lane.lane, tests=lane.tests, sum_s=_s(lane.seconds), wall_s=_s(lane.wall))
            for lane in ledger.lanes
        ),
    )


def _step(step: budget.Step) -> Step:
    return Step(kind=step.kind, name=step.name, part=step.part, start_s=_s(step.start), duration_s=_s(step.seconds))


def _bound(bound: budget.Bound) -> Bound:
    return Bound(
        kind=bound.kind,
        name=bound.name,
        duration_s=_s(bound.seconds),
        sentence=bound.sentence,
        remedy=bound.remedy,
    )


if __name__ == "__main__":  # python -m asynctest_kit.report.json > docs/report.schema.json
    sys.stdout.write(schema())
