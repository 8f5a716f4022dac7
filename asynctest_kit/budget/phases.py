"""Where the wall time went: a partition of it into phases.

The loop's time is shared out by one rule a moment: a test function runs (``tests``); none does and a test waits for a
service that is not ready (``services``); else a fixture is being set up or torn down (``fixtures``); else ``idle``.
Every test waits from the loop's start on, also before it has a place. All of a second attempt is ``again``.
"""

from __future__ import annotations

from itertools import groupby
from math import fsum
from typing import TYPE_CHECKING, Literal, get_args

from asynctest_kit.budget.entries import Phase, PhaseName, Slice

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asynctest_kit.budget.facts import Facts

__all__ = ["slices", "sums"]

_Activity = Literal["tests", "again", "services", "fixtures", "started"]

#: Of the activities at one moment the first of these names it. A test that never ended tells only that it had started.
_PRECEDENCE: dict[_Activity, PhaseName] = {
    "tests": "tests",
    "again": "again",
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
    changes = [
        (moment, place, change)
        for place, name in enumerate(_PRECEDENCE)
        for start, end in _union(_spans(facts, name), facts.loop_start, facts.cases_end)
        for moment, change in ((start, 1), (end, -1))
    ]
    running, phase = [0] * len(_PRECEDENCE), _named(())
    since = facts.loop_start
    for at, place, change in sorted(changes):
        running[place] += change
        if (following := _named(running)) != phase:
            yield Slice(phase=phase, start=since, end=at)
            phase, since = following, at
    yield Slice(phase=phase, start=since, end=facts.cases_end)


def _named(running: Sequence[int]) -> PhaseName:
    for phase, count in zip(_PRECEDENCE.values(), running, strict=False):
        if count:
            return phase
    return "idle"


def _union(spans: Iterable[tuple[float, float]], first: float, last: float) -> Iterator[tuple[float, float]]:
    """Yield the stretches of ``[first, last]`` that any span covers, in order and apart from each other."""
    begun = reached = first
    for start, end in sorted(spans):
        if start > reached:
            if begun < reached:
                yield begun, reached
            begun = reached = min(start, last)
        if end > reached:
            reached = min(end, last)
    if begun < reached:
        yield begun, reached


def _spans(facts: Facts, name: _Activity) -> Iterator[tuple[float, float]]:
    match name:
        case "tests":
            yield from ((one.call_start, one.call_end) for one in facts.first_begun)
        case "again":
            yield from ((one.start, one.end) for one in facts.second_attempts)
        case "services":
            yield facts.loop_start, _services_waited_for(facts)
        case "fixtures":
            yield from ((one.start, one.call_start) for one in facts.first_begun)
            yield from ((one.call_end, one.end) for one in facts.first_begun)
            yield from ((fixture.setup_start, fixture.setup_end) for fixture in facts.fixtures.values())
            yield from (fixture.teardown for fixture in facts.fixtures.values() if fixture.teardown)
        case "started":
            yield from ((start, facts.cases_end) for start in facts.started.values())


def _services_waited_for(facts: Facts) -> float:
    """Return until when any test waited for a service."""
    waited = facts.first_begun
    if facts.started or not waited:  # which services they wait for is told at a test's end
        return _last_ready(facts, facts.services)

    last = {needs: _last_ready(facts, _needed(facts, needs)) for needs in {one.needs for one in waited}}
    return max(min(one.ready, last[one.needs]) for one in waited)


def _needed(facts: Facts, needs: Iterable[str]) -> list[str]:
    return [name for name, dependants in facts.dependants.items() if not dependants.isdisjoint(needs)]


def _last_ready(facts: Facts, names: Iterable[str]) -> float:
    """Return when the last of the services was ready, or gave up, or 0 for none."""
    return max((_ready(facts, name) for name in names), default=0.0)


def _ready(facts: Facts, name: str) -> float:
    service = facts.services[name]
    still_starting = service.ready is None and not facts.complete
    return facts.wall if still_starting else service.started_until
