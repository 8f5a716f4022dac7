"""Events in, a ledger out; a ledger and a budget in, a verdict out."""

from __future__ import annotations

from itertools import accumulate
from math import fsum
from typing import TYPE_CHECKING, Final, get_args

from asynctest_kit.budget.bounds import bounds
from asynctest_kit.budget.critical_path import critical_path, lower_bound
from asynctest_kit.budget.entries import LaneShare, Ledger, Test, Verdict, covered
from asynctest_kit.budget.facts import gather
from asynctest_kit.budget.phases import slices, sums
from asynctest_kit.engine import events as ev

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["ledger", "verdict"]

_INTERRUPTED: Final = 2  # pytest's exit code


def ledger(events: Iterable[ev.Event]) -> Ledger:
    """Account for a run's time.

    Args:
        events: The events of one run, cut off anywhere. What a stream does not tell (a run that was
            interrupted before its loop started) is left out; the phases partition the wall time all the same.
    """
    stream = tuple(events)
    facts = gather(stream)
    started = next((event for event in stream if isinstance(event, ev.RunStarted)), None)
    finished = next((event for event in stream if isinstance(event, ev.RunFinished)), None)
    concurrency = next((event.concurrency for event in stream if isinstance(event, ev.LoopStarted)), None)
    pieces = slices(facts)
    path = critical_path(facts, concurrency=concurrency)
    return Ledger(
        wall=facts.wall,
        wall_clock=started.wall_clock if started else None,
        arguments=started.arguments if started else (),
        complete=finished is not None and finished.exit_code != _INTERRUPTED,
        exit_code=finished.exit_code if finished else None,
        collected=next((event.cases for event in stream if isinstance(event, ev.CollectionFinished)), None),
        concurrency=concurrency,
        slices=pieces,
        phases=sums(pieces),
        services=tuple(facts.services.values()),
        fixtures=tuple(facts.fixtures.values()),
        tests=facts.tests,
        findings=facts.findings,
        unfinished=tuple(facts.unfinished),
        lanes=_lanes(facts.tests),
        critical_path=path,
        lower_bound=lower_bound(facts),
        test_seconds=fsum(test.total for test in facts.tests),
        tests_wall=_wall(facts.tests),
        peak=_peak(facts.tests),
        bounds=bounds(path, facts),
    )


def verdict(ledger: Ledger, budget: float) -> Verdict:
    """Judge a run against its budget in seconds.

    Raises:
        ValueError: The budget is not above 0.
    """
    if not budget > 0:
        raise ValueError(f"the budget must be above 0 s, not {budget}")

    return Verdict(wall=ledger.wall, budget=budget, share=ledger.wall / budget, held=ledger.wall <= budget)


def _lanes(tests: Sequence[Test]) -> tuple[LaneShare, ...]:
    by_lane = {lane: [test for test in tests if test.lane == lane] for lane in get_args(ev.Lane)}
    return tuple(
        LaneShare(lane=lane, tests=len(mine), seconds=fsum(test.total for test in mine), wall=_wall(mine))
        for lane, mine in by_lane.items()
        if mine
    )


def _wall(tests: Iterable[Test]) -> float:
    return covered((test.ready, test.end) for test in tests)


def _peak(tests: Sequence[Test]) -> int:
    """Return most tests at once; one that ends as another starts is not beside it."""
    changes = sorted([(test.ready, 1) for test in tests] + [(test.end, -1) for test in tests])
    return max(accumulate((change for _, change in changes), initial=0))
