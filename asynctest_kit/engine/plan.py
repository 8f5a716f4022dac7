"""Where and in what order the tests of a run go.

Three lanes. **Shared**: coroutine tests side by side on one loop. **Exclusive**: coroutine tests that touch
process-global state, alone on the same loop. **pytest**: everything else (sync tests, unittest, doctests, other event
loops), alone, by pytest's own protocol while the loop stands still.

What needs no async shared fixture runs first, so that services boot meanwhile; then the shared lane; then the rest.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from asynctest_kit.engine import collection
from asynctest_kit.engine.graph import is_async
from asynctest_kit.engine.process_state import exclusive_reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asynctest_kit.engine.events import Lane
    from asynctest_kit.engine.graph import Case, Graph, SharedFixture

__all__ = ["Plan", "PlannedCase", "plan"]


@dataclass(eq=False, slots=True)
class PlannedCase:
    """A test and the lane it runs in.

    Attributes:
        case: The test.
        lane: Where it runs.
        reason: Why not on the shared loop; empty if it is.
    """

    case: Case
    lane: Lane
    reason: str = ""

    @property
    def is_on_another_loop(self) -> bool:
        """Whether it starts a loop itself, so that nothing of ours is of use to it."""
        return self.reason.startswith(_OTHER_LOOP)


@dataclass(frozen=True, slots=True)
class Plan:
    """Three stages, one after the other; the middle one is concurrent."""

    before: tuple[PlannedCase, ...]
    shared: tuple[PlannedCase, ...]
    after: tuple[PlannedCase, ...]


def plan(graph: Graph) -> Plan:
    """Give every case a lane and a stage, keeping pytest's order within each."""
    planned = [PlannedCase(case, *_lane(case)) for case in graph.cases]
    for one in planned:
        _leave_to_pytest(one)
    alone = [one for one in planned if one.lane != "shared"]
    return Plan(
        before=tuple(one for one in alone if not _waits(one)),
        shared=tuple(one for one in planned if one.lane == "shared"),
        after=tuple(one for one in alone if _waits(one)),
    )


_OTHER_LOOP = "runs on an event loop of its own"


def _lane(case: Case) -> tuple[Lane, str]:
    item = case.item
    if not isinstance(item, pytest.Function):
        return "pytest", f"a {type(item).__name__}, not a Python function"
    backend = _backend(case)
    if backend not in (None, "asyncio"):
        return "pytest", f"{_OTHER_LOOP}: {backend}"
    inner = getattr(getattr(item.obj, "hypothesis", None), "inner_test", None)
    if inspect.iscoroutinefunction(inner):
        return "pytest", f"{_OTHER_LOOP}: hypothesis"
    if not collection.is_coroutine_item(item):
        return "pytest", "not a coroutine function"
    reason = exclusive_reason(case)
    return ("exclusive", reason) if reason else ("shared", "")


def _backend(case: Case) -> str | None:
    """The anyio backend that the test asks for, as far as it can be known before the run."""
    item = case.item
    source = case.by_name.get("anyio_backend")
    if source is None or not isinstance(item, pytest.Function):
        return None
    parameter = collection.parameter_of(item, "anyio_backend")
    function = source.definition.func
    if parameter is not None:
        value: object = parameter.value
    elif source.definition.argnames or is_async(function) or inspect.isgeneratorfunction(function):
        return None
    else:
        value = function()
    return value if isinstance(value, str) else str(value[0] if isinstance(value, tuple) else value)


def _leave_to_pytest(planned: PlannedCase) -> None:
    """Take back what the graph counted for fixtures that pytest itself will set up for this test.

    Those of a test on another loop are all pytest's. Of any other, the engine holds the shared ones and the async ones.
    """
    case = planned.case
    if planned.lane != "pytest":
        return
    if planned.is_on_another_loop:
        for fixture in case.shared:
            fixture.users -= 1
        case.shared = ()
    case.local = ()


def _waits(planned: PlannedCase) -> bool:
    return any(is_async(fixture.definition.func) for fixture in planned.case.shared)


def by_fixtures(cases: Sequence[PlannedCase]) -> dict[tuple[SharedFixture, ...], list[PlannedCase]]:
    """Group tests by the shared fixtures that they wait for, in the order of their first test."""
    groups: dict[tuple[SharedFixture, ...], list[PlannedCase]] = {}
    for planned in cases:
        groups.setdefault(planned.case.shared, []).append(planned)
    return groups
