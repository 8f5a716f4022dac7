"""Runs a suite under plain pytest and under the engine, and tells what came of each test in both."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import preloaded

HERE = Path(__file__).parent
SUITES = HERE / "suites"

#: What differs from process to process without meaning anything.
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
_TASK = re.compile(r"Task-\d+")

#: Frames of a traceback in pytest's short style, and those of what runs the tests.
_FRAME = re.compile(r"^(?=\S+:\d+: in )", re.MULTILINE)
_RUNNER = re.compile(r"\S*/(anyio|asyncio|asynctest_kit|_pytest|pluggy)/\S+:\d+: in ")


@dataclass(frozen=True, slots=True)
class Phase:
    """One report."""

    when: str
    outcome: str
    longrepr: str
    wasxfail: str | None
    sections: tuple[tuple[str, str], ...]
    properties: tuple[tuple[str, object], ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """What came of one run of a suite.

    Attributes:
        code: Exit code of the process.
        out: What it wrote to the terminal.
        phases: The reports of each test, in their order.
        warnings: Warnings of each test (key ``""``: of none), by node id.
        trail: What fixtures and tests noted.
        events: The engine's events; empty under plain pytest.
    """

    code: int
    out: str
    phases: dict[str, list[Phase]]
    warnings: dict[str, list[str]]
    trail: list[list[str]]
    events: list[dict]

    def outcome(self, nodeid: str) -> str:
        """The outcomes of a test's phases in one line, e.g. ``passed passed error`` for a failed tear-down."""
        return " ".join(_word(phase) for phase in self.phases[nodeid])

    @property
    def outcomes(self) -> dict[str, str]:
        """Outcomes of all tests."""
        return {nodeid: self.outcome(nodeid) for nodeid in self.phases}

    @property
    def longreprs(self) -> dict[str, str]:
        """What pytest printed of each phase that has something to say."""
        return {
            f"{nodeid} {phase.when}": normal(phase.longrepr)
            for nodeid, phases in self.phases.items()
            for phase in phases
            if phase.longrepr
        }

    def sections(self, nodeid: str) -> dict[str, str]:
        """Captured output of one test, by section name."""
        return dict(self.phases[nodeid][-1].sections)

    def noted(self, *words: str) -> list[list[str]]:
        """Lines of the trail that begin with ``words``."""
        return [line for line in self.trail if line[: len(words)] == list(words)]


def normal(text: str) -> str:
    """``text`` (of ``--tb=short``) without what differs from run to run, and without frames of what runs the tests."""
    frames = _FRAME.split(_TASK.sub("Task-N", _ADDRESS.sub("0x...", text)))
    return "".join(frame for frame in frames if not _RUNNER.match(frame))


def _word(phase: Phase) -> str:
    if phase.wasxfail is not None:
        return {"skipped": "xfailed", "passed": "xpassed"}.get(phase.outcome, phase.outcome)
    return phase.outcome


class Bench:
    """Runs suites; keeps what they write in a folder of its own.

    Args:
        folder: An empty folder for this bench.
        suite: The suite's folder.
    """

    def __init__(self, folder: Path, suite: Path) -> None:
        self.folder = folder
        self.suite = suite
        self._runs = 0

    def plain(self, *arguments: str, **environment: str) -> Finished:
        """Run the suite under plain pytest."""
        return self._finish(self.start_plain(*arguments, **environment))

    def engine(self, *arguments: str, concurrency: int = 64, timeout: float = 60, **environment: str) -> Finished:
        """Run the suite under the engine."""
        return self._finish(self.start(*arguments, concurrency=concurrency, timeout=timeout, **environment))

    def start_plain(self, *arguments: str, **environment: str) -> Started:
        """Start plain pytest."""
        return self._start([], arguments, environment)

    def start(self, *arguments: str, concurrency: int = 64, timeout: float = 60, **environment: str) -> Started:
        """Start the engine."""
        place = self._place()
        driver = [str(HERE / "under_engine.py"), str(place / "events"), str(concurrency), str(timeout)]
        return self._start(driver, arguments, environment, place)

    def _place(self) -> Path:
        self._runs += 1
        place = self.folder / f"run-{self._runs}"
        place.mkdir(parents=True)
        return place

    def _start(
        self, driver: list[str], arguments: tuple[str, ...], environment: dict[str, str], place: Path | None = None
    ) -> Started:
        place = place or self._place()
        for name in ("reports", "trail", "events"):
            (place / name).touch()
        command = [
            *(driver or ["-m", "pytest"]),
            "--rootdir=.",
            "-cpytest.ini",
            "-panyio.pytest_plugin",
            "-preport_lines",
            f"-ocache_dir={self.folder / 'cache'}",
            f"--basetemp={place / 'tmp'}",
            *arguments,
        ]
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))},
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(HERE),
            "SUITE_REPORTS": str(place / "reports"),
            "SUITE_TRAIL": str(place / "trail"),
            **environment,
        }
        with (place / "out").open("wb") as out:
            process = preloaded.start(command, cwd=self.suite, env=variables, out=out, err=out)
        return Started(process, place)

    def _finish(self, started: Started) -> Finished:
        return started.finish()


