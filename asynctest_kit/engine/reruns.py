"""Which tests run again, alone, and what the attempts together say.

Three kinds. One that the guard stopped beside others was never finished: its attempt alone is the one that counts, and
the next run puts it there at once. One that failed and has retries left is flaky if a later attempt passes. One that
failed beside others is run alone before it is reported: if it fails there too it is simply broken, and that attempt's
report is shown, with nobody else's traces in it, and the first one's message if that is another; if it passes, its
neighbours are to blame, or chance. Then it runs beside them again, beside half of them, and so on, until the suspect is
found or the failure doesn't come back; a suspect is named if the test fails beside it each time, and never alone. The
next run runs it alone. An expected failure is looked at alone too, for it may have failed for another reason; not one
that a mark has kept from running.

One that passed beside others, but may have missed a deadline of its own (see :mod:`asynctest_kit.engine.deadlines`), is
run alone after all that failed, and that attempt counts. If there is no time for that, or it says nothing, or it fails
by no deadline, so that the test may be one that can't run twice, the pass stands: it is doubtful.

One that failed beside others is not traced if it met a deadline there that may have been over, or if it failed by no
time-out and a deadline of its own came late by the wall clock: the loop's clock may be to blame. If it met one, and
passes alone, where that is over each time it is set, it expects that, and the attempt alone counts.

The victim of a deadlock with another test is run once more whatever is asked for, and counts as passed if it passes
then: which of the two is ended is chance. One that waited for another test's lock until its time was over needs no
tracing.

An attempt alone that is skipped, or fails as expected, says nothing of the failure before it, which stands; nor does
one that fails because what the test needs has gone meanwhile.

A test keeps its hold on its shared fixtures from its first attempt to its last, so that nothing is set up twice. What
failed in a shared fixture's tear-down, or for a shared fixture that failed, is final: another attempt would find things
as they are. So is a failure whose report has the attribute ``atk_final``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from asynctest_kit.engine import clock
from asynctest_kit.engine.deadlines import COUNTED
from asynctest_kit.engine.same_failure import is_same_failure, likeness

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asynctest_kit.engine.deadlines import Doubt
    from asynctest_kit.engine.events import Cause, Lane
    from asynctest_kit.engine.executor import CaseRun, Execution
    from asynctest_kit.engine.graph import SharedFixture
    from asynctest_kit.engine.memory import Memory
    from asynctest_kit.engine.plan import PlannedCase

__all__ = ["Again", "Reruns", "Suspects", "flaky_note", "several", "suspects"]

#: At most so many failures are traced to their neighbours in one run, each in so many rounds.
_TRACED = 3
_ROUNDS = 12

#: A failure is run again alone as long as all that took less than this many seconds, or than the tests themselves.
_PATIENCE = 10.0

#: After so many seconds the smallest set of neighbours that was found so far is named.
_TRACING = 3.0

_MARK = "`atk(exclusive=True)` runs it alone from the start"

#: So many neighbours are named.
_NAMED = 10


@dataclass(eq=False, slots=True)
class Again:
    """One test that runs again.

    Attributes:
        planned: The test, as it runs again: alone.
        first: The attempt that made it necessary.
        failures: The attempts so far that failed.
        last: The attempt alone after which there is no other; None until it was.
        doubt: The deadline that the first attempt, which passed, may have missed; None for any other.
    """

    planned: PlannedCase
    first: Execution
    failures: list[Execution] = field(default_factory=list)
    last: Execution | None = None
    doubt: Doubt | None = None

    @property
    def attempts(self) -> int:
        """How often it has run."""
        return len(self.failures) + (bool(self.first.touched) or self.doubt is not None)

    @property
    def cause(self) -> Cause:
        """Why the next attempt is made."""
        if not self.failures:
            return "state" if self.doubt is None else "deadline"
        last = self.failures[-1]
        if last.deadlock:
            return "deadlock"
        if last.outcome == "xfailed":
            return "expected failure"
        return "time-out" if last.timed_out else "failure"

    @property
    def looks_at_deadlines(self) -> bool:
        """Whether what comes of its deadlines alone is to be noted."""
        return bool(self.first.doubts) and not self.first.touched

    @property
    def doubt_of_failure(self) -> Doubt | None:
        """The deadline for which the first attempt may have failed: one that was met late, or came late.

        That one came late is never why a time-out was met.
        """
        late = None if self.first.tells_time_out else self.first.late
        return next(iter(self.first.doubts), late)

    @property
    def failed_beside_others(self) -> bool:
        """Whether other tests ran while it failed."""
        return self.first.planned.lane == "shared" and not self.first.touched and self.doubt is None


class _Ran(NamedTuple):
    """A first attempt beside others: which test's, and from when to when."""

    planned: PlannedCase
    start: float
    end: float


