"""Events, sorted into what each was about.

A stream may be cut off anywhere (the run was interrupted, or is still going on), and spans of two processes may be a
little askew. So everything is brought into one frame: seconds since the run's start, kept within [0, wall]; the run's
boundaries in their order; the times of a test in theirs. What the rest of the budget computes relies on that alone.
"""

from __future__ import annotations

from math import fsum
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from asynctest_kit.budget.entries import (
    Attempt,
    Audit,
    Calls,
    CutOff,
    Finding,
    Fixture,
    Service,
    ServiceSpan,
    Test,
    TimeOut,
    Wait,
)
from asynctest_kit.engine import events as ev

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Facts", "gather"]

_E = TypeVar("_E", bound=ev.Event)
_A = TypeVar("_A", bound=Attempt)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A run's events in one frame; see :class:`asynctest_kit.budget.entries.Ledger` for the names they share.

    Attributes:
        wall: The last boundary.
        collect_start: Start-up is over.
        loop_start: Tests may run.
        cases_end: The last test is over.
        loop_end: The shared fixtures are torn down.
        complete: Whether ``RunFinished`` was seen.
        services: By name.
        fixtures: By id.
        tests: In order of their end.
        attempts: All that ended, those of ``tests`` among them, in order of their end; also those that were cut off
            of tests that had failed before.
        cut_off: Tests that an early end cut off: those that ran before those that waited, in order of their start.
        findings: What tests did to others or left behind.
        waits: Who waited for another one's lock, in order of their start.
        audits: The services whose state was compared, by name.
        calls: Those of the application under test, by route.
        time_outs: Waits that ended in one, in order of their start.
        started: Start of each test that started and of whose end nothing is told, by node id.
        waiting: For each service, the ids of the fixtures that waited for it.
        dependants: The same, with the fixtures that need one of those.
    """

    wall: float
    collect_start: float
    loop_start: float
    cases_end: float
    loop_end: float
    complete: bool
    services: Mapping[str, Service]
    fixtures: Mapping[str, Fixture]
    tests: tuple[Test, ...]
    attempts: tuple[Attempt, ...]
    cut_off: tuple[CutOff, ...]
    findings: tuple[Finding, ...]
    waits: tuple[Wait, ...]
    audits: tuple[Audit, ...]
    calls: tuple[Calls, ...]
    time_outs: tuple[TimeOut, ...]
    started: Mapping[str, float]
    waiting: Mapping[str, frozenset[str]]
    dependants: Mapping[str, frozenset[str]]

    @property
    def first_attempts(self) -> list[Attempt]:
        """Those attempts that were no test's second."""
        return [attempt for attempt in self.attempts if not attempt.cause]

    @property
    def first_begun(self) -> list[Attempt]:
        """The same, with those that were cut off."""
        return [attempt for attempt in (*self.attempts, *self.cut_off) if not attempt.cause]

    @property
    def second_attempts(self) -> list[Attempt]:
        """Those attempts at which a test ran once more, until it was cut off or to its end."""
        cut_off = (attempt for attempt in self.cut_off if attempt.start < attempt.end)
        return [attempt for attempt in (*self.attempts, *cut_off) if attempt.cause]


def gather(events: Sequence[ev.Event]) -> Facts:
    """Sort the events of one run, which may be cut off anywhere."""
    kinds = _Kinds(events)
    begun, finished = kinds.last(ev.RunStarted), kinds.last(ev.RunFinished)
    times = [] if begun and finished else [time for event in events for time in _times(event)] or [0.0]
    origin = begun.at if begun else min(times)
    last = finished.at if finished else max(times)
    frame = _Frame(origin=origin, wall=max(0.0, last - origin))
    services = _services(kinds, frame)
    fixtures = _fixtures(kinds, frame)
    waiting = {service.name: _waiting(service, fixtures) for service in services.values()}
    tests = _by_end(_tests(kinds, frame))
    uncounted = [*_uncounted(kinds, frame)]
    attempts = _by_end([*tests, *uncounted]) if uncounted else tests
    cut_off = tuple(sorted(_cut_off(kinds, frame), key=lambda one: (one.ready >= one.end, one.start, one.nodeid)))
    started = _started(events, frame)
    boundaries = _boundaries(kinds, frame, [one.end for one in (*attempts, *cut_off)], started)
    collect_start, loop_start, cases_end, loop_end = boundaries
    return Facts(
        wall=frame.wall,
        collect_start=collect_start,
        loop_start=loop_start,
        cases_end=cases_end,
        loop_end=loop_end,
        complete=finished is not None,
        services=services,
        fixtures=fixtures,
        tests=tests,
        attempts=attempts,
        cut_off=cut_off,
        findings=tuple(
            Finding(nodeid=event.nodeid, text=event.text, detail=event.detail) for event in kinds.of(ev.FindingMade)
        ),
        waits=tuple(sorted(_waits(kinds, frame), key=lambda wait: (wait.start, wait.nodeid))),
        audits=_audits(kinds),
        calls=_calls(kinds),
        time_outs=tuple(sorted(_time_outs(kinds, frame), key=lambda one: (one.start, one.nodeid, one.what))),
        started=started,
        waiting=waiting,
        dependants={name: _dependants(waiters, fixtures) for name, waiters in waiting.items()},
    )


