"""What a run tells of itself when it is over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asynctest_kit.engine.events import Event
    from asynctest_kit.engine.runtestloop import Engine
    from asynctest_kit.settings import Settings

__all__ = ["AUDIT_FAILED", "BUDGET_MISSED", "report"]

#: Exit code of a run that passed and took longer than a strict budget.
BUDGET_MISSED = 6

#: Exit code of a run that passed and left a service otherwise than it had found it.
AUDIT_FAILED = 7


def report(events: list[Event], settings: Settings, engine: Engine, code: int) -> int:
    """Say where the time went, if tests ran; give the exit code: ``code``, or SIGTERM's, or the budget's."""
    from asynctest_kit.engine.events import LoopStarted, RunFinished
    from asynctest_kit.engine.interrupts import TERMINATED

    if not any(isinstance(event, LoopStarted) for event in events):
        return TERMINATED if engine.was_terminated else code
    from asynctest_kit.budget import ledger, verdict
    from asynctest_kit.report import console, json

    events.append(RunFinished(at=time.monotonic(), exit_code=code))
    accounts = ledger(events)
    outcome = verdict(accounts, settings.budget)
    if settings.report_json is not None:
        json.write(settings.report_json, accounts, outcome)
    if settings.report != "none":
        console.render(accounts, outcome, console=console.stdout(), is_short=settings.report == "short")
    if engine.was_terminated:
        return TERMINATED
    if settings.audit_isolation and not accounts.audits:
        print("asynctest_kit: --audit-isolation found nothing to compare: no test used PostgreSQL or Redis")  # noqa: T201
    if code == 0 and not all(audit.is_same for audit in accounts.audits):
        return AUDIT_FAILED
    missed = code == 0 and settings.budget_strict and not outcome.held
    return BUDGET_MISSED if missed else code
