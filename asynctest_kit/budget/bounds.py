"""What bounds a run: the steps of its critical path, summed by what they were for, each said in one sentence."""

from __future__ import annotations

from math import fsum
from typing import TYPE_CHECKING

from asynctest_kit.budget.entries import Attempt, Bound, BoundKind, Step, shown_name, waited
from asynctest_kit.budget.wording import duration, percent, several

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from asynctest_kit.budget.facts import Facts
    from asynctest_kit.engine.events import Cause

__all__ = ["bounds"]

_Group = tuple[BoundKind, str]
_Words = tuple[str, str]

_LANES = {
    "shared": ("places on the loop", "raise the concurrency, or make these tests faster"),
    "exclusive": ("the exclusive lane", "make these tests safe to run beside others"),
    "pytest": ("pytest's own lane", "make these tests async, so that they can run beside others"),
}

_SERVICE_REMEDIES = {
    "resolve": "set its provider in the settings, so that none is tried in vain",
    "pull": "have the image on the machine before the run",
    "prepare": "keep it up between runs: `atk up`",
    "migrate": "squash its migrations, or apply a dump of the schema",
}
#: From this share of a test's time on its waits for others' locks are what is to be mended.
_WAITS_SHARE = 0.3

_SERVICE_REMEDY = "keep it up between runs: `atk up`"

#: What keeps tests from running again, by the cause of their second attempts.
_MENDING: Mapping[Cause, str] = {
    "time-out": "mend the tests that hang, or give them a shorter time-out",
    "failure": "mend the tests that fail, or end the run at the first with `-x`",
    "expected failure": "skip the tests whose failure is expected, or don't run them (`xfail(run=False)`)",
    "deadlock": "write rows in the same order in all tests, or rows of each test's own",
    "deadline": "give those that met a deadline late, if at all, longer ones, or mark them `atk(exclusive=True)`",
    "state": "those that touched process-global state run alone from the start next time",
}

_OWN_PHASES = {
    "start-up": ("start-up", "import less in plugins and conftest.py, load fewer plugins"),
    "collect": ("collection", "import less at the top of test modules, collect fewer files"),
    "tear-down": ("the tear-down of shared fixtures", "make their tear-down shorter"),
    "end": ("the end (removal of services, reports)", "keep services up between runs: `atk up`"),
    "queue": ("waiting for a place on the loop", "raise the concurrency"),
    "idle": ("an idle loop", "look at the critical path in the JSON report"),
}

#: The tear-down of a run that ended early, which is also that of tests in the middle.
_CUT_OFF = ("ending the tests that were cut off, and all tear-downs,", "make their clean-up shorter")


def bounds(path: Sequence[Step], facts: Facts) -> tuple[Bound, ...]:
    """Return what is on the critical path, largest first; each second of the path counts once."""
    first = {attempt.nodeid: attempt for attempt in facts.first_begun}
    group_of = _grouping(path, first)
    groups: dict[_Group, list[Step]] = {}
    for step in path:
        groups.setdefault(group_of(step), []).append(step)
    on_path = {step.name for step in path if step.kind == "test"}
    held_up = {one.kept_from: one.nodeid for one in first.values() if one.kept_from and one.nodeid in on_path}
    found = (_bound(group, steps, facts, held_up) for group, steps in groups.items())
    return tuple(sorted(found, key=lambda bound: -bound.seconds))


def _grouping(path: Iterable[Step], tests: Mapping[str, Attempt]) -> Callable[[Step], _Group]:
    """Group a lane's tests, save one that takes at least half of their time on the path: it bounds the run itself."""
    by_test: dict[str, float] = {}
    by_lane: dict[str, float] = {}
    for step in path:
        if step.kind == "test":
            by_test[step.name] = by_test.get(step.name, 0.0) + step.seconds
            lane = _lane(step, tests)
            by_lane[lane] = by_lane.get(lane, 0.0) + step.seconds

    def group(step: Step) -> _Group:
        if step.kind in ("service", "fixture"):
            return step.kind, step.name

        if step.kind == "idle" and step.name:
            return "service", step.name

        if step.kind != "test":
            return step.kind, ""

        lane = _lane(step, tests)
        return ("test", step.name) if by_test[step.name] >= by_lane[lane] / 2 else ("lane", lane)

    return group