class Reruns:
    """The tests of one run that run again.

    Args:
        memory: Is told of the tests that touch process-global state, and of the deadlines that are met with ease.
        triages: Whether a failure beside others is run alone, even without retries.
    """

    def __init__(self, memory: Memory, *, triages: bool) -> None:
        self._memory = memory
        self._triages = triages
        self._waiting: list[Again] = []
        self._up: set[SharedFixture] = set()
        self._neighbours: list[_Ran] = []
        self._spent = {"failures": 0.0, "doubts": 0.0}  # each has its own, so that none keeps the others from it
        self._traced = 0

    def once_more(self, run: CaseRun) -> bool:
        """Whether a first attempt that is tearing down will be followed by another."""
        execution, is_beside = run.execution, run.planned.lane == "shared" and self._triages
        if run.fixtures.shared_failed or execution.is_final:
            return False
        if run.has_failed:
            return run.planned.retries > 0 or is_beside or bool(execution.deadlock)
        if execution.outcome == "xfailed":
            return is_beside and not run.is_refused
        return bool(execution.doubts) and execution.outcome in ("passed", "xpassed")

    def take(self, execution: Execution) -> bool:
        """Note a first attempt; tell whether the test runs again, so that nothing of it is to be reported yet."""
        if execution.planned.lane == "shared":
            self._neighbours.append(_Ran(execution.planned, execution.times.start, execution.times.end))
        if execution.touched:
            self._memory.learn(execution.planned.case.item, f"touched {execution.touched}")
            self._waiting.append(Again(_alone(execution.planned, f"it touched {execution.touched}"), execution))
        elif execution.held:
            if execution.failed or execution.outcome == "xfailed":
                again = Again(_alone(execution.planned, "it failed and runs again"), execution, [execution])
            else:
                planned = _alone(execution.planned, "it may have missed a deadline and runs again")
                again = Again(planned, execution, doubt=next(iter(execution.doubts), None))
            self._waiting.append(again)
        return bool(execution.touched or execution.held)

    def next(self) -> Again | None:
        """The next test that runs again: one over the last one's fixtures, so that these aren't up around others.

        Doubtful ones come last.
        """
        if not self._waiting:
            return None
        first = next((one for one in self._waiting if one.doubt is None), self._waiting[0])
        chosen = next((one for one in self._waiting if _narrow(one) & self._up), first)
        self._waiting.remove(chosen)
        self._up = _narrow(chosen)
        return chosen

    def is_worth_it(self, again: Again) -> bool:
        """Whether there is time to run it alone: a suite that is simply broken should end soon."""
        if again.first.touched or again.planned.retries or again.first.deadlock:
            return True
        done = self._neighbours
        tests = max(one.end for one in done) - min(one.start for one in done)
        return self._spent[_kind(again)] < max(_PATIENCE, tests)

    def judge(self, again: Again, execution: Execution) -> bool:
        """Add an attempt alone; tell whether there has to be another. The last one then carries the verdict."""
        self._spent[_kind(again)] += execution.times.end - execution.times.start
        if execution.failed:
            again.failures.append(execution)
            if again.doubt is not None and _is_late(again, execution):
                self._memory.forget_met(again.planned.case.item)
            if execution.held:
                return True
        execution.attempts = again.attempts + (not execution.failed)
        again.last = execution
        return False

    @staticmethod
    def cut_off(again: Again, *, running: bool) -> str:
        """What is said of a failure if the run ended before its last attempt did, or before it was traced."""
        failed = "It failed beside others" if again.failed_beside_others else "It failed"
        if not running:
            return f"{failed} and was not run again alone: the run ended before."
        if again.last is None:
            return f"{failed}, and its attempt alone was cut off: the run ended."
        return f"{failed} and passed alone; the run ended before it was found beside whom it fails."

    def holds(self, again: Again, run: CaseRun) -> bool:
        """Whether an attempt alone that is tearing down will be followed by another."""
        return run.has_failed and not run.execution.is_final and len(again.failures) < self._allowed(again)

    @staticmethod
    def _allowed(again: Again) -> int:
        """How many attempts may fail before the last one; the first beside others counts only with retries."""
        if not again.failed_beside_others:
            return again.planned.retries
        return max(again.planned.retries, 1)

    def settle(self, again: Again, execution: Execution) -> bool:
        """Give the last attempt its verdict; tell whether the failure is still to be traced to the neighbours."""
        if execution.failed or not (again.first.failed or again.first.touched or again.doubt):
            return False
        if again.first.deadlock and len(again.failures) == 1:
            others = several(again.first.deadlock)
            execution.verdict, execution.note = (
                "deadlock",
                f"deadlock with {others}; passed when it was run again, alone",
            )
        elif (expected := _expected(again, execution)) is not None:
            self._memory.learn(again.first.planned.case.item, "expected a time-out that did not come beside others")
            execution.note = (
                f"it expects a time-out, and failed beside others, where there was {expected}; it passed alone, and "
                "that counts"
            )
        elif again.failures and again.planned.retries:
            reason = again.failures[0].reason or "no message"
            execution.verdict, execution.note = (
                "flaky",
                f"failed {_times(len(again.failures))}, at first with: {reason}",
            )
        elif again.failures:
            if not again.first.held_up:  # else the pair is kept apart
                self._memory.learn(again.first.planned.case.item, "failed beside others and passed alone")
            return True
        elif again.first.touched:
            execution.verdict, execution.note = "moved", f"ran alone, for it touched {again.first.touched}"
        elif again.doubt is not None:
            execution.note = f"beside others it may have missed {again.doubt}; it passed alone, and that counts"
            self._memory.learn_met(again.planned.case.item, _met_with_ease(again, execution))
        return False

    @staticmethod
    def attempt_that_stands(again: Again, execution: Execution) -> Execution | None:
        """The failure that an attempt alone, which says nothing of it, leaves as it was; or the pass in doubt.

        An attempt that failed by no deadline says nothing of a doubt.
        """
        if again.doubt is not None and again.failures and not any(_is_late(again, one) for one in again.failures):
            return None if execution.outcome in ("passed", "xpassed") else again.first
        said_nothing = execution.outcome in ("skipped", "xfailed") or execution.is_final
        before = next((one for one in reversed(again.failures) if one is not execution), None)
        if before is None and again.doubt is not None and execution.outcome != "xfailed":
            before = again.first
        return before if said_nothing and before is not None and before.outcome != "xfailed" else None

    @staticmethod
    def unchecked(again: Again, why: str) -> str:
        """What is said of a test that passed and stays in doubt; ``why`` it does."""
        return f"may have missed {again.doubt}; {COUNTED}. {why}; {_MARK}"

    @staticmethod
    def failed_otherwise(alone: Execution) -> str:
        """What is said of an attempt alone that failed by no deadline; empty of any other."""
        if not alone.failed or alone.is_final:
            return ""
        reason = alone.reason or "no message"
        return f"Run again alone, it failed by no deadline, with: {reason}; the test may be one that can't run twice"

    @staticmethod
    def missed(again: Again) -> str:
        """How it was found that a test fails which passed beside others: in words for its report."""
        return (
            f"It passed beside others first, but may have missed {again.doubt}; {COUNTED}.\n"
            "So it was run again alone, on asyncio's clock, and failed as shown. If time isn't why, what the first "
            f"attempt left behind may be: {_MARK}."
        )

    @staticmethod
    def other_failure(again: Again, execution: Execution) -> str:
        """How a test that fails alone too failed beside others, if that was otherwise: in words for its report."""
        first = again.first
        if not execution.failed or not again.failed_beside_others or is_same_failure(first, execution):
            return ""
        is_elsewhere = likeness(first.reason) == likeness(execution.reason)
        place = ", at {}:{}".format(*first.crash) if first.crash is not None and is_elsewhere else ""
        return (
            f"It failed beside others first, with: {first.reason or 'no message'}{place}\n"
            "Alone, in the same process, it then failed as shown. What the first attempt left behind, in a module's "
            "variable, say, may have done that. If it passes with `--concurrency 1`, its neighbours are to blame."
        )

    def neighbours(self, again: Again) -> list[PlannedCase]:
        """The tests that ran beside the attempt that failed."""
        times = again.first.times
        return [
            one.planned
            for one in self._neighbours
            if one.planned is not again.first.planned and one.start < times.end and times.start < one.end
        ]

    def may_trace(self) -> bool:
        """Whether one more failure is traced; see the limits above."""
        self._traced += 1
        return self._traced <= _TRACED


