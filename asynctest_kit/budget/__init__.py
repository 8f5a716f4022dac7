"""Events in, verdicts out: where a run's time went, what bounded it, and whether it held its budget.

Pure functions over :mod:`asynctest_kit.engine.events`; nothing here reads a clock or a file.
"""

from asynctest_kit.budget.accounts import ledger, verdict
from asynctest_kit.budget.entries import (
    Attempt,
    Audit,
    Bound,
    Calls,
    CutOff,
    Finding,
    Fixture,
    LaneShare,
    Ledger,
    Phase,
    SecondAttempts,
    Service,
    ServiceSpan,
    Slice,
    Step,
    Test,
    TimeOut,
    Verdict,
    Wait,
    shown_name,
)

__all__ = [
    "Attempt",
    "Audit",
    "Bound",
    "Calls",
    "CutOff",
    "Finding",
    "Fixture",
    "LaneShare",
    "Ledger",
    "Phase",
    "SecondAttempts",
    "Service",
    "ServiceSpan",
    "Slice",
    "Step",
    "Test",
    "TimeOut",
    "Verdict",
    "Wait",
    "ledger",
    "shown_name",
    "verdict",
]
