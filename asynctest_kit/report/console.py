"""The report that a person reads after a run.

It stands on words and numbers: colour and bars only repeat them, so a CI log, a pipe and a terminal without colour or
without UTF-8 lose nothing. The one thing that is shortened is the folder part of a long node id.
"""

from __future__ import annotations

from itertools import groupby, islice
from math import fsum
from operator import itemgetter
from textwrap import wrap
from typing import TYPE_CHECKING, Final

import msgspec
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from asynctest_kit.budget import shown_name
from asynctest_kit.budget.entries import covered
from asynctest_kit.budget.wording import duration, percent, several

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from asynctest_kit.budget import Ledger, SecondAttempts, Service, Step, Test, Verdict
    from asynctest_kit.engine.events import Lane

__all__ = ["render", "stdout"]

_Stage = tuple[str, str]

_LABEL: Final = 14
_SLOWEST: Final = 5
_UNFINISHED: Final = 10
_NAMED: Final = 5
_REMEDIES: Final = 3
_DIFFERENCES: Final = 20
_LEAST_SHARE: Final = 0.01  # of the wall, for a step to be named in the critical path's line
_LEAST_SHOWN: Final = 0.0005  # seconds; less reads 0 ms
_WIDEST: Final = 100

_STYLES: Final = {
    "start-up": "blue",
    "collect": "cyan",
    "services": "magenta",
    "fixtures": "yellow",
    "tests": "green",
    "again": "red",
    "idle": "dim",
    "tear-down": "yellow",
    "end": "blue",
}

_VERDICTS: Final = {
    "interference": "failed beside others and passed alone",
    "flaky": "failed, and passed when run again",
    "deadlock": "fell victim to a deadlock, and passed when run again",
    "doubtful": "passed, but may have missed a deadline: whether they did was not found out",
    "moved": "touched process-global state, stopped and run alone; so from the start next time",
}

#: Why tests ran again, to be counted.
_CAUSES: Final = {
    "time-out": "time-out{s}",
    "failure": "failure{s}",
    "expected failure": "expected failure{s}",
    "state": "stop{s} at process-global state",
    "deadlock": "deadlock{s}",
    "deadline": "deadline{s} that may have been missed",
    "tracing": "attempt{s} to find who made them fail",
}

_PHASES: Final = {
    "start-up": "start-up",
    "collect": "collection",
    "services": "waiting for services",
    "fixtures": "fixtures",
    "tests": "tests",
    "again": "second attempts",
    "idle": "idle",
    "tear-down": "tear-down",
    "end": "end",
}


def render(ledger: Ledger, verdict: Verdict, *, console: Console, is_short: bool = False) -> None:
    """Print the report of a run to ``console``, as wide as it is; a short one is the verdict and the bottleneck."""
    page = _Page(console)
    if is_short:
        page.line(*_headline(ledger, verdict, page))
        _print_bottleneck(ledger, page)
        return
    page.rule("asynctest_kit")
    page.line(*_headline(ledger, verdict, page))
    if ledger.complete and not verdict.held:
        _print_remedies(ledger, verdict, page)
    if ledger.unfinished:
        _print_unfinished(ledger, page)
    if ledger.wall:
        _print_phases(ledger, page)
    _print_services(ledger.services, page)
    _print_slowest(ledger, page)
    _print_verdicts(ledger, page)
    _print_audits(ledger, page)
    _print_calls(ledger, page)
    _print_time_outs(ledger, page)
    _print_waits(ledger, page)
    _print_findings(ledger, page)
    _print_concurrency(ledger, page)
    _print_bounds(ledger, page)


def stdout() -> Console:
    """Return a console on standard output: in colour on a terminal unless NO_COLOR is set, 80 columns wide in a log."""
    return Console(highlight=False)


class _Glyphs(msgspec.Struct, frozen=True):
    full: str
    empty: str
    sliver: str
    dot: str
    arrow: str
    cut: str


_UNICODE: Final = _Glyphs("█", "░", "▏", "·", "→", "…")
_ASCII: Final = _Glyphs("#", "-", "|", "|", "->", "...")


