"""200 tests that each await 50 ms: pytest with the anyio plugin beside ``atk run``, in one run.

Two figures for each: the whole process, from spawn to exit, and the tests alone, from the first one's start to the
last one's end (taken from pytest's own reports on both sides). The floor is a bare asyncio script that awaits the same
coroutines with the same concurrency.

    python benchmarks/sleeping.py [--tests N] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _environment

_SUITE = """
import anyio
import pytest

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("number", range({tests}))
async def test_waits(number):
    await anyio.sleep(0.05)
"""

_CONFTEST = """
import json
import os

import pytest

_times = []


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


def pytest_runtest_logreport(report):
    _times.append((report.start, report.stop))


def pytest_sessionfinish():
    with open(os.environ["BENCH_TIMES"], "w") as file:
        json.dump([min(start for start, _ in _times), max(stop for _, stop in _times)], file)
"""

_FLOOR = """
import asyncio
import json
import os
import time


async def main():
    places = asyncio.Semaphore(64)

    async def one():
        async with places:
            await asyncio.sleep(0.05)

    start = time.time()
    async with asyncio.TaskGroup() as group:
        for _ in range({tests}):
            group.create_task(one())
    with open(os.environ["BENCH_TIMES"], "w") as file:
        json.dump([start, time.time()], file)


asyncio.run(main())
"""


def main() -> None:
    """Measure and print a table of seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder)
        (suite / "test_waits.py").write_text(_SUITE.format(tests=options.tests))
        (suite / "conftest.py").write_text(_CONFTEST)
        (suite / "floor.py").write_text(_FLOOR.format(tests=options.tests))
        (suite / "pytest.ini").write_text("[pytest]\n")
        commands = {
            "pytest + anyio": [sys.executable, "-m", "pytest", "-q", "."],
            "atk run": [sys.executable, "-m", "asynctest_kit", "run", "-q", "."],
            "bare asyncio": [sys.executable, "floor.py"],
        }
        results = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                results[name].append(_measure(command, suite))
    _print(results, options.tests)


def _measure(command: list[str], suite: Path) -> tuple[float, float]:
    times = suite / "times.json"
    start = time.perf_counter()
    subprocess.run(
        command, cwd=suite, env=_environment.clean(BENCH_TIMES=str(times)), check=True, stdout=subprocess.DEVNULL
    )
    whole = time.perf_counter() - start
    first, last = json.loads(times.read_text())
    return whole, last - first


def _print(results: dict[str, list[tuple[float, float]]], tests: int) -> None:
    peer_whole, peer_tests = (statistics.median(column) for column in zip(*results["pytest + anyio"], strict=True))
    print(f"{tests} tests awaiting 50 ms each; medians of {len(results['atk run'])} rounds")
    print(f"{'':16}{'whole process':>24}{'first start to last end':>32}")
    for name, rounds in results.items():
        whole, alone = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{name:16}{whole:10.2f} s {whole / peer_whole:8.3f} x{alone:18.2f} s {alone / peer_tests:9.3f} x")


if __name__ == "__main__":
    main()
