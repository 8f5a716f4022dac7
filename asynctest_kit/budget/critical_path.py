"""The chain of waits that made the run as long as it was, and how short a run with the same durations could be.

The path is walked backwards from the end of the run. At every moment it asks what had to happen last before this could
start: for an attempt at a test, the shared fixture that was up last, or the attempt whose end made room for it; for a
fixture, the fixture or service that it waited for last; for a service, its phases, and the fixture that asked for it;
and where all that was there before the loop started, collection and start-up. A test that was cut off leads to what it
still waited for. Steps are contiguous by construction: each ends where the one after it starts; gaps are ``queue`` (for
a place on the loop) or ``idle`` (a service between two phases).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING

from asynctest_kit.budget.entries import AFTER_START, Attempt, CutOff, Fixture, Service, Step, StepKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asynctest_kit.budget.facts import Facts

__all__ = ["critical_path", "lower_bound"]

_Node = Attempt | Fixture | Service


def critical_path(facts: Facts, *, concurrency: int | None) -> tuple[Step, ...]:
    """Return contiguous steps from 0 to the wall, in the order of the run."""
    return _Walk(facts, concurrency).steps()


def lower_bound(facts: Facts) -> float:
    """Return the wall time of a run with the same durations in which every test runs as soon as its needs are met."""
    if facts.started or facts.cut_off or not facts.tests:
        return facts.wall

    earliest = _EarliestReady(facts)
    ready = {needs: earliest.of(needs, facts.wall) for needs in {one.needs for one in facts.attempts}}
    ends: dict[str, float] = {}
    for attempt in facts.attempts:  # those at one test follow each other
        begun = max(min(ready[attempt.needs], attempt.ready), ends.get(attempt.nodeid, 0.0))
        ends[attempt.nodeid] = min(attempt.end, begun + attempt.total)
    return min(facts.wall, max(*ends.values(), facts.loop_start) + (facts.wall - facts.cases_end))


class _Walk:
    """One walk backwards. ``_moment`` only ever moves towards 0, and each node is entered once, so it ends."""

    def __init__(self, facts: Facts, concurrency: int | None) -> None:
        self._facts = facts
        self._moment = facts.wall
        self._backwards: list[Step] = []
        self._entered: set[_Node] = set()
        self._ends = [attempt.end for attempt in facts.attempts]
        self._load = _Load((*facts.attempts, *facts.cut_off), concurrency)

    def steps(self) -> tuple[Step, ...]:
        self._step("end", since=self._facts.loop_end)
        self._step("tear-down", since=self._facts.cases_end)
        node = self._last_attempt()
        while node and self._enter(node):
            match node:
                case Attempt():
                    node = self._through_attempt(node)
                case Fixture():
                    node = self._through_fixture(node)
                case Service():
                    node = self._through_service(node)
        self._step("queue", since=self._facts.loop_start)
        self._step("collect", since=self._facts.collect_start)
        self._step("start-up", since=0.0)
        return tuple(reversed(self._backwards))

    def _step(self, kind: StepKind, name: str = "", part: str = "", *, since: float) -> None:
        if since < self._moment:
            self._backwards.append(Step(kind=kind, name=name, part=part, start=since, end=self._moment))
            self._moment = since

    def _enter(self, node: _Node) -> bool:
        new = node not in self._entered
        self._entered.add(node)
        return new

    def _last_attempt(self) -> _Node | None:
        facts = self._facts
        if facts.started:
            nodeid, start = min(facts.started.items(), key=lambda item: item[1])
            self._step("test", nodeid, "unfinished", since=start)
            return self._place_before(start, since=facts.loop_start, in_turn=False)

        begun = [one for one in facts.cut_off if one.start < one.end]
        return next(iter((*begun, *reversed(facts.attempts))), None)

    def _through_attempt(self, attempt: Attempt) -> _Node | None:
        kind: StepKind = "again" if attempt.cause else "test"
        if isinstance(attempt, CutOff) and attempt.ready >= attempt.end:
            holding_up = self._holding_up(attempt)
            self._step(kind, attempt.nodeid, "unfinished", since=attempt.end if holding_up else attempt.start)
            return holding_up

        self._step(kind, attempt.nodeid, "tear-down", since=attempt.call_end)
        self._step(kind, attempt.nodeid, "call", since=attempt.call_start)
        self._step(kind, attempt.nodeid, "set-up", since=attempt.ready)
        needed = _latest(self._facts, attempt.needs, attempt.ready)
        up = needed.setup_end if needed else self._facts.loop_start
        before = self._kept_from(attempt) or self._place_before(attempt.start, since=up, in_turn=attempt.in_turn)
        if before and before.end > up:
            self._step("queue", attempt.nodeid, since=before.end)
            return before

        self._step("queue", attempt.nodeid, since=up)
        return needed

    def _kept_from(self, attempt: Attempt) -> Attempt | None:
        """Return the attempt whose end was waited for, as the two tests are kept apart."""
        ended = (one for one in self._facts.attempts if one.nodeid == attempt.kept_from and one.end <= attempt.start)
        return max(ended, key=attrgetter("end"), default=None) if attempt.kept_from else None

    def _holding_up(self, attempt: CutOff) -> Fixture | None:
        """Return the fixture for which a test that was cut off waited still, and which waited for no other."""
        known = self._facts.fixtures
        pending = {id_: known[id_] for id_ in attempt.needs if id_ in known and known[id_].setup_end >= attempt.end}
        return next((one for one in pending.values() if pending.keys().isdisjoint(one.needs)), None)

    def _place_before(self, start: float, *, since: float, in_turn: bool) -> Attempt | None:
        """Return the attempt whose end made room for a start at ``start``; None if there was room ``since``."""
        ended = bisect_right(self._ends, start)
        if not ended:
            return None

        before = self._facts.attempts[ended - 1]
        return before if in_turn or before.in_turn or self._load.was_full(since, start) else None

    def _through_fixture(self, fixture: Fixture) -> _Node | None:
        needed, met = self._last_need(fixture)
        self._step("fixture", fixture.id, "set-up", since=max(met, fixture.setup_start))
        if needed and met >= fixture.setup_start:
            return needed

        return self._before_fixture(fixture, needed, met)

    def _before_fixture(self, fixture: Fixture, needed: _Node | None, met: float) -> _Node | None:
        """Go to what let ``fixture`` start: its last need, or the end of a test; None for the loop's start."""
        before = self._place_before(fixture.setup_start, since=fixture.setup_start, in_turn=True)
        bound = max(met, self._facts.loop_start)
        if before and before.end > bound:
            self._step("queue", fixture.id, since=before.end)
            return before

        self._step("queue", fixture.id, since=bound)
        return needed if met > self._facts.loop_start else None

    def _last_need(self, fixture: Fixture) -> tuple[_Node | None, float]:
        """Return the fixture or service that ``fixture`` waited for last, and when the wait was over."""
        needed = _latest(self._facts, fixture.needs, fixture.setup_end)
        met: list[tuple[float, _Node]] = [(needed.setup_end, needed)] if needed else []
        met += [
            (at, service)
            for service in self._facts.services.values()
            if fixture.id in self._facts.waiting[service.name]
            for at in _milestones(service, fixture)
            if at <= fixture.setup_end
        ]
        at, node = max(met, key=lambda item: item[0], default=(0.0, None))
        return node, at

    def _through_service(self, service: Service) -> _Node | None:
        spans = [span for span in service.spans if span.phase not in AFTER_START and span.start < self._moment]
        for span in sorted(spans, key=attrgetter("end"), reverse=True):
            self._step("idle", service.name, since=span.end)
            self._step("service", service.name, span.phase, since=span.start)
        waiting = [self._facts.fixtures[id_] for id_ in self._facts.waiting[service.name]]
        asking = [fixture for fixture in waiting if self._facts.loop_start < fixture.setup_start <= self._moment]
        first = min(asking, key=attrgetter("setup_start"), default=None)
        if first is None:
            return None

        self._step("queue", service.name, since=first.setup_start)
        needed = _latest(self._facts, first.needs, first.setup_start)
        return self._before_fixture(first, needed, needed.setup_end if needed else 0.0)


