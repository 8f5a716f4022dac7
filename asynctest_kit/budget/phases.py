"""Where the wall time went: a partition of it into phases.

The loop's time is shared out by one rule a moment: a test function runs (``tests``); none does and a test waits for a
service that is not ready (``services``); else a fixture is being set up or torn down (``fixtures``); else ``idle``.
Every test waits from the loop's start on, also before it has a place.
"""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from math import fsum
from typing import TYPE_CHECKING, Literal, get_args

from asynctest_kit.budget.entries import Phase, PhaseName, Slice, Test

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asynctest_kit.budget.facts import Facts

__all__ = ["slices", "sums"]

_Activity = Literal["tests", "services", "fixtures", "started"]

#: Of the activities at one moment the first of these names it. A test that never ended tells only that it had started.
_PRECEDENCE: dict[_Activity, PhaseName] = {
    "tests": "tests",
    "services": "services",
    "fixtures": "fixtures",
    "started": "tests",
}


def slices(facts: Facts) -> tuple[Slice, ...]:
    """Return contiguous slices from 0 to the wall; adjacent ones differ in phase."""
    boundaries = (
        Slice(phase="start-up", start=0.0, end=facts.collect_start),
        Slice(phase="collect", start=facts.collect_start, end=facts.loop_start),
        *_loop(facts),
        Slice(phase="tear-down", start=facts.cases_end, end=facts.loop_end),
        Slice(phase="end", start=facts.loop_end, end=facts.wall),
    )
    lasting = [piece for piece in boundaries if piece.end > piece.start]
    return tuple(_joined(group) for group in (list(pieces) for _, pieces in groupby(lasting, key=_phase)))


def sums(pieces: Sequence[Slice]) -> tuple[Phase, ...]:
    """Sum the slices of every phase, in the order of a run."""
    return tuple(
        Phase(name=name, seconds=fsum(piece.end - piece.start for piece in pieces if piece.phase == name))
        for name in get_args(PhaseName)
    )


def _phase(piece: Slice) -> PhaseName:
    return piece.phase


def _joined(pieces: Sequence[Slice]) -> Slice:
    return Slice(phase=pieces[0].phase, start=pieces[0].start, end=pieces[-1].end)


def _loop(facts: Facts) -> Iterator[Slice]:
    marks: dict[float, Counter[_Activity]] = {}
    for start, end, name in _activities(facts):
        start, end = max(start, facts.loop_start), min(end, facts.cases_end)  # noqa: PLW2901
        if start < end:
            marks.setdefault(start, Counter())[name] += 1
            marks.setdefault(end, Counter())[name] -= 1
    running: Counter[_Activity] = Counter()
    moment = facts.loop_start
    for at in sorted(marks):
        yield Slice(phase=_named(running), start=moment, end=at)
        running.update(marks[at])
        moment = at
    yield Slice(phase=_named(running), start=moment, end=facts.cases_end)


def _named(running: Counter[_Activity]) -> PhaseName:
    return next((phase for activity, phase in _PRECEDENCE.items() if running[activity] > 0), "idle")


def _activities(facts: Facts) -> Iterator[tuple[float, float, _Activity]]:
    for test in facts.tests:
        yield test.call_start, test.call_end, "tests"
        yield facts.loop_start, _services_ready(facts, test), "services"
        yield test.start, test.call_start, "fixtures"
        yield test.call_end, test.end, "fixtures"
    for start, end in facts.attempts:
        yield start, end, "tests"
    for fixture in facts.fixtures.values():
        yield fixture.setup_start, fixture.setup_end, "fixtures"
        if fixture.teardown:
            yield *fixture.teardown, "fixtures"
    for start in facts.unfinished.values():
        yield start, facts.cases_end, "started"
    if facts.unfinished or not facts.tests:  # which services they wait for is told at a test's end
        yield facts.loop_start, _last_ready(facts, facts.services), "services"


def _services_ready(facts: Facts, test: Test) -> float:
    """Return when the last service that ``test`` needed was ready, or its own readiness if that was earlier."""
    needed = [name for name, service in facts.services.items() if not facts.dependants[name].isdisjoint(test.needs)]
    return min(test.ready, _last_ready(facts, needed))


def _last_ready(facts: Facts, names: Iterable[str]) -> float:
    """Return when the last of the services was ready, or gave up, or 0 for none."""
    return max((_ready(facts, name) for name in names), default=0.0)


def _ready(facts: Facts, name: str) -> float:
    service = facts.services[name]
    still_starting = service.ready is None and not facts.complete
    return facts.wall if still_starting else service.started_until
