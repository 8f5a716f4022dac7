"""Tests that wait for each other's locks: who does now, who did, and what comes of it.

The engine knows no database. Whoever knows of waits finds this board in pytest's stash (see :mod:`.stashed`), and tells
it each time all that there are. It makes events of them, lets time-outs say whom their test waited for, and has pairs
of tests remembered that are better not run beside each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynctest_kit.engine import clock
from asynctest_kit.engine.events import FindingMade, WaitFinished

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from asynctest_kit.engine.events import Sink
    from asynctest_kit.engine.memory import Memory
    from asynctest_kit.engine.plan import PlannedCase

__all__ = ["Wait", "Waited", "Waits"]

#: A wait is named with a time-out if it was at least this share of the time.
_NAMED_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Wait:
    """One who waits for another one's lock.

    Attributes:
        waiter: The test's node id; of what is no test a description.
        holder: The same of who has the lock.
        what: What is waited for, to be read after "waits for".
        waiter_is_test: Whether ``waiter`` is a node id.
        holder_is_test: Whether ``holder`` is.
        statement: What the waiter runs; empty if unknown.
        holder_statement: What the holder ran last.
        sessions: What tells this wait from others of the waiter's; empty if the holder's name does.
    """

    waiter: str
    holder: str
    what: str
    waiter_is_test: bool = True
    holder_is_test: bool = True
    statement: str = ""
    holder_statement: str = ""
    sessions: str = ""

    def __str__(self) -> str:
        return f"{self.waiter} waits for {self.what}, held by {self.holder}"


@dataclass(frozen=True, slots=True)
class Waited:
    """A wait and its time, on ``CLOCK_MONOTONIC``: from its statement's start until it was last seen."""

    wait: Wait
    start: float
    end: float


#: Where somebody waits, who, and for whom, by a name that stays the same while it waits.
_Key = tuple[str, str, str]


class Waits:
    """The waits of one run.

    Args:
        sink: Is told of each that is over.
        memory: Is told of each pair of tests.
        cases: The tests that run beside each other, by node id.
    """

    def __init__(self, sink: Sink, memory: Memory, cases: Mapping[str, PlannedCase]) -> None:
        self._sink = sink
        self._memory = memory
        self._cases = cases
        self._open: dict[_Key, Waited] = {}
        self._over: dict[str, list[Waited]] = {}

    @property
    def now(self) -> tuple[Waited, ...]:
        """Those that there are; may be asked from any thread."""
        return tuple(self._open.values())

    def tell(self, place: str, found: Iterable[tuple[Wait, float]]) -> None:
        """Take all waits that there are now at one place, and for how many seconds each has lasted."""
        now = clock.monotonic()
        still: dict[_Key, Waited] = {}
        for wait, seconds in found:
            key = (place, wait.waiter, wait.sessions or wait.holder)
            known = self._open.get(key) or still.get(key)
            still[key] = Waited(known.wait if known else wait, known.start if known else now - seconds, now)
        gone = [waited for key, waited in self._open.items() if key[0] == place and key not in still]
        self._open = {key: waited for key, waited in self._open.items() if key[0] != place} | still
        for waited in gone:
            self._finish(waited)

    def note(self, nodeid: str, text: str, detail: str = "") -> None:
        """Take a finding; see :class:`.events.FindingMade`."""
        self._sink(FindingMade(nodeid=nodeid, text=text, detail=detail))

    def of(self, nodeid: str, start: float, end: float) -> list[Waited]:
        """The waits of a test within a time, longest first."""
        cut = (Waited(one.wait, max(one.start, start), min(one.end, end)) for one in self._of(nodeid))
        return sorted((one for one in cut if one.end > one.start), key=lambda one: one.start - one.end)

    def cause(self, nodeid: str, start: float) -> str:
        """For whom a test has waited since ``start``, to be read after what that made late; empty if it has not."""
        now = clock.monotonic()
        long = [one for one in self.of(nodeid, start, now) if one.end - one.start > _NAMED_SHARE * (now - start)]
        if not long:
            return ""
        one = long[0]
        doing = f" ({one.wait.holder_statement})" if one.wait.holder_statement else ""
        return f", of which it waited {one.end - one.start:.1f} s for {one.wait.what}, held by {one.wait.holder}{doing}"

    def deadlocked(self, nodeid: str, owners: Collection[str]) -> tuple[str, ...]:
        """With which other tests a test was in a deadlock that it is the victim of; the pairs are remembered.

        Args:
            nodeid: The victim.
            owners: The tests that have, or had, the sessions of which the server told.
        """
        seen = {one.wait.holder for one in self._of(nodeid) if one.wait.holder_is_test}
        others = set(owners) - {nodeid}
        others = others & seen or others  # a session may be another test's by now
        for other in sorted(others):
            self._keep_apart(nodeid, other, "was the victim of a deadlock over a lock")
        return tuple(sorted(others))

    def _of(self, nodeid: str) -> list[Waited]:
        now = clock.monotonic()
        still = (Waited(one.wait, one.start, now) for one in self._open.values() if one.wait.waiter == nodeid)
        return [*self._over.get(nodeid, ()), *still]

    def _keep_apart(self, nodeid: str, other: str, reason: str) -> None:
        one, two = self._cases.get(nodeid), self._cases.get(other)
        if one is not None and two is not None and one is not two:
            self._memory.keep_apart(one.case.item, two.case.item, reason)

    def _finish(self, waited: Waited) -> None:
        wait = waited.wait
        self._over.setdefault(wait.waiter, []).append(waited)
        self._sink(
            WaitFinished(
                nodeid=wait.waiter,
                holder=wait.holder,
                what=wait.what,
                is_test=wait.waiter_is_test,
                holder_is_test=wait.holder_is_test,
                statement=wait.statement,
                holder_statement=wait.holder_statement,
                start=waited.start,
                end=waited.end,
            )
        )
        self._keep_apart(wait.waiter, wait.holder, f"waited {waited.end - waited.start:.1f} s for {wait.what}")