def flaky_note(failures: int, reason: str) -> str:
    """What is said of a test that passed after ``failures`` attempts that failed."""
    return f"failed {_times(failures)}, at first with: {reason or 'no message'}"


@dataclass(frozen=True, slots=True)
class Suspects:
    """Whom a failure was traced to.

    Attributes:
        beside: All that ran beside it.
        found: The smallest set beside which it failed again; empty if it never did.
        traced: Whether that was tried at all.
        confirmed: Whether it failed beside them each time and never alone.
        known: For whose lock it waited until its time was over, as :meth:`.waits.Waits.cause` tells: nothing is traced.
        doubt: A deadline for which it may have failed: nothing is traced.
    """

    beside: Sequence[PlannedCase]
    found: Sequence[PlannedCase] = ()
    traced: bool = False
    confirmed: bool = True
    known: str = ""
    doubt: Doubt | None = None

    def sentence(self) -> str:
        """What is known, for a person."""
        if self.known:
            return f"took longer than its time-out beside others{self.known}; passes alone"
        text = f"failed beside {_counted(len(self.beside), 'other test')} and passes alone"
        if self.doubt is not None:
            return f"{text}, maybe for the clock: there was {self.doubt}; {COUNTED}. {_MARK}"
        if not self.confirmed:
            return f"{text}; run again beside the same tests, and alone, it failed only sometimes: flaky, or by chance"
        if self.found:
            return f"{text}; fails again beside {_names(self.found)}"
        if self.traced:
            return f"{text}; beside them once more it passed too"
        return text

    def section(self) -> str:
        """The same at length, for the failure's report."""
        lines = [f"This test {self.sentence()}."]
        if not (self.found or self.known) and self.beside:
            lines += ["It ran beside:", *(f"  {one.case.nodeid}" for one in self.beside[:_NAMED])]
            if len(self.beside) > _NAMED:
                lines.append(f"  and {len(self.beside) - _NAMED} more")
        return "\n".join(lines)


