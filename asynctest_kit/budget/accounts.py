"""Events in, a ledger out; a ledger and a budget in, a verdict out."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from math import fsum
from typing import TYPE_CHECKING, Final, get_args

from asynctest_kit.budget.bounds import bounds
from asynctest_kit.budget.critical_path import critical_path, lower_bound
from asynctest_kit.budget.entries import Attempt, LaneShare, Ledger, SecondAttempts, Verdict, covered
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
    firsts = facts.first_attempts
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
        waits=facts.waits,
        audits=facts.audits,
        calls=facts.calls,
        time_outs=facts.time_outs,
        unfinished=(*facts.started, *(one.nodeid for one in facts.cut_off)),
        cut_off=facts.cut_off,
        lanes=_lanes(firsts),
        second_attempts=_second_attempts(facts.second_attempts),
        critical_path=path,
        lower_bound=lower_bound(facts),
        test_seconds=fsum(attempt.total for attempt in firsts),
        tests_wall=_wall(firsts),
        peak=_peak(firsts),
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


def _lanes(attempts: Sequence[Attempt]) -> tuple[LaneShare, ...]:
    by_lane = {lane: [one for one in attempts if one.lane == lane] for lane in get_args(ev.Lane)}
    return tuple(
        LaneShare(lane=lane, tests=len(mine), seconds=fsum(one.total for one in mine), wall=_wall(mine))
        for lane, mine in by_lane.items()
        if mine
    )


def _second_attempts(attempts: Sequence[Attempt]) -> SecondAttempts:
    cause_of: dict[str, ev.Cause] = {}
    for one in attempts:
        if one.cause != "tracing":
            cause_of.setdefault(one.nodeid, one.cause)
    causes = Counter(cause_of.values())
    causes["tracing"] = sum(one.cause == "tracing" for one in attempts)
    return SecondAttempts(
        tests=len(cause_of),
        attempts=len(attempts),
        seconds=fsum(one.end - one.start for one in attempts),
        wall=covered((one.start, one.end) for one in attempts),
        causes={cause: causes[cause] for cause in get_args(ev.Cause) if causes[cause]},
    )


def _wall(attempts: Iterable[Attempt]) -> float:
    return covered((one.ready, one.end) for one in attempts)


def _peak(attempts: Sequence[Attempt]) -> int:
    """Return most tests at once; one that ends as another starts is not beside it."""
    changes = sorted([(one.ready, 1) for one in attempts] + [(one.end, -1) for one in attempts])
    return max(accumulate((change for _, change in changes), initial=0))