class _Frame(msgspec.Struct, frozen=True, kw_only=True):
    origin: float
    wall: float

    def __call__(self, at: float) -> float:
        inside = at - self.origin
        return 0.0 if inside < 0.0 else min(inside, self.wall)

    def ordered(self, *times: float) -> tuple[float, ...]:
        origin, wall, least = self.origin, self.wall, 0.0
        inside = []
        for at in times:
            since = at - origin
            if since > least:
                least = since if since < wall else wall  # noqa: FURB136  # five times for each test
            inside.append(least)
        return tuple(inside)


class _Kinds:
    """Events by their kind, in their order."""

    def __init__(self, events: Iterable[ev.Event]) -> None:
        self._events: dict[type[ev.Event], list[ev.Event]] = {}
        for event in events:
            kind = type(event)
            if kind not in self._events:
                self._events[kind] = []
            self._events[kind].append(event)

    def of(self, kind: type[_E]) -> list[_E]:
        return cast("list[_E]", self._events.get(kind, []))

    def last(self, kind: type[_E]) -> _E | None:
        events = self.of(kind)
        return events[-1] if events else None


def _times(event: ev.Event) -> Iterable[float]:
    return (getattr(event, name) for name in ("at", "start", "end") if hasattr(event, name))


def _boundaries(
    kinds: _Kinds, frame: _Frame, ends: Sequence[float], running: Mapping[str, float]
) -> tuple[float, float, float, float]:
    collection = kinds.last(ev.CollectionFinished)
    started = kinds.last(ev.LoopStarted)
    finished = kinds.last(ev.LoopFinished)
    first = next(iter(kinds.of(ev.CaseStarted)), None)
    collect_end = frame(collection.end) if collection else frame.wall
    loop_start = frame(started.at) if started else frame(first.at) if first else collect_end
    # What no event names went into start-up: a run that was interrupted in collection tells no more.
    collect_start = min(frame(collection.start) if collection else loop_start, loop_start)
    loop_ran = bool(started or first)
    loop_end = frame(finished.at) if finished else frame.wall if loop_ran else loop_start
    loop_end = max(loop_end, loop_start)
    if running or not ends:
        return collect_start, loop_start, loop_end, loop_end

    return collect_start, loop_start, min(max(*ends, loop_start), loop_end), loop_end


def _services(kinds: _Kinds, frame: _Frame) -> dict[str, Service]:
    spans: dict[str, list[ServiceSpan]] = {}
    for event in kinds.of(ev.ServicePhase):
        start, end = frame.ordered(event.start, event.end)
        spans.setdefault(event.service, []).append(ServiceSpan(phase=event.phase, start=start, end=end))
    ready = {event.service: event for event in kinds.of(ev.ServiceReady)}
    waiting = {event.service: event.fixtures for event in kinds.of(ev.ServiceFailed)}
    return {
        name: Service(
            name=name,
            provider=ready[name].provider if name in ready else "",
            detail=ready[name].detail if name in ready else "",
            ready=frame(ready[name].at) if name in ready else None,
            spans=tuple(sorted(spans.get(name, ()), key=lambda span: (span.start, span.end))),
            fixtures=ready[name].fixtures if name in ready else waiting.get(name, ()),
        )
        for name in sorted({*spans, *ready})
    }


def _fixtures(kinds: _Kinds, frame: _Frame) -> dict[str, Fixture]:
    fixtures: dict[str, Fixture] = {}
    for event in sorted(kinds.of(ev.FixtureFinished), key=lambda event: event.end):
        start, end = frame.ordered(event.start, event.end)
        known = fixtures.get(event.fixture)
        if event.phase == "setup":
            fixtures[event.fixture] = Fixture(
                id=event.fixture,
                name=event.name,
                scope=event.scope,
                setup_start=start,
                setup_end=end,
                teardown=None,
                needs=event.needs,
                failed=event.failed,
            )
        elif known:
            failed = known.failed or event.failed
            fixtures[event.fixture] = msgspec.structs.replace(known, teardown=(start, end), failed=failed)
    return fixtures


def _by_end(attempts: Iterable[_A]) -> tuple[_A, ...]:
    return tuple(sorted(attempts, key=lambda one: (one.end, one.nodeid)))


def _attempt_of(event: ev.Attempt, frame: _Frame) -> dict[str, Any]:
    """What every entry of an attempt holds."""
    start, ready, call_start, call_end, end = frame.ordered(
        event.start, event.ready, event.call_start, event.call_end, event.end
    )
    return {
        "nodeid": event.nodeid,
        "lane": event.lane,
        "start": start,
        "ready": ready,
        "call_start": call_start,
        "call_end": call_end,
        "end": end,
        "needs": event.needs,
        "cause": event.cause,
        "kept_from": event.kept_from,
    }