async def suspects(
    beside: Sequence[PlannedCase], fails_beside: Callable[[Sequence[PlannedCase]], Awaitable[bool]]
) -> Suspects:
    """Halve the neighbours for as long as the failure comes back, then see whether it always does.

    Twice in a row too: a test that fails every second time, say, would else fit.
    """
    if not beside or not await fails_beside(beside):
        return Suspects(beside, traced=True)
    found, deadline = list(beside), clock.monotonic() + _TRACING
    for _ in range(_ROUNDS):
        middle = len(found) // 2
        for half in (found[:middle], found[middle:]):
            if half and len(half) < len(found) and clock.monotonic() < deadline and await fails_beside(half):
                found = half
                break
        else:
            break
    for others in (found, (), found, found):
        if await fails_beside(others) is not bool(others):
            return Suspects(beside, traced=True, confirmed=False)
    return Suspects(beside, found, traced=True)


def _kind(again: Again) -> str:
    """Whose time it takes to run it alone."""
    return "failures" if again.doubt is None else "doubts"


def _is_late(again: Again, alone: Execution) -> bool:
    """Whether an attempt alone failed by a deadline of the test's own."""
    missed = alone.alone is not None and alone.alone.has_missed(again.first.doubts)
    return missed or alone.tells_time_out


def _met_with_ease(again: Again, execution: Execution) -> list[Doubt]:
    """The deadlines in doubt that an attempt alone has shown to leave room."""
    alone = execution.alone
    return [] if alone is None else [doubt for doubt in again.first.doubts if alone.has_met_with_ease(doubt)]


def _expected(again: Again, alone: Execution) -> Doubt | None:
    """The deadline that a test met, and failed, beside others, and that was over each time when it passed alone.

    What failed by a time-out there did not fail because one didn't come.
    """
    first, noted = again.first, alone.alone
    if noted is None or again.failures != [first] or not again.failed_beside_others:
        return None
    if first.timed_out or first.tells_time_out:
        return None
    return next(filter(noted.always_misses, first.doubts), None)


def _narrow(again: Again) -> set[SharedFixture]:
    """Its shared fixtures that may change process-global state as long as they are up."""
    return {fixture for fixture in again.planned.case.shared if fixture.scope != "session"}


def _alone(planned: PlannedCase, reason: str) -> PlannedCase:
    lane: Lane = "pytest" if planned.lane == "pytest" else "exclusive"
    return replace(planned, lane=lane, reason=reason, ambient=())


def _names(cases: Sequence[PlannedCase]) -> str:
    return several([one.case.nodeid for one in cases])


def several(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    text = ", ".join(names[:_NAMED])
    return text if len(names) <= _NAMED else f"{text} and {len(names) - _NAMED} more"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
