"""Everything that happens in a run, as typed events: the whole interface to reports and budget.

All times are seconds on ``CLOCK_MONOTONIC``. A node id names a test as pytest does; a fixture id names one
instance of a shared fixture (``name`` plus what it is shared by); ``needs`` holds the ids that had to be ready first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

__all__ = [
    "Attempt",
    "AttemptFinished",
    "AuditDifference",
    "AuditFinished",
    "Call",
    "CallsFinished",
    "CaseCutOff",
    "CaseFinished",
    "CaseStarted",
    "CaseVerdict",
    "Cause",
    "CollectionFinished",
    "Event",
    "FindingMade",
    "FixtureFinished",
    "Lane",
    "LoopFinished",
    "LoopStarted",
    "Outcome",
    "RunFinished",
    "RunStarted",
    "ServiceFailed",
    "ServicePhase",
    "ServiceReady",
    "Sink",
    "TimedOut",
    "WaitFinished",
]

Outcome = Literal["passed", "failed", "error", "skipped", "xfailed", "xpassed"]

#: ``flaky``: failed, and passed when it was run again. ``interference``: failed beside others and passes alone.
#: ``moved``: was stopped beside others at process-global state, and run alone. ``deadlock``: was the victim of a
#: deadlock with another test, and passed when it was run again. ``doubtful``: passed, though it may have missed a
#: deadline, and no attempt alone has shown whether it did.
CaseVerdict = Literal["", "flaky", "interference", "moved", "deadlock", "doubtful"]

#: Why a test ran once more: its attempt before took too long, failed, was stopped at process-global state, was the
#: victim of a deadlock, or passed though it may have missed a deadline; or it is looked for who made a test fail.
Cause = Literal["", "time-out", "failure", "expected failure", "state", "deadlock", "deadline", "tracing"]

#: ``shared``: beside others on the loop. ``exclusive``: alone on the loop. ``pytest``: alone, by pytest's own protocol.
Lane = Literal["shared", "exclusive", "pytest"]


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of all events; in JSON the key ``type`` holds the class name."""


class RunStarted(Event, frozen=True):
    """The process began at ``at``; ``wall_clock`` is the same moment in seconds since the Unix epoch."""

    at: float
    wall_clock: float
    arguments: tuple[str, ...]


class CollectionFinished(Event, frozen=True):
    """pytest collected ``cases`` tests between ``start`` and ``end``."""

    start: float
    end: float
    cases: int


class LoopStarted(Event, frozen=True):
    """The engine took over from pytest: tests may run from here on."""

    at: float
    concurrency: int


class CaseStarted(Event, frozen=True):
    """A test left the queue: its fixtures are being awaited or set up."""

    nodeid: str
    lane: Lane
    at: float


class Attempt(Event, frozen=True):
    """A test ran, or was to: the base of what is told of its end.

    Attributes:
        nodeid: pytest's node id.
        lane: Where it ran.
        start: When it left the queue.
        ready: When the shared fixtures that it needs were up.
        call_start: When the test function was called (equal to ``end`` if it never was).
        call_end: When the test function returned (equal to ``end`` if it was never called).
        end: When its own fixtures were torn down.
        needs: Ids of the shared fixtures that it used.
        cause: Why it ran once more; empty for a first attempt.
        kept_from: For whose end it waited, as the two are kept apart; a node id, empty if it didn't.
    """

    nodeid: str
    lane: Lane
    start: float
    ready: float
    call_start: float
    call_end: float
    end: float
    needs: tuple[str, ...] = ()
    cause: Cause = ""
    kept_from: str = ""


class CaseFinished(Attempt, frozen=True, kw_only=True):
    """A test ended.

    Attributes:
        outcome: pytest's outcome; ``error`` is a failed set-up or tear-down.
        reason: First line of the failure or the skip reason; empty when passed.
        attempts: How often it ran; the times are those of the attempt that counts.
        verdict: What several attempts showed.
        note: The verdict in a sentence; without one empty, or what else made it run alone.
    """

    outcome: Outcome
    reason: str = ""
    attempts: int = 1
    verdict: CaseVerdict = ""
    note: str = ""