@dataclass(frozen=True, slots=True)
class Started:
    """A run that goes on."""

    process: preloaded.Process
    place: Path

    @property
    def trail(self) -> list[list[str]]:
        """What was noted so far."""
        return [line.split() for line in (self.place / "trail").read_text().splitlines()]

    def finish(self, limit: float = 60) -> Finished:
        """Wait for the end, ``limit`` seconds at most, and read what the run wrote."""
        code = self.process.wait(limit)
        out = (self.place / "out").read_text(errors="backslashreplace")
        if code is None:
            self.process.send_signal(signal.SIGKILL)
            raise AssertionError(f"the run did not end within {limit} s; it wrote:\n{out}")
        phases: dict[str, list[Phase]] = defaultdict(list)
        warnings: dict[str, list[str]] = defaultdict(list)
        for line in (self.place / "reports").read_text().splitlines():
            report = json.loads(line)
            nodeid, when = report.pop("nodeid"), report["when"]
            if when == "warning":
                warnings[nodeid].append(report["longrepr"])
                continue
            report["sections"] = tuple(map(tuple, report["sections"]))
            report["properties"] = tuple(map(tuple, report["properties"]))
            phases[nodeid].append(Phase(**report))
        events = [json.loads(line) for line in (self.place / "events").read_text().splitlines()]
        return Finished(code, out, dict(phases), dict(warnings), self.trail, events)


def both(bench: Bench, *arguments: str, **environment: str) -> tuple[Finished, Finished]:
    """Run a suite under plain pytest and under the engine, both at once."""
    first, second = bench.start_plain(*arguments, **environment), bench.start(*arguments, **environment)
    return first.finish(), second.finish()


def faults_of(trail: list[list[str]]) -> list[str]:
    """What a trail tells of fixtures that lived wrongly; nothing, if each was torn down once, after its users."""
    faults: list[str] = []
    up: dict[str, list[str]] = {}
    down: set[str] = set()
    running: dict[str, list[str]] = {}
    for kind, *words in trail:
        if kind == "up":
            value, *needs = words
            faults += [f"{value} was set up over {need}, which is down" for need in needs if need not in up]
            up[value] = needs
        elif kind == "down":
            (value,) = words
            if value in down:
                faults.append(f"{value} was torn down twice")
            faults += [f"{value} was torn down before {other}" for other, needs in up.items() if value in needs]
            faults += [f"{value} was torn down under {test}" for test, values in running.items() if value in values]
            up.pop(value, None)
            down.add(value)
        elif kind == "start":
            test, *values = words
            faults += [f"{test} used {value}, which is not up" for value in values if value not in up]
            running[test] = values
        elif kind == "end":
            running.pop(words[0], None)
    faults += [f"{value} was never torn down" for value in up]
    return faults


def set_ups(trail: list[list[str]], name: str) -> int:
    """How often the fixture ``name`` was set up."""
    return sum(1 for line in trail if line[0] == "up" and line[1].partition("#")[0] == name)