def _lane(step: Step, tests: Mapping[str, Attempt]) -> str:
    return tests[step.name].lane if step.name in tests else "shared"


def _bound(group: _Group, steps: Sequence[Step], facts: Facts, held_up: Mapping[str, str]) -> Bound:
    kind, name = group
    seconds = fsum(step.seconds for step in steps)
    if kind == "service":
        sentence, remedy = _of_service(name, steps, facts)
    elif kind == "fixture":
        sentence, remedy = _of_fixture(name, seconds, facts)
    elif kind == "test":
        sentence, remedy = _of_test(name, seconds, facts)
    elif kind == "again":
        sentence, remedy = _of_second_attempts(seconds, facts)
    elif kind == "lane":
        title, remedy = _LANES[name]
        count = several(len({step.name for step in steps}), "test")
        sentence = f"{title}: {count} one after the other, {duration(seconds)}"
    else:
        title, remedy = _CUT_OFF if kind == "tear-down" and facts.cut_off else _OWN_PHASES[kind]
        sentence = f"{title} takes {duration(seconds)}, {percent(seconds / facts.wall)} of the run"
    kept = [f"{held_up[one]} waited for {one}" for one in dict.fromkeys(step.name for step in steps) if one in held_up]
    if kept and kind in ("test", "lane"):
        sentence += f"; {kept[0]}{f' and {len(kept) - 1} more likewise' if kept[1:] else ''}, for they are kept apart"
        remedy = "give both rows and keys of their own, so that they need not be kept apart"
    return Bound(kind=kind, name=name, seconds=seconds, sentence=sentence, remedy=remedy)


def _of_service(name: str, steps: Sequence[Step], facts: Facts) -> _Words:
    phases: dict[str, float] = {}
    for step in steps:
        phases[step.part] = phases.get(step.part, 0.0) + step.seconds
    phase = max(phases, key=lambda part: phases[part])
    remedy = _SERVICE_REMEDIES.get(phase, _SERVICE_REMEDY)
    attempts = facts.first_begun
    waiting = [one for one in attempts if not facts.dependants[name].isdisjoint(one.needs)]
    ready = max(step.end for step in steps)
    effect = (
        "no test ran before it"
        if all(one.call_start >= ready for one in attempts)
        else f"{len(waiting)} of {several(len(attempts), 'test')} waited for it"
    )
    if facts.services[name].ready is None:
        spent = duration(fsum(step.seconds for step in steps))
        return f"{name} never was ready, and {several(len(waiting), 'test')} waited {spent} for it", "mend its start"

    return f"{name}'s {phase or 'start'} ({duration(phases[phase])}) bounds the run: {effect}", remedy


def _of_test(name: str, seconds: float, facts: Facts) -> _Words:
    sentence = f"one test of {duration(seconds)} is {percent(seconds / facts.wall)} of the run: {name}"
    attempt = next((one for one in facts.first_begun if one.nodeid == name), None)
    blocked = 0.0 if attempt is None else waited(attempt, facts.waits)
    if attempt is None or not blocked or blocked < _WAITS_SHARE * attempt.total:
        return sentence, "split it, or find what it waits for"

    longest = max((wait for wait in facts.waits if wait.nodeid == name), key=lambda wait: wait.seconds)
    sentence += f", of which it waited {duration(blocked)} for the lock of {longest.holder}"
    return sentence, f"give both rows and keys of their own: it waited for {longest.what}"


def _of_second_attempts(seconds: float, facts: Facts) -> _Words:
    causes = {one.cause for one in facts.second_attempts}
    count = several(len({one.nodeid for one in facts.second_attempts if one.cause != "tracing"}), "test")
    remedies = [remedy for cause, remedy in _MENDING.items() if cause in causes]
    return f"{count} ran again, alone: {duration(seconds)}", "; ".join(remedies)


def _of_fixture(name: str, seconds: float, facts: Facts) -> _Words:
    users = sum(name in test.needs for test in facts.tests)
    shown = shown_name(facts.fixtures[name], facts.services.values())
    sentence = f"the set-up of fixture {shown} ({duration(seconds)}) bounds the run"
    return (
        f"{sentence}: {several(users, 'test')} needed it",
        "make its set-up shorter, or split it so that tests need less",
    )