class _Load:
    """How many tests had a place on the loop at any moment."""

    def __init__(self, attempts: Iterable[Attempt], concurrency: int | None) -> None:
        changes: dict[float, int] = {}
        for one in attempts:
            changes[one.start] = changes.get(one.start, 0) + 1
            changes[one.end] = changes.get(one.end, 0) - 1
        self._moments = sorted(changes)
        self._running = [*accumulate(changes[moment] for moment in self._moments)]
        self._concurrency = concurrency

    def was_full(self, start: float, end: float) -> bool:
        """Tell whether all places were taken at a moment of ``[start, end)``."""
        if self._concurrency is None:
            return False

        first = max(bisect_right(self._moments, start) - 1, 0)
        running = self._running[first : bisect_left(self._moments, end)]
        return max(running, default=0) >= self._concurrency


class _EarliestReady:
    """When things could be ready at the earliest, never later than they were."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._known: dict[str, float] = {}

    def of(self, needs: Iterable[str], no_later: float) -> float:
        """Return when all of ``needs`` could be ready, which is after the loop's start."""
        earliest = max((self._fixture(need) for need in needs), default=0.0)
        return min(max(earliest, self._facts.loop_start), no_later)

    def _fixture(self, id_: str) -> float:
        if id_ in self._known:
            return self._known[id_]

        fixture = self._facts.fixtures.get(id_)
        if fixture is None:
            return 0.0

        self._known[id_] = fixture.setup_end  # holds if the needs run in a circle
        needed = _latest(self._facts, fixture.needs, fixture.setup_end)
        waits = [*self._services(fixture)]
        begun = max(
            [fixture.setup_start, *(needed.setup_end for needed in [needed] if needed), *(at for at, _ in waits)]
        )
        earliest = max([self.of(fixture.needs, fixture.setup_end), *(at for _, at in waits)])
        self._known[id_] = min(earliest + fixture.setup_end - begun, fixture.setup_end)
        return self._known[id_]

    def _services(self, fixture: Fixture) -> Iterator[tuple[float, float]]:
        """Yield, for each service that ``fixture`` waited for, when it was ready and when it could have been."""
        for service in self._facts.services.values():
            times = [at for at in _milestones(service, fixture) if at <= fixture.setup_end]
            if times and fixture.id in self._facts.waiting[service.name]:
                at = max(times)
                begun = min([span.start for span in service.spans] or [at])
                yield at, at - max(0.0, begun - self._facts.loop_start)


def _latest(facts: Facts, needs: Iterable[str], no_later: float) -> Fixture | None:
    """Return the one of the fixtures that was set up last, until ``no_later``."""
    needed = (facts.fixtures[need] for need in needs if need in facts.fixtures)
    return max((fixture for fixture in needed if fixture.setup_end <= no_later), key=_setup_end, default=None)


def _milestones(service: Service, fixture: Fixture) -> list[float]:
    """Return when ``fixture`` may have had ``service``: it answered, was migrated, or was given up."""
    if service.ready is None:
        return [min(service.started_until, fixture.setup_end)]

    return [service.ready, *(span.end for span in service.spans if span.phase in ("migrate", "prepare"))]


_start = attrgetter("start")
_setup_end = attrgetter("setup_end")
