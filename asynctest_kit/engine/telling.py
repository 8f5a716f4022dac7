"""The events of tests and of attempts at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynctest_kit.engine import clock
from asynctest_kit.engine.code_places import raised_at
from asynctest_kit.engine.events import AttemptFinished, CaseCutOff, CaseFinished, CaseStarted, FindingMade

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctest_kit.engine.events import Sink
    from asynctest_kit.engine.executor import Execution
    from asynctest_kit.engine.plan import PlannedCase

__all__ = ["Telling"]


class Telling:
    """Tells the stream of events what becomes of tests.

    Args:
        sink: Takes the events.
        waited_for: The node id of the test for whose end one waited before it started; empty if for none.
    """

    def __init__(self, sink: Sink, waited_for: Callable[[PlannedCase], str]) -> None:
        self._sink = sink
        self._waited_for = waited_for

    def started(self, planned: PlannedCase) -> None:
        """An attempt at a test begins."""
        self._sink(CaseStarted(nodeid=planned.case.nodeid, lane=planned.lane, at=clock.monotonic()))

    def finished(self, execution: Execution) -> None:
        """The attempt that counts has ended."""
        if execution.interrupt is None:
            self._sink(
                CaseFinished(
                    **self._told(execution, execution.times.end),
                    outcome=execution.outcome,
                    reason=execution.reason,
                    attempts=execution.attempts,
                    verdict=execution.verdict,
                    note=execution.note,
                )
            )
        else:
            self.cut_off(execution, execution.standing(raised_at(execution.interrupt)))
        for leak in execution.leaks:
            if leak.is_finding:
                self.note(execution.planned.case.nodeid, f"left {leak}")

    def uncounted(self, execution: Execution) -> None:
        """An attempt has ended that isn't the one that counts."""
        self._sink(AttemptFinished(**self._told(execution, execution.times.end)))

    def cut_off(self, execution: Execution, waiting: str, end: float | None = None) -> None:
        """An attempt was ended, or can't begin any more."""
        attempt = self._told(execution, clock.monotonic() if end is None else end)
        self._sink(CaseCutOff(**attempt, waiting=waiting))

    def note(self, nodeid: str, text: str, detail: str = "") -> None:
        """Something was found out about a test."""
        self._sink(FindingMade(nodeid=nodeid, text=text, detail=detail))

    def _told(self, execution: Execution, end: float) -> dict[str, Any]:
        """What every event of an attempt at a test holds."""
        times, planned = execution.times, execution.planned
        return {
            "nodeid": planned.case.nodeid,
            "lane": planned.lane,
            "start": times.start,
            "ready": times.ready or end,
            "call_start": times.call_start or end,
            "call_end": times.call_end or end,
            "end": end,
            "needs": tuple(fixture.id for fixture in planned.case.shared),
            "cause": execution.cause,
            "kept_from": "" if execution.cause else self._waited_for(planned),
        }
