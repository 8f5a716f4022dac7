"""One public suite under plain pytest and under ``atk run``, in one fresh tree, one after the other.

First ``atk run --explain-plan`` collects it, which tells why tests run alone and leaves all byte code cached, so that
neither of the two measured runs pays for it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from installed import Installed, environment
from limited_process import Ended, run

__all__ = ["Comparison", "Difference", "NothingRanError", "compare", "share"]

#: Seconds that one run of a suite may take; the longest takes 25.
_LIMIT = 150.0

_RECORDING = Path(__file__).parent / "recording"

_EXPLAINED = re.compile(r"^(?:alone on that loop|alone, by pytest's own protocol): (?P<reason>.+)$")


class NothingRanError(Exception):
    """A run of a suite ended without having run any test."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A test that came out otherwise: what pytest made of it, what ``atk run`` did, and the end of what they wrote."""

    nodeid: str
    plain: str
    engine: str
    words: str

    def __str__(self) -> str:
        return f"{self.nodeid}\n    pytest:  {self.plain}\n    atk run: {self.engine}\n" + "".join(
            f"    | {line}\n" for line in self.words.splitlines()
        )


@dataclass(frozen=True, slots=True)
class _Recorded:
    ended: Ended
    coroutines: frozenset[str]
    tests: int
    outcomes: Mapping[str, str]
    words: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was seen of one suite.

    Attributes:
        name: The suite's name and version.
        tests: How many tests pytest collected.
        plain_seconds: Wall time of pytest's process.
        engine_seconds: Wall time of ``atk run``'s.
        differences: What came out otherwise.
        asyncio: Coroutine tests whose loop is asyncio's.
        other: Coroutine tests that ask for another kind of loop (trio).
        shared: Those that ran beside others.
        reasons: Why the rest of :attr:`asyncio` did not, with counts.
    """

    name: str
    tests: int
    plain_seconds: float
    engine_seconds: float
    differences: tuple[Difference, ...]
    asyncio: int
    other: int
    shared: int
    reasons: Mapping[str, int]

    @property
    def lines(self) -> Iterator[str]:
        """What a reader wants to know."""
        ratio = self.engine_seconds / self.plain_seconds
        yield (
            f"{self.name:18}{self.tests:5} tests   pytest {self.plain_seconds:6.2f} s   "
            f"atk run {self.engine_seconds:6.2f} s   {ratio:4.2f} x   {len(self.differences)} differences"
        )
        yield f"    beside each other: {share(self.shared, self.asyncio, self.other)}"
        for reason, count in sorted(self.reasons.items(), key=lambda pair: -pair[1]):
            yield f"    {count:5} alone: {reason}"


def share(shared: int, asyncio: int, other: int) -> str:
    """The share of the coroutine tests that ran beside others, of those on asyncio and of all."""
    every = asyncio + other
    return (
        f"{shared} of {asyncio} coroutine tests on asyncio ({shared / max(asyncio, 1):.0%}), "
        f"{shared / max(every, 1):.0%} of {every} with those on trio"
    )


def compare(installed: Installed, folder: Path) -> Comparison:
    """Run a suite in an empty ``folder``, first under pytest, then under ``atk run``.

    Raises:
        TimeLimitError: A run did not end.
        NothingRanError: A run ended without having run any test; the message has the end of its output.
    """
    tree = installed.unpack(_new(folder / "tree"))
    explained = _recorded(installed, tree, _new(folder / "explained"), "atk", "run", "--explain-plan")
    plain = _recorded(installed, tree, _new(folder / "plain"), "pytest")
    report = folder / "report.json"
    engine = _recorded(installed, tree, _new(folder / "engine"), "atk", "run", "--report-json", str(report))
    for one in (plain, engine):
        if not one.outcomes:
            raise NothingRanError(f"{installed.suite.name}: no test ran; the process wrote:\n{one.ended.last_words}")
    reasons = dict(_reasons(explained.ended.out))
    other = {nodeid for nodeid in plain.coroutines if reasons.get(nodeid, "").endswith("of its own: trio")}
    asyncio = plain.coroutines - other
    lanes, notes = _lanes(report)
    alone = [nodeid for nodeid in sorted(asyncio) if lanes.get(nodeid) != "shared"]
    return Comparison(
        name=f"{installed.suite.name} {installed.suite.version}",
        tests=plain.tests,
        plain_seconds=plain.ended.seconds,
        engine_seconds=engine.ended.seconds,
        differences=tuple(_differences(plain, engine)),
        asyncio=len(asyncio),
        other=len(other),
        shared=len(asyncio) - len(alone),
        reasons=Counter(_reason(nodeid, reasons, notes) for nodeid in alone),
    )


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _recorded(installed: Installed, tree: Path, folder: Path, script: str, *arguments: str) -> _Recorded:
    record = folder / "record"
    record.touch()
    ended = run(
        [
            installed.script(script),
            *arguments,
            "-p",
            "public_recording",
            "-o",
            f"cache_dir={folder / 'cache'}",
            f"--basetemp={folder / 'tmp'}",
            *installed.suite.arguments,
        ],
        out=folder / "out",
        limit=_LIMIT,
        cwd=tree,
        environment=environment(PUBLIC_RECORD=str(record), PYTHONPATH=str(_RECORDING)),
    )
    items: dict[str, bool] = {}
    outcomes: dict[str, list[str]] = {"exit code": [str(ended.code)]}
    words: dict[str, str] = {"exit code": "\n".join(ended.out.splitlines()[-8:])}
    for kind, nodeid, *rest in map(json.loads, record.read_text().splitlines()):
        if kind == "item":
            items[nodeid] = rest[0]
            continue
        when, outcome, longrepr = rest
        if outcome != "passed" or when == "call":
            outcomes.setdefault(nodeid, []).append(f"{outcome} in {when}")
        if longrepr:
            words[nodeid] = "\n".join(longrepr.splitlines()[-8:])
    coroutines = frozenset(nodeid for nodeid, is_coroutine in items.items() if is_coroutine)
    shown = {nodeid: ", ".join(several) for nodeid, several in outcomes.items()}
    return _Recorded(ended, coroutines, len(items), shown if len(shown) > 1 else {}, words)


def _differences(plain: _Recorded, engine: _Recorded) -> Iterator[Difference]:
    for nodeid in sorted({*plain.outcomes, *engine.outcomes}):
        first, second = (one.outcomes.get(nodeid, "did not run") for one in (plain, engine))
        if first != second:
            words = engine.words.get(nodeid) or plain.words.get(nodeid, "")
            yield Difference(nodeid, first, second, words)


def _reasons(plan: str) -> Iterator[tuple[str, str]]:
    """The tests that a plan runs alone, each with the reason, from what ``--explain-plan`` writes."""
    reason = ""
    for line in plan.splitlines():
        if found := _EXPLAINED.match(line):
            reason = found["reason"]
        elif reason and line.startswith("  "):
            yield line[2:], reason
        else:
            reason = ""


def _lanes(report: Path) -> tuple[dict[str, str], dict[str, str]]:
    tests = json.loads(report.read_text())["tests"]
    return {test["nodeid"]: test["lane"] for test in tests}, {test["nodeid"]: test["note"] for test in tests}


def _reason(nodeid: str, reasons: Mapping[str, str], notes: Mapping[str, str]) -> str:
    return reasons.get(nodeid) or notes.get(nodeid) or "as expected it failed beside others, and was run again alone"