class AttemptFinished(Attempt, frozen=True, kw_only=True):
    """An attempt ended that doesn't count, as far as is known by then: the test ran, or runs, once more."""


class CaseCutOff(Attempt, frozen=True, kw_only=True):
    """The run ended early while a test ran or waited for its shared fixtures: at ``end``, where ``waiting`` says."""

    waiting: str


class FindingMade(Event, frozen=True):
    """A test, or what it used, did something to others or left something behind; or a setting has no effect.

    Attributes:
        nodeid: The test, or the name of the task, or the setting.
        text: What it did, to be read after its name.
        detail: Where, at length: a stack; empty if there is none.
    """

    nodeid: str
    text: str
    detail: str = ""


class WaitFinished(Event, frozen=True, kw_only=True):
    """One who waited for another one's lock got it, or gave up.

    Attributes:
        nodeid: Who waited: a test, or in words what else.
        holder: For whom.
        what: What for, to be read after "waited for".
        is_test: Whether ``nodeid`` is a test's.
        holder_is_test: Whether ``holder`` is.
        statement: What waited; shortened.
        holder_statement: What the holder ran last.
        start: When the statement began.
        end: When it was last seen to wait, a fraction of a second before its end at most.
    """

    nodeid: str
    holder: str
    what: str
    is_test: bool
    holder_is_test: bool
    statement: str
    holder_statement: str
    start: float
    end: float


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call of the application under test.

    Attributes:
        method: Its method; ``WEBSOCKET`` for a session over one.
        route: Its path, without what names one thing of many.
        start: When it began.
        end: When its response had been read, it failed or was cut off, or the session ended.
        timed_out: Whether it ended in a time-out.
    """

    method: str
    route: str
    start: float
    end: float
    timed_out: bool = False


class CallsFinished(Event, frozen=True):
    """A test called the application under test so, in order of the calls' ends."""

    nodeid: str
    calls: tuple[Call, ...]


class TimedOut(Event, frozen=True):
    """Of what a test used, something waited for ``what``, in words, from ``start`` to ``end``, and gave up."""

    nodeid: str
    what: str
    start: float
    end: float


class AuditDifference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not what it was before the tests.

    Attributes:
        text: What, before and after.
        is_known: Whether it is something that no rung isolates, such as a sequence.
        nodeid: After which test it was found; empty if they ran beside each other.
    """

    text: str
    is_known: bool = False
    nodeid: str = ""


class AuditFinished(Event, frozen=True, kw_only=True):
    """The state of ``service``, so many ``things``, was compared with what it was before its tests."""

    service: str
    things: int
    differences: tuple[AuditDifference, ...] = ()


class FixtureFinished(Event, frozen=True):
    """A shared fixture's set-up or tear-down ended."""

    fixture: str
    name: str
    scope: str
    phase: Literal["setup", "teardown"]
    start: float
    end: float
    needs: tuple[str, ...] = ()
    failed: bool = False


class ServicePhase(Event, frozen=True):
    """A stretch of a service's life.

    Of its start resolve, pull, create, boot, ready, migrate, prepare; then clone, drop, snapshot, remove.
    """

    service: str
    phase: str
    start: float
    end: float


class ServiceReady(Event, frozen=True):
    """A service answered: who gave it, and what it is. ``fixtures`` names the shared fixtures that waited for it."""

    service: str
    provider: str
    detail: str
    at: float
    fixtures: tuple[str, ...] = ()


class ServiceFailed(Event, frozen=True):
    """A service never was ready. ``fixtures`` names the shared fixtures that wait for it."""

    service: str
    fixtures: tuple[str, ...] = ()


class LoopFinished(Event, frozen=True):
    """Every test ended and every shared fixture is torn down."""

    at: float


class RunFinished(Event, frozen=True):
    """The run is over, services included; ``exit_code`` is pytest's."""

    at: float
    exit_code: int


Sink = Callable[[Event], None]
