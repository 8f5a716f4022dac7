"""A plan in words: what runs beside what, what runs alone and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asynctest_kit.engine.plan import Plan, PlannedCase
    from asynctest_kit.engine.treatment import Options

__all__ = ["explained"]

_WAYS = {
    "shared": "beside each other on one loop",
    "exclusive": "alone on that loop",
    "pytest": "alone, by pytest's own protocol",
}


def explained(plan: Plan, options: Options) -> Iterator[str]:
    """Give the lines that tell a plan: how many tests run how, the groups, and for each test alone the reason."""
    everything = (*plan.before, *plan.shared, *plan.after)
    yield f"{_tests(len(everything))}, at most {options.concurrency} at once"
    for lane, way in _WAYS.items():
        here = [one for one in everything if one.lane == lane]
        if here:
            yield f"  {len(here):5} {way}"
    yield from _order(plan)
    yield from _groups(everything, options)
    yield from _apart(plan)
    for lane in ("exclusive", "pytest"):
        yield from _reasons([one for one in everything if one.lane == lane], _WAYS[lane])


def _order(plan: Plan) -> Iterator[str]:
    stages = [
        (len(plan.before), "alone, while services start"),
        (len(plan.shared), "beside each other"),
        (len(plan.after), "alone, those that wait for services and shared async fixtures"),
    ]
    steps = [f"{count} {what}" for count, what in stages if count]
    if len(steps) > 1:
        yield "in this order: " + "; ".join(steps)


def _groups(cases: Iterable[PlannedCase], options: Options) -> Iterator[str]:
    counts: dict[str, int] = {}
    for one in cases:
        if one.group is not None and one.lane == "shared":
            counts[one.group] = counts.get(one.group, 0) + 1
    for name, count in sorted(counts.items()):
        yield f"group {name}: {_tests(count)}, at most {options.groups.get(name, 1)} at once"


def _apart(plan: Plan) -> Iterator[str]:
    if not plan.apart:
        return
    yield ""
    yield f"not beside each other, for what they did in an earlier run: {len(plan.apart)} pair{_s(len(plan.apart))}"
    for (one, other), reason in plan.apart.items():
        yield f"  {one.case.nodeid}"
        yield f"    {reason}, held by {other.case.nodeid}"


def _reasons(cases: Sequence[PlannedCase], way: str) -> Iterator[str]:
    by_reason: dict[str, list[PlannedCase]] = {}
    for one in cases:
        by_reason.setdefault(one.reason, []).append(one)
    for reason, members in sorted(by_reason.items(), key=lambda pair: -len(pair[1])):
        yield ""
        yield f"{way}: {reason}"
        yield from (f"  {one.case.nodeid}" for one in members)


def _tests(count: int) -> str:
    return f"{count} test{_s(count)}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
