"""From nothing to the first answer: one PostgreSQL and one Redis, by this kit and by its peers.

Each way is a process of its own (``_starting.py``), timed from its spawn to the moment when it has logged in to both
servers, and from there until both are removed. So imports count, and for this kit the supervisor's start too. Every
way that uses Docker runs the same two images.

- asynctest_kit, docker / embedded: the client, its supervisor, and that provider
- aiodocker, both at once: the floor; the kit's own container settings, polling every 20 ms, nobody who cleans up
- testcontainers: as shipped, one after the other and in two threads, without its reaper (RYUK) container
- testcontainers, tuned: in two threads, with the kit's container settings and polling every 100 ms instead of 1 s

    python benchmarks/starts.py [--rounds N]

Images are ATK_POSTGRES_IMAGE and ATK_REDIS_IMAGE, or the catalogue's defaults; they must be there already. What this
machine lacks (a Docker engine, an image, testcontainers >= 4.15) is left out, and said.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import _environment
import _services

_PEER = "testcontainers"
_TITLES = {
    "kit-docker": "asynctest_kit, docker",
    "kit-embedded": "asynctest_kit, embedded",
    "aiodocker": "aiodocker, both at once",
    _PEER: "testcontainers, one after the other",
    f"{_PEER}-threads": "testcontainers, two threads",
    f"{_PEER}-tuned": "testcontainers, two threads, tuned",
}
_EXTRAS = {f"{_PEER}-tuned": {"TC_POOLING_INTERVAL": "0.1"}}


def main() -> None:
    """Measure and print a table of seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    missing = _missing()
    for way, reason in missing.items():
        print(f"left out: {_TITLES[way]} ({reason})")
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in _TITLES if way not in missing}
    for _ in range(options.rounds):
        for way, measured in times.items():
            measured.append(_measure(way))
    _print(times, options.rounds)


def _missing() -> dict[str, str]:
    reasons = {}
    if problem := _services.embedded_problem():
        reasons["kit-embedded"] = problem
    if problem := asyncio.run(_services.docker_problem()):
        reasons |= {way: problem for way in _TITLES if way != "kit-embedded"}
    try:
        version(_PEER)
    except PackageNotFoundError:
        reasons = {way: "it is not installed" for way in _TITLES if way.startswith(_PEER)} | reasons
    return reasons


def _measure(way: str) -> tuple[float, float]:
    environment = _environment.clean(TESTCONTAINERS_RYUK_DISABLED="true", **_EXTRAS.get(way, {}))
    command = [sys.executable, str(Path(__file__).with_name("_starting.py")), way]
    start = time.monotonic()
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, timeout=120)
    times = json.loads(done.stdout)
    return times["answered"] - start, times["removed"]


def _print(times: dict[str, list[tuple[float, float]]], rounds: int) -> None:
    medians = {
        way: [statistics.median(column) for column in zip(*measured, strict=True)] for way, measured in times.items()
    }
    # Without its peer the floor, without Docker itself.
    base = next((way for way in (_PEER, "aiodocker", *medians) if way in medians), None)
    if base is None:
        return

    print(f"PostgreSQL and Redis from nothing; medians of {rounds} rounds, ratios to {_TITLES[base]}")
    print(f"{'':38}{'first answers':>22}{'removal':>22}")
    for way, columns in medians.items():
        cells = (
            f"{seconds:10.2f} s {seconds / peer:8.2f} x" for seconds, peer in zip(columns, medians[base], strict=True)
        )
        print(f"{_TITLES[way]:38}{''.join(cells)}")


if __name__ == "__main__":
    main()
