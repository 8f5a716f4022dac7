"""Events in, verdicts out: where a run's time went, what bounded it, and whether it held its budget.

Pure functions over :mod:`asynctest_kit.engine.events`; nothing here reads a clock or a file.
"""

from asynctest_kit.budget.accounts import ledger, verdict
from asynctest_kit.budget.entries import (
    Bound,
    Finding,
    Fixture,
    LaneShare,
    Ledger,
    Phase,
    Service,
    ServiceSpan,
    Slice,
    Step,
    Test,
    Verdict,
)

__all__ = [
    "Bound",
    "Finding",
    "Fixture",
    "LaneShare",
    "Ledger",
    "Phase",
    "Service",
    "ServiceSpan",
    "Slice",
    "Step",
    "Test",
    "Verdict",
    "ledger",
    "verdict",
]