class _Page:
    """A console, with the signs that its encoding has."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.glyphs = _ASCII if console.options.ascii_only else _UNICODE
        self.width = min(console.width, _WIDEST)
        self.dot = f" {self.glyphs.dot} "

    def rule(self, title: str) -> None:
        line = "-" if self.glyphs is _ASCII else "─"
        self._console.print(Rule(Text(title, "bold"), align="left", characters=line, style="dim"), width=self.width)

    def line(self, *pieces: str | tuple[str, str]) -> None:
        """Print one line, never wrapped: a log keeps it whole, a terminal breaks it where it ends."""
        self._console.print(Text.assemble(*pieces), soft_wrap=True, highlight=False)

    def labelled(self, label: str, *pieces: str | tuple[str, str]) -> None:
        """Print a line whose label stands in the first column; an empty label continues the one above."""
        self.line((f"{label:<{_LABEL - 1}} ", "bold"), *pieces)

    def paragraph(self, label: str, text: str, *, lead: str = "", style: str = "") -> None:
        """Print ``text`` after ``lead``, over as many lines as it needs; a long word is kept whole."""
        room = self.width - _LABEL - len(lead)
        for line in wrap(text, room, break_long_words=False, break_on_hyphens=False):
            self.labelled(label, lead, (line, style))
            label, lead = "", " " * len(lead)

    def listed(self, label: str, words: Iterable[str], joint: str) -> None:
        """Print ``words``, joined, over as many lines as they need."""
        room = self.width - _LABEL - len(joint.rstrip())
        line = ""
        for word in words:
            if line and len(line) + len(joint) + len(word) > room:
                self.labelled(label, line + joint.rstrip())
                label, line = "", word
            else:
                line = f"{line}{joint}{word}" if line else word
        self.labelled(label, line)

    def nodeid(self, nodeid: str, room: int) -> str:
        """Leave out leading folders as far as ``nodeid`` needs to fit; its file and name always stay."""
        path, colons, name = nodeid.partition("::")
        folders = path.split("/")
        shortened = nodeid
        while len(shortened) > room and len(folders) > 1:
            folders.pop(0)
            shortened = f"{self.glyphs.cut}/{'/'.join(folders)}{colons}{name}"
        return shortened


def _headline(ledger: Ledger, verdict: Verdict, page: _Page) -> Iterator[str | tuple[str, str]]:
    if not ledger.complete:
        word, style = "INTERRUPTED", "bold yellow"
    elif verdict.held:
        word, style = "held", "bold green"
    else:
        word, style = f"MISSED by {duration(verdict.wall - verdict.budget)}", "bold red"
    yield f"budget {_round(verdict.budget)}{page.dot}used {duration(verdict.wall)} ({percent(verdict.share)}){page.dot}"
    yield word, style
    room = 16
    filled = min(room, round(verdict.share * room) or 1)
    yield "  "
    yield page.glyphs.full * filled, style
    yield page.glyphs.empty * (room - filled), "dim"


def _round(budget: float) -> str:
    """Write a budget as it was probably given."""
    return f"{budget:g} s"


def _print_remedies(ledger: Ledger, verdict: Verdict, page: _Page) -> None:
    page.line()
    page.labelled("over budget", ("What to change, by what it can gain at most:", "bold red"))
    for bound in ledger.bounds[:_REMEDIES]:
        page.paragraph("", bound.sentence, lead=f"{duration(bound.seconds):>7}  ")
        page.paragraph("", bound.remedy, lead=f"{page.glyphs.arrow:>7}  ", style="cyan")
    if ledger.lower_bound > verdict.budget:
        longest = duration(ledger.lower_bound)
        page.paragraph("", f"More concurrency alone can't do it: the longest chain takes {longest}.")


def _print_unfinished(ledger: Ledger, page: _Page) -> None:
    page.line()
    rest = len(ledger.unfinished) - _UNFINISHED
    waiting = {one.nodeid: one.waiting for one in ledger.cut_off}
    label = "not finished"
    for nodeid in ledger.unfinished[:_UNFINISHED]:
        where = f"  {waiting[nodeid]}" if waiting.get(nodeid) else ""
        page.labelled(label, (page.nodeid(nodeid, page.width - _LABEL), "yellow"), where)
        label = ""
    if rest > 0:
        page.labelled("", f"and {several(rest, 'more test')}")


def _print_phases(ledger: Ledger, page: _Page) -> None:
    page.line()
    label = "wall time"
    lasting = [phase for phase in ledger.phases if phase.seconds >= _LEAST_SHOWN] or list(ledger.phases)
    title = max(len(_PHASES[phase.name]) for phase in lasting)
    room = page.width - _LABEL - title - 20
    before = 0.0
    for phase in lasting:
        share = phase.seconds / ledger.wall
        start, end = round(before * room), round((before + share) * room)
        before += share
        bar = page.glyphs.full * (end - start) or page.glyphs.sliver
        page.labelled(
            label,
            f"{_PHASES[phase.name]:<{title}} {duration(phase.seconds):>9} {percent(share):>6}  ",
            " " * start,
            (bar, _STYLES[phase.name]),
        )
        label = ""
    if kept := [f"{name} {duration(seconds)}" for name, seconds in _kept_at_the_end(ledger) if seconds >= _LEAST_SHOWN]:
        page.paragraph("", f"the end kept a snapshot for the next runs to start from: {', '.join(kept)}")


def _kept_at_the_end(ledger: Ledger) -> Iterator[tuple[str, float]]:
    """Whose data was kept when the tests were over, and what of the end that took."""
    over = max((piece.start for piece in ledger.slices if piece.phase == "end"), default=ledger.wall)
    for service in ledger.services:
        spans = [(max(span.start, over), span.end) for span in service.spans if span.phase == "snapshot"]
        yield service.name, covered((start, end) for start, end in spans if end > start)


def _print_services(services: Sequence[Service], page: _Page) -> None:
    if services:
        page.line()
    for service in services:
        given = ", ".join(filter(None, (service.provider, service.detail)))
        if service.ready is not None:
            page.paragraph(service.name, given)
        else:
            page.labelled(service.name, ("never was ready", "bold red"))
        phases = {span.phase: service.seconds(span.phase) or 0.0 for span in service.spans}
        words = [f"{phase} {duration(seconds)}" for phase, seconds in phases.items() if seconds >= _LEAST_SHOWN]
        if service.ready is not None and service.provider != "external" and "ready" not in phases:
            words.insert(0, "was up already")
        if words:
            page.listed("", words, page.dot)


def _print_slowest(ledger: Ledger, page: _Page) -> None:
    tests = ledger.slowest(_SLOWEST)
    if not tests:
        return

    page.line()
    page.labelled("slowest tests", ("with own set-up and tear-down; of that in the call", "dim"))
    for test in tests:
        page.line(f"{duration(test.total):>10}{duration(test.call):>10}  ", *_test(test, page, ledger.waited(test)))


def _test(test: Test, page: _Page, blocked: float) -> Iterator[str | tuple[str, str]]:
    yield page.nodeid(test.nodeid, page.width - 22)
    if test.outcome not in ("passed", "xfailed"):
        yield f"  {test.outcome}", "red" if test.outcome in ("failed", "error") else "yellow"
    if blocked >= _LEAST_SHOWN:
        yield f"  waited {duration(blocked)} for locks", "yellow"


def _print_verdicts(ledger: Ledger, page: _Page) -> None:
    for verdict, meaning in _VERDICTS.items():
        tests = [test for test in ledger.tests if test.verdict == verdict]
        if not tests:
            continue

        page.line()
        page.paragraph(verdict, f"{several(len(tests), 'test')} {meaning}")
        for test in tests[:_NAMED]:
            page.line("  ", page.nodeid(test.nodeid, page.width - 2))
            page.paragraph("", test.note)
        if len(tests) > _NAMED:
            page.labelled("", f"and {len(tests) - _NAMED} more")


def _print_audits(ledger: Ledger, page: _Page) -> None:
    if ledger.audits:
        page.line()
    label = "audit"
    for audit in ledger.audits:
        if audit.is_same:
            words = (f"as it was before the tests, in all of {several(audit.things, 'thing')}", "green")
        else:
            words = ("NOT as it was before the tests", "bold red")
        page.labelled(label, f"{audit.service}: ", words)
        label = ""
        for one in audit.differences[:_DIFFERENCES]:
            note = " (as expected: no rung isolates it)" if one.is_known else ""
            page.paragraph("", f"{one.text}{note}", style="" if one.is_known else "red")
            if one.nodeid:
                page.line(" " * _LABEL, f"by {page.nodeid(one.nodeid, page.width - _LABEL - 3)}")
        if len(audit.differences) > _DIFFERENCES:
            page.labelled("", f"and {len(audit.differences) - _DIFFERENCES} more")
    if any(not audit.is_same for audit in ledger.audits) and not any(
        one.nodeid for audit in ledger.audits for one in audit.differences
    ):
        page.labelled("", "Which test did it: atk run --audit-isolation=each")


def _print_calls(ledger: Ledger, page: _Page) -> None:
    if not ledger.calls:
        return

    page.line()
    total = duration(fsum(one.seconds for one in ledger.calls))
    count = sum(one.count for one in ledger.calls)
    page.labelled(
        "calls", (f"{several(count, 'call')} of {several(len(ledger.calls), 'route')}, {total} together", "dim")
    )
    for one in ledger.calls[:_NAMED]:
        more = f"{page.dot}{several(one.count, 'call')}, at most {duration(one.longest)}"
        page.line(f"{duration(one.seconds):>10}  {one.method} {one.route}", (more, "dim"))
    if len(ledger.calls) > _NAMED:
        page.labelled("", f"and {len(ledger.calls) - _NAMED} more")


def _print_time_outs(ledger: Ledger, page: _Page) -> None:
    if not ledger.time_outs:
        return

    page.line()
    lost = duration(fsum(one.seconds for one in ledger.time_outs))
    page.labelled("time-outs", (f"{several(len(ledger.time_outs), 'wait')} for nothing, {lost} together", "dim"))
    for one in sorted(ledger.time_outs, key=lambda one: -one.seconds)[:_NAMED]:
        page.line(f"{duration(one.seconds):>10}  ", page.nodeid(one.nodeid, page.width - 12))
        page.paragraph("", f"waited for {one.what}")
    if len(ledger.time_outs) > _NAMED:
        page.labelled("", f"and {len(ledger.time_outs) - _NAMED} more")


def _print_waits(ledger: Ledger, page: _Page) -> None:
    if not ledger.waits:
        return

    page.line()
    total = duration(fsum(wait.seconds for wait in ledger.waits))
    page.labelled("lock waits", (f"{several(len(ledger.waits), 'wait')} for locks of others, {total} together", "dim"))
    for wait in sorted(ledger.waits, key=lambda wait: -wait.seconds)[:_NAMED]:
        page.line(f"{duration(wait.seconds):>10}  ", _who(wait.nodeid, page, is_test=wait.is_test))
        page.paragraph("", f"waited for {wait.what}, held by {wait.holder}")
        if wait.statement:
            page.paragraph("", f"its statement: {wait.statement}", style="dim")
        if wait.holder_statement:
            page.paragraph("", f"the holder's last: {wait.holder_statement}", style="dim")
    if len(ledger.waits) > _NAMED:
        page.labelled("", f"and {len(ledger.waits) - _NAMED} more")
    if any(wait.is_test and wait.holder_is_test for wait in ledger.waits):
        page.labelled("", "The next run doesn't run these pairs beside each other.")


def _who(name: str, page: _Page, *, is_test: bool) -> str:
    return page.nodeid(name, page.width - 12) if is_test else name


def _print_findings(ledger: Ledger, page: _Page) -> None:
    found = ledger.findings
    if not found:
        return

    page.line()
    page.labelled("findings", ("what tests did to others or left behind", "dim"))
    for finding in found[:_NAMED]:
        page.line("  ", page.nodeid(finding.nodeid, page.width - 2))
        page.paragraph("", finding.text)
    if len(found) > _NAMED:
        page.labelled("", f"and {len(found) - _NAMED} more")


def _print_concurrency(ledger: Ledger, page: _Page) -> None:
    if not ledger.tests:
        return

    page.line()
    limit = f" of {ledger.concurrency}" if ledger.concurrency else ""
    tests = several(sum(lane.tests for lane in ledger.lanes), "test")
    words = [
        f"{tests}, {duration(ledger.test_seconds)} in {duration(ledger.tests_wall)}",
        f"{ledger.effective_concurrency:.1f} at once on average",
        f"{ledger.peak}{limit} at most",
    ]
    page.listed("concurrency", words, page.dot)
    if [lane.lane for lane in ledger.lanes] != ["shared"]:
        lanes = (f"{lane.lane}: {several(lane.tests, 'test')} in {duration(lane.wall)}" for lane in ledger.lanes)
        page.listed("lanes", lanes, page.dot)
    if ledger.second_attempts.attempts:
        page.paragraph("run again", _second_attempts(ledger.second_attempts))


def _second_attempts(second: SecondAttempts) -> str:
    causes = (f"{count} {_CAUSES[cause].format(s='' if count == 1 else 's')}" for cause, count in second.causes.items())
    return f"{several(second.tests, 'test')}, alone, in {duration(second.wall)} ({', '.join(causes)})"


def _print_bounds(ledger: Ledger, page: _Page) -> None:
    if not ledger.bounds:
        return

    page.line()
    _print_bottleneck(ledger, page)
    page.listed("critical path", _stages(ledger, page), f" {page.glyphs.arrow} ")
    if ledger.tests and not ledger.unfinished:
        gain = "" if ledger.lower_bound < ledger.wall * (1 - _LEAST_SHARE) else ", which this run reached"
        page.labelled("lower bound", f"{duration(ledger.lower_bound)} with unlimited concurrency{gain}")


def _print_bottleneck(ledger: Ledger, page: _Page) -> None:
    # A test that was only cut off bounds nothing.
    bounds = (bound for bound in ledger.bounds if bound.kind != "test" or bound.name not in ledger.unfinished)
    for bound in islice(bounds, 1):
        page.paragraph("bottleneck", bound.sentence, style="bold")


def _stages(ledger: Ledger, page: _Page) -> Iterator[str]:
    """Tell the critical path in its order, what belongs together as one, what is too short to matter left out."""
    lanes = {test.nodeid: test.lane for test in ledger.tests}
    for stage, members in groupby(_with_stages(ledger.critical_path, lanes), key=itemgetter(0)):
        steps = [step for _, step in members]
        seconds = sum(step.seconds for step in steps)
        if seconds >= _LEAST_SHARE * ledger.wall:
            yield f"{_stage_name(stage, steps, ledger, page)} {duration(seconds)}"


def _with_stages(path: Sequence[Step], lanes: Mapping[str, Lane]) -> list[tuple[_Stage, Step]]:
    """Name each step's stage: a service with its phases, a lane's tests one after the other; a queue is what queued."""
    staged: list[tuple[_Stage, Step]] = []
    stage: _Stage = ("queue", "")
    for step in reversed(path):
        if step.kind in ("service", "idle") and step.name:
            stage = ("service", step.name)
        elif step.kind == "again":
            stage = ("again", "")
        elif step.kind == "test":
            stage = ("test", lanes.get(step.name, "shared"))
        elif step.kind != "queue":
            stage = (step.kind, step.name)
        staged.append((stage, step))
    return staged[::-1]


def _stage_name(stage: _Stage, steps: Sequence[Step], ledger: Ledger, page: _Page) -> str:
    kind, name = stage
    if kind == "service":
        longest = max(steps, key=lambda step: step.seconds)
        return f"{name} ({longest.part})" if longest.part else name

    if kind == "fixture":
        fixture = next(fixture for fixture in ledger.fixtures if fixture.id == name)
        return f"fixture {shown_name(fixture, ledger.services)}"

    if kind == "again":
        return f"{several(len({step.name for step in steps if step.kind == 'again'}), 'test')} again"

    if kind != "test":
        return _PHASES.get(kind, kind)

    tests = list(dict.fromkeys(step.name for step in steps if step.kind == "test"))
    if len(tests) == 1:
        return page.nodeid(tests[0], page.width - _LABEL - 12)

    return several(len(tests), "test" if name == "shared" else f"{name} test")