def _tests(kinds: _Kinds, frame: _Frame) -> Iterable[Test]:
    for case in kinds.of(ev.CaseFinished):
        yield Test(
            **_attempt_of(case, frame),
            outcome=case.outcome,
            reason=case.reason,
            attempts=case.attempts,
            verdict=case.verdict,
            note=case.note,
        )


def _uncounted(kinds: _Kinds, frame: _Frame) -> Iterable[Attempt]:
    """The attempts that don't count; what was to be one may have come to count after all.

    One that was cut off is among them if the test's failure before it counts.
    """
    attempts, ended_early = kinds.of(ev.AttemptFinished), kinds.of(ev.CaseCutOff)
    if not attempts and not ended_early:
        return
    known = {(event.nodeid, event.start) for event in kinds.of(ev.CaseFinished)}
    finished = {nodeid for nodeid, _ in known}
    cut_off = (event for event in ended_early if event.cause and event.nodeid in finished)
    for event in (*attempts, *cut_off):
        if (event.nodeid, event.start) not in known:
            known.add((event.nodeid, event.start))
            yield Attempt(**_attempt_of(event, frame))


def _waits(kinds: _Kinds, frame: _Frame) -> Iterable[Wait]:
    for event in kinds.of(ev.WaitFinished):
        start, end = frame.ordered(event.start, event.end)
        yield Wait(
            nodeid=event.nodeid,
            holder=event.holder,
            what=event.what,
            is_test=event.is_test,
            holder_is_test=event.holder_is_test,
            statement=event.statement,
            holder_statement=event.holder_statement,
            start=start,
            end=end,
        )


def _audits(kinds: _Kinds) -> tuple[Audit, ...]:
    """One for each service, by name; what is known to differ comes last."""
    found: dict[str, list[ev.AuditFinished]] = {}
    for event in kinds.of(ev.AuditFinished):
        found.setdefault(event.service, []).append(event)
    return tuple(
        Audit(
            service=service,
            things=sum(event.things for event in events),
            differences=tuple(
                sorted((one for event in events for one in event.differences), key=lambda one: one.is_known)
            ),
        )
        for service, events in sorted(found.items())
    )


def _calls(kinds: _Kinds) -> tuple[Calls, ...]:
    """By route, those that took most together first."""
    times: dict[tuple[str, str], list[float]] = {}
    for event in kinds.of(ev.CallsFinished):
        for call in event.calls:
            times.setdefault((call.method, call.route), []).append(max(0.0, call.end - call.start))
    found = (
        Calls(method=method, route=route, count=len(took), seconds=fsum(took), longest=max(took))
        for (method, route), took in times.items()
    )
    return tuple(sorted(found, key=lambda one: (-one.seconds, one.route, one.method)))


def _time_outs(kinds: _Kinds, frame: _Frame) -> Iterable[TimeOut]:
    """Those of calls, and what else gave up."""
    found = [(one.nodeid, one.what, one.start, one.end) for one in kinds.of(ev.TimedOut)]
    for event in kinds.of(ev.CallsFinished):
        calls = (call for call in event.calls if call.timed_out)
        found += [(event.nodeid, f"{call.method} {call.route}", call.start, call.end) for call in calls]
    for nodeid, what, since, until in found:
        start, end = frame.ordered(since, until)
        yield TimeOut(nodeid=nodeid, what=what, start=start, end=end)


def _cut_off(kinds: _Kinds, frame: _Frame) -> Iterable[CutOff]:
    """The tests that never ended; one that was cut off may have ended all the same, or have failed before."""
    ended_early = kinds.of(ev.CaseCutOff)
    finished = {event.nodeid for event in kinds.of(ev.CaseFinished)} if ended_early else set()
    cut_off = {event.nodeid: event for event in ended_early if event.nodeid not in finished}
    for event in cut_off.values():
        yield CutOff(**_attempt_of(event, frame), waiting=event.waiting)


_ENDS = frozenset({ev.CaseFinished, ev.CaseCutOff})


def _started(events: Sequence[ev.Event], frame: _Frame) -> dict[str, float]:
    running: dict[str, float] = {}
    for event in events:
        if type(event) is ev.CaseStarted:
            running[event.nodeid] = event.at
        elif type(event) in _ENDS:
            running.pop(event.nodeid, None)  # type: ignore[attr-defined]  # both are attempts
    return {nodeid: frame(at) for nodeid, at in running.items()}


def _waiting(service: Service, fixtures: Mapping[str, Fixture]) -> frozenset[str]:
    """Return the fixtures that waited for ``service``, which names them, by id or by name."""
    named = set(service.fixtures)
    return frozenset(fixture.id for fixture in fixtures.values() if fixture.id in named or fixture.name in named)


def _dependants(waiters: frozenset[str], fixtures: Mapping[str, Fixture]) -> frozenset[str]:
    found = set(waiters)
    while True:
        more = {fixture.id for fixture in fixtures.values() if not found.isdisjoint(fixture.needs)} - found
        if not more:
            return frozenset(found)

        found |= more
