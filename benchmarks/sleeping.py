"""500 tests that each await 50 ms: ``atk run`` beside other ways to run them, in one run.

Two figures for each: the whole process, from spawn to exit, and the tests alone, from the first one's start to the
last one's end (taken from pytest's own reports on all sides; that every test passed is checked). The floor is a bare
asyncio script that awaits the same coroutines with the same concurrency.

Each runs the same suite but for the mark that it wants, in one environment, started as its users start it: with the
pytest plugins that are installed, but without the plugins of the others here that run async tests, and with warnings
off, of which some print thousands of lines. ``--lean`` turns plugin autoload off and names each one's own plugins, so
that nobody pays for what another has installed. pytest-asyncio-concurrent knows no limit: it starts all tests at once.

    python benchmarks/sleeping.py [--check] [--tests N] [--rounds N] [--concurrency N] [--lean]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import _aims
import _environment
from _plugins import ANYIO, CONCURRENT, COOPERATIVE, XDIST, Plugin, chosen

if TYPE_CHECKING:
    import argparse

_IMPORTS = """
import anyio
import pytest
"""

#: No parameter: asyncio-concurrent can't have one under pytest 9.2.
_TEST = """

@pytest.mark.{mark}
async def test_waits_{number}():
    await anyio.sleep(0.05)
"""

_CONFTEST = """
import json
import os

import pytest

_reports = []


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


def pytest_runtest_logreport(report):
    _reports.append((report.start, report.stop, report.when == "call" and report.passed))


def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):
        starts, stops, passed = zip(*_reports)
        with open(os.environ["BENCH_TIMES"], "w") as file:
            json.dump([min(starts), max(stops), sum(passed)], file)
"""

_FLOOR = """
import asyncio
import json
import os
import time


async def main():
    places = asyncio.Semaphore({concurrency})

    async def one():
        async with places:
            await asyncio.sleep(0.05)

    start = time.time()
    async with asyncio.TaskGroup() as group:
        for _ in range({tests}):
            group.create_task(one())
    with open(os.environ["BENCH_TIMES"], "w") as file:
        json.dump([start, time.time(), {tests}], file)


asyncio.run(main())
"""

_PYTEST = ("-m", "pytest", "-q")


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to run the tests.

    Attributes:
        arguments: Of the interpreter.
        mark: What it knows a coroutine test by.
        plugin: The entry point's name of its own plugin, and its module.
        is_slow: Whether it takes so long that one round tells enough.
    """

    arguments: tuple[str, ...]
    mark: str = "anyio"
    plugin: Plugin = ANYIO
    is_slow: bool = False

    def command(self, *, lean: bool) -> list[str]:
        """The command: with its own plugin alone, or with all that are installed but the others'."""
        if self.arguments[0] != "-m":
            return [sys.executable, *self.arguments]
        return [sys.executable, *self.arguments, *chosen(self.plugin, lean=lean)]


def _ways(concurrency: int) -> dict[str, _Way]:
    at_once = str(concurrency)
    return {
        "pytest + anyio": _Way(_PYTEST, is_slow=True),
        "xdist -n 2 + anyio": _Way((*_PYTEST, "-p", "anyio", "-n", "2"), plugin=XDIST, is_slow=True),
        "asyncio-cooperative": _Way(
            (*_PYTEST, "--max-asyncio-tasks", at_once), "asyncio_cooperative", plugin=COOPERATIVE
        ),
        "asyncio-concurrent": _Way(_PYTEST, "asyncio_concurrent(group='all')", plugin=CONCURRENT),
        "atk run": _Way(("-m", "asynctest_kit", "run", "-q", "--concurrency", at_once)),
        "bare asyncio": _Way(("floor.py",)),
    }


def main() -> None:
    """Measure and print a table of seconds and ratios."""
    parser = _aims.parser(__doc__)
    parser.add_argument("--tests", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--lean", action="store_true")
    options = parser.parse_args()
    ways = _ways(options.concurrency)
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        suites = {mark: _suite(Path(folder), mark, options) for mark in {way.mark for way in ways.values()}}
        for _ in range(options.rounds):
            for name, way in ways.items():
                if way.is_slow and results[name]:
                    continue
                results[name].append(_measure(way, suites[way.mark], options))
    aims = _aims.Aims()
    _print(results, options, aims)
    aims.end(options)


def _suite(folder: Path, mark: str, options: argparse.Namespace) -> Path:
    suite = folder / mark.partition("(")[0]
    suite.mkdir()
    tests = [_TEST.format(mark=mark, number=number) for number in range(options.tests)]
    (suite / "test_waits.py").write_text("".join([_IMPORTS, *tests]))
    (suite / "conftest.py").write_text(_CONFTEST)
    (suite / "floor.py").write_text(_FLOOR.format(tests=options.tests, concurrency=options.concurrency))
    (suite / "pytest.ini").write_text("[pytest]\n")
    return suite


def _measure(way: _Way, suite: Path, options: argparse.Namespace) -> tuple[float, float]:
    times = suite / "times.json"
    times.unlink(missing_ok=True)
    lean = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} if options.lean else {}
    start = time.perf_counter()
    ended = subprocess.run(
        way.command(lean=options.lean),
        cwd=suite,
        env=_environment.clean(BENCH_TIMES=str(times), PYTHONWARNINGS="ignore", **lean),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    whole = time.perf_counter() - start
    if ended.returncode:
        sys.exit(f"{way.arguments} failed; it wrote:\n{ended.stdout[-2000:]}")
    first, last, passed = json.loads(times.read_text())
    if passed != options.tests:
        sys.exit(f"{way.arguments}: {passed} of {options.tests} tests passed")
    return whole, last - first


def _print(results: dict[str, list[tuple[float, float]]], options: argparse.Namespace, aims: _aims.Aims) -> None:
    medians = {
        name: [statistics.median(column) for column in zip(*rounds, strict=True)] for name, rounds in results.items()
    }
    our_whole, our_tests = medians["atk run"]
    print(
        f"{options.tests} tests awaiting 50 ms each, {options.concurrency} at once; medians of {options.rounds} rounds "
        f"(1 of the first two), {'own plugins alone' if options.lean else 'plugins as installed'}; ratios to atk run"
    )
    print(f"{'':20}{'whole process':>24}{'first start to last end':>32}")
    for name, (whole, alone) in medians.items():
        print(f"{name:20}{whole:10.2f} s {whole / our_whole:8.2f} x{alone:18.2f} s {alone / our_tests:9.2f} x")
    (cooperative, _), (plain, _), (_, floor) = (
        medians[name] for name in ("asyncio-cooperative", "pytest + anyio", "bare asyncio")
    )
    for what, ratio, limit in (
        ("the tests of atk run: {:.2f} of bare asyncio's", our_tests / floor, 1.5),
        ("the process: {:.2f} of asyncio-cooperative's", our_whole / cooperative, 0.7),
        ("the process: {:.3f} of pytest's", our_whole / plain, 1 / 25),
    ):
        aims.tell(what.format(ratio), ratio, limit)


if __name__ == "__main__":
    main()
