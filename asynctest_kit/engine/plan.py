"""Where and in what order the tests of a run go.

Three lanes. **Shared**: coroutine tests side by side on one loop. **Exclusive**: coroutine tests that touch
process-global state, alone on the same loop. **pytest**: everything else (sync tests, unittest, doctests, other event
loops), alone, by pytest's own protocol while the loop stands still.

What runs alone and needs no async shared fixture runs first, so that services boot meanwhile; then the shared lane;
then the rest. So the loop is never emptied for a single test's sake, and state that a fixture changes for a module or
class never lasts into the shared lane: all tests of such a fixture are in one stage.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from asynctest_kit.engine import collection
from asynctest_kit.engine.ambient import ambient_of, key_of
from asynctest_kit.engine.graph import is_async
from asynctest_kit.engine.own_loop import is_free_of_loops, own_loop_of
from asynctest_kit.engine.process_state import ProcessState
from asynctest_kit.engine.treatment import treatment_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from asynctest_kit.engine.ambient import Ambient
    from asynctest_kit.engine.events import Lane
    from asynctest_kit.engine.graph import Case, Graph, LocalFixture, SharedFixture
    from asynctest_kit.engine.memory import Memory
    from asynctest_kit.engine.treatment import Options, Treatment

__all__ = ["Plan", "PlannedCase", "by_ambient", "by_gate", "plan"]


@dataclass(eq=False, slots=True)
class PlannedCase:
    """A test and the lane it runs in.

    Attributes:
        case: The test.
        lane: Where it runs.
        treatment: What marks and settings say of it.
        reason: Why not on the shared loop; empty if it is.
        ambient: Those of its fixtures that are up around all tests beside it.
    """

    case: Case
    lane: Lane
    treatment: Treatment
    reason: str = ""
    ambient: tuple[LocalFixture, ...] = ()

    @property
    def group(self) -> str | None:
        """The group whose limit it counts for."""
        return self.treatment.group

    @property
    def timeout(self) -> float:
        """Seconds that its set-up, its call and its tear-down may each take; 0 for no limit."""
        return self.treatment.timeout or 0.0

    @property
    def retries(self) -> int:
        """How often it is run again if it fails."""
        return self.treatment.retries or 0

    @property
    def is_on_another_loop(self) -> bool:
        """Whether it starts a loop itself, so that nothing of ours is of use to it."""
        return self.reason.startswith(_OTHER_LOOP)


@dataclass(frozen=True, slots=True)
class Plan:
    """Three stages, one after the other; the middle one is concurrent.

    Attributes:
        apart: Pairs of the middle one that don't run beside each other, and why: what the first did for the second.
    """

    before: tuple[PlannedCase, ...]
    shared: tuple[PlannedCase, ...]
    after: tuple[PlannedCase, ...]
    apart: Mapping[tuple[PlannedCase, PlannedCase], str] = field(default_factory=dict)


def plan(graph: Graph, options: Options, memory: Memory, *, one_by_one: bool = False) -> Plan:
    """Give every case a lane and a stage, keeping pytest's order within each.

    With ``one_by_one`` nothing runs beside anything, and everything in pytest's order.
    """
    state = ProcessState()
    planned = [_planned(case, options, memory, state) for case in graph.cases]
    if one_by_one:
        planned = [_alone(one) for one in planned]
    late = frozenset() if one_by_one else _late(planned)
    for one in planned:
        _leave_to_pytest(one)
    alone = [one for one in planned if one.lane != "shared"]
    shared = tuple(one for one in planned if one.lane == "shared")
    return Plan(
        before=tuple(one for one in alone if one not in late),
        shared=shared,
        after=tuple(one for one in alone if one in late),
        apart=_apart(shared, memory),
    )


def _apart(shared: Sequence[PlannedCase], memory: Memory) -> dict[tuple[PlannedCase, PlannedCase], str]:
    pairs = memory.apart(one.case.item for one in shared)
    if not pairs:
        return {}
    by_nodeid = {one.case.nodeid: one for one in shared}
    return {(by_nodeid[one], by_nodeid[other]): reason for (one, other), reason in pairs.items()}


_OTHER_LOOP = "runs on an event loop of its own"


def _planned(case: Case, options: Options, memory: Memory, state: ProcessState) -> PlannedCase:
    treatment = treatment_of(case.item, options)
    ambient = ambient_of(case)
    lane, reason = _lane(case, treatment, memory, ambient, state)
    return PlannedCase(case, lane, treatment, reason, ambient if lane == "shared" else ())


def _alone(planned: PlannedCase) -> PlannedCase:
    if planned.lane != "shared":
        return planned
    return PlannedCase(planned.case, "exclusive", planned.treatment, "everything runs one by one")


def _lane(
    case: Case, treatment: Treatment, memory: Memory, ambient: Collection[LocalFixture], state: ProcessState
) -> tuple[Lane, str]:
    item = case.item
    if not isinstance(item, pytest.Function):
        return "pytest", f"a {type(item).__name__}, not a Python function"
    is_coroutine = collection.is_coroutine_item(item)
    own_loop = own_loop_of(case, is_coroutine=is_coroutine)
    if own_loop is not None:
        return "pytest", f"{_OTHER_LOOP}: {own_loop}"
    if not is_coroutine:
        return "pytest", "not a coroutine function"
    if treatment.exclusive is not None:
        return ("exclusive", "asked for by a mark or the settings") if treatment.exclusive else ("shared", "")
    reason = state.exclusive_reason(case, ambient) or memory.reason(item)
    return ("exclusive", reason) if reason else ("shared", "")


def _leave_to_pytest(planned: PlannedCase) -> None:
    """Take back what the graph counted for fixtures that pytest itself will set up for this test.

    The engine holds the shared ones and the async ones; for a test on another loop only those that need no loop.
    """
    case = planned.case
    if planned.lane != "pytest":
        return
    if planned.is_on_another_loop:
        for fixture in case.shared:
            fixture.users -= not is_free_of_loops(fixture)
        case.shared = tuple(fixture for fixture in case.shared if is_free_of_loops(fixture))
    case.local = ()


def _late(planned: Sequence[PlannedCase]) -> frozenset[PlannedCase]:
    """The tests alone that wait for an async shared fixture, and all that share a narrow fixture with one of those."""
    alone = [one for one in planned if one.lane != "shared"]
    late = {one for one in alone if _waits(one)}
    users: dict[SharedFixture, list[PlannedCase]] = {}
    for one in alone:
        for fixture in _narrow(one):
            users.setdefault(fixture, []).append(one)
    pending = list(late)
    while pending:
        found = {other for fixture in _narrow(pending.pop()) for other in users.pop(fixture, ())} - late
        late |= found
        pending += found
    return frozenset(late)


def _narrow(planned: PlannedCase) -> list[SharedFixture]:
    return [fixture for fixture in planned.case.shared if fixture.scope != "session"]


def _waits(planned: PlannedCase) -> bool:
    if planned.is_on_another_loop:
        return False
    return any(is_async(fixture.definition.func) for fixture in planned.case.shared)


Gate = tuple[tuple["SharedFixture", ...], str | None]


def by_ambient(cases: Sequence[PlannedCase]) -> dict[Ambient, list[PlannedCase]]:
    """Group tests by what is changed around them: one group runs after the other."""
    waves: dict[Ambient, list[PlannedCase]] = {}
    for planned in cases:
        waves.setdefault(key_of(planned.ambient), []).append(planned)
    return waves


def by_gate(cases: Sequence[PlannedCase]) -> dict[Gate, list[PlannedCase]]:
    """Group tests by what they wait for: their shared fixtures and their group. In the order of their first test."""
    gates: dict[Gate, list[PlannedCase]] = {}
    for planned in cases:
        gates.setdefault((planned.case.shared, planned.group), []).append(planned)
    return gates
