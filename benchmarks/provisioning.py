"""From create to the first answer: two PostgreSQL and two Redis servers, by this kit and by its peers.

Each way is a process of its own (``_starting.py``), timed from the moment when its imports are done to its login at the
last server, and from there until all are removed. Ways take turns. All that use Docker run the same two images.

- asynctest_kit, docker / embedded: that provider; "snapshots" finds prepared data, "initdb" has an empty cache
- aiodocker, all at once: the floor; the kit's own container settings, a published port each, polling every 20 ms
- testcontainers: as shipped, one after the other and in four threads, without its reaper (RYUK) container
- testcontainers, tuned: in four threads, with the kit's container settings and polling every 100 ms instead of 1 s
- the same with a supervisor, from the spawn of the process: its imports and those of the supervisor count
- a run of one test that uses both kinds, up to that test: services kept by ``atk up``, or the same given by their URLs

    python benchmarks/provisioning.py [--check] [--rounds N]

Images are ATK_POSTGRES_IMAGE and ATK_REDIS_IMAGE, or the catalogue's defaults; they must be there already. What this
machine lacks (a Docker engine, an image, testcontainers >= 4.15) is left out, and said.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import _aims
import _environment
import _services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_PEER = "testcontainers"
_FOUR = ("postgres", "redis", "postgres", "redis")
_SUITE = """
import os, time
from pathlib import Path
import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_that_the_services_answer(pg, redis):
    reached = time.monotonic()
    assert await pg.fetchval("SELECT 1") == 1
    assert await redis.ping()
    Path(os.environ["REACHED"]).write_text(str(reached))
"""


@dataclass(frozen=True, slots=True)
class Way:
    """One row.

    Attributes:
        title: What it is called.
        way: Its name in ``_starting.py``.
        names: What it starts.
        has_snapshots: Whether it finds some; for the others it makes no difference.
        counts_imports: Whether it is timed from the spawn of its process.
        variables: Of its environment.
    """

    title: str
    way: str
    names: tuple[str, ...] = _FOUR
    has_snapshots: bool = True
    counts_imports: bool = False
    variables: tuple[tuple[str, str], ...] = ()


_SEQUENTIAL = Way("testcontainers, one after the other", _PEER)
_THREADED = Way("testcontainers, four threads", f"{_PEER}-threads")
_TUNED = Way(
    "testcontainers, four threads, tuned",
    f"{_PEER}-tuned",
    variables=(("TC_POOLING_INTERVAL", "0.1"), ("TC_MAX_TRIES", "600")),
)
_BARE = Way("aiodocker, all at once", "aiodocker")
_COLD = Way("asynctest_kit, docker, initdb", "kit-docker", has_snapshots=False)
_KEPT = Way("asynctest_kit, docker, snapshots", "kit-docker")
_EMBEDDED = Way("asynctest_kit, embedded, snapshots", "kit-embedded")
_ONE_COLD = Way("one PostgreSQL, docker, initdb", "kit-docker", ("postgres",), has_snapshots=False)
_ONE_KEPT = Way("one PostgreSQL, docker, snapshot", "kit-docker", ("postgres",))
_WHOLE = Way("docker, with imports and supervisor", "supervised-docker", counts_imports=True)
_WHOLE_EMBEDDED = Way("embedded, with imports and supervisor", "supervised-embedded", counts_imports=True)
_WAYS = (
    _SEQUENTIAL, _THREADED, _TUNED, _BARE, _COLD, _KEPT, _EMBEDDED, _ONE_COLD, _ONE_KEPT, _WHOLE, _WHOLE_EMBEDDED,
)  # fmt: skip

#: Runs of the warm project in each round, each with and without URLs.
_RUNS = 3

_WARM = "a run's first test, kept by `atk up`"
_GIVEN = "a run's first test, by URLs"


@dataclass(frozen=True, slots=True)
class Aim:
    """What should hold; ``measure`` raises KeyError if a way that it needs was left out."""

    text: str
    limit: float
    measure: Callable[[Results], float]
    is_least: bool = False


class Results:
    """Medians of what was measured."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[tuple[float, float]]] = {}

    def add(self, title: str, answered: float, removed: float = 0.0) -> None:
        """One more."""
        self._seconds.setdefault(title, []).append((answered, removed))

    def answered(self, title: str) -> float:
        """Seconds to the first answers."""
        return statistics.median(first for first, _ in self._seconds[title])

    def removed(self, title: str) -> float:
        """Seconds that the removal took."""
        return statistics.median(second for _, second in self._seconds[title])

    def fastest(self, title: str) -> tuple[float, float]:
        """The least seconds of both: what it takes when nobody else is at work."""
        answered, removed = zip(*self._seconds[title], strict=True)
        return min(answered), min(removed)

    @property
    def titles(self) -> list[str]:
        """What was measured."""
        return list(self._seconds)


def _ratio(one: str, other: str) -> Callable[[Results], float]:
    return lambda results: results.answered(one) / results.answered(other)


_AIMS = (
    Aim("with initdb, faster than testcontainers in sequence", 2.5, _ratio(_SEQUENTIAL.title, _COLD.title), True),
    Aim("with initdb, of the time of bare aiodocker", 1.1, _ratio(_COLD.title, _BARE.title)),
    Aim("from snapshots, faster than testcontainers in threads", 3.5, _ratio(_THREADED.title, _KEPT.title), True),
    Aim("one PostgreSQL from a snapshot, of the time with initdb", 0.45, _ratio(_ONE_KEPT.title, _ONE_COLD.title)),
    Aim("embedded from snapshots, seconds, fastest round", 0.25, lambda results: results.fastest(_EMBEDDED.title)[0]),
    Aim("kept by `atk up`, of the time with URLs", 1.2, _ratio(_WARM, _GIVEN)),
    Aim("four containers removed, seconds, fastest round", 0.3, lambda results: results.fastest(_KEPT.title)[1]),
)  # fmt: skip


def main() -> None:
    """Measure; print a table of seconds and ratios, and which aims hold."""
    parser = _aims.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    missing = _missing()
    for way, reason in missing.items():
        print(f"left out: {way.title} ({reason})")
    ways, aims = [way for way in _WAYS if way not in missing], _aims.Aims()
    if not ways:
        aims.end(options)
        return
    results = Results()
    with ExitStack() as stack:
        stack.enter_context(_own_cache(ways))
        project = stack.enter_context(_kept_project())
        urls = _urls(project)
        for _ in range(options.rounds):
            for way in ways:
                results.add(way.title, *_measure(way))
            for _ in range(_RUNS):
                results.add(_WARM, _seconds_to_test(project, {}))
                results.add(_GIVEN, _seconds_to_test(project, urls))
    _print(results, options.rounds)
    for aim in _AIMS:
        with suppress(KeyError):
            reached = aim.measure(results)
            aims.tell(f"{aim.text:62}{reached:6.2f} ", reached, aim.limit, is_least=aim.is_least)
    aims.end(options)


def _missing() -> dict[Way, str]:
    reasons: dict[Way, str] = {}
    if problem := _services.embedded_problem():
        reasons |= {way: problem for way in _WAYS if way.way.endswith("embedded")}
    try:
        version(_PEER)
    except PackageNotFoundError:
        reasons |= {way: "it is not installed" for way in _WAYS if way.way.startswith(_PEER)}
    if problem := asyncio.run(_services.docker_problem()):
        reasons |= {way: problem for way in _WAYS if not way.way.endswith("embedded")}
    return reasons


@contextmanager
def _own_cache(ways: Sequence[Way]) -> Iterator[None]:
    """A cache folder in which the first start of each provider has left its snapshots, gone at the end."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            for way in sorted({way.way for way in ways} & {"kit-docker", "kit-embedded"}):
                _measure(Way("", f"{way}-keeping", ("postgres",)))
            yield
        finally:
            asyncio.run(_remove_images())


async def _remove_images() -> None:
    from asynctest_kit.provision import snapshots
    from asynctest_kit.provision.providers.engine import open_engine

    if images := snapshots.images():
        async with open_engine(os.environ) as engine:
            for image in images:
                await engine.remove_image(image)


def _measure(way: Way) -> tuple[float, float]:
    """Seconds to the first answers, and of the removal."""
    with tempfile.TemporaryDirectory() as empty:
        cache = {} if way.has_snapshots else {"XDG_CACHE_HOME": empty}
        environment = _environment.clean(TESTCONTAINERS_RYUK_DISABLED="true", **cache, **dict(way.variables))
        command = [sys.executable, str(Path(__file__).with_name("_starting.py")), way.way, *way.names]
        start = time.monotonic()
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, timeout=120)
    times = json.loads(done.stdout)
    return times["answered"] - (start if way.counts_imports else times["asked"]), times["removed"] - times["answered"]


@contextmanager
def _kept_project() -> Iterator[Path]:
    """A project with one test, whose services are up."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "pyproject.toml").write_text("[tool.asynctest_kit]\n")
        (project / "test_it.py").write_text(_SUITE)
        _atk(project, "up")
        try:
            _seconds_to_test(project, {})  # byte code, and the record of what is needed
            yield project
        finally:
            _atk(project, "down")


def _urls(project: Path) -> dict[str, str]:
    return {f"ATK_{name.upper()}_URL": _atk(project, "url", name).strip() for name in _services.NAMES}


def _seconds_to_test(project: Path, variables: Mapping[str, str]) -> float:
    """From the spawn of a run to its first test."""
    reached = project / "reached"
    start = time.monotonic()
    _atk(project, "run", "-q", "test_it.py", REACHED=str(reached), **variables)
    return float(reached.read_text()) - start


def _atk(project: Path, *arguments: str, **variables: str) -> str:
    command = [sys.executable, "-m", "asynctest_kit", *arguments]
    environment = _environment.clean(**variables)
    done = subprocess.run(
        command, cwd=project, env=environment, check=False, capture_output=True, text=True, timeout=120
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _print(results: Results, rounds: int) -> None:
    print(f"two PostgreSQL and two Redis, unless it says otherwise; medians of {rounds} rounds")
    print(f"{'':40}{'first answers':>15}{'removal':>12}")
    for title in results.titles:
        removed = results.removed(title)
        print(f"{title:40}{results.answered(title):13.2f} s{f'{removed:10.2f} s' if removed else ''}")


if __name__ == "__main__":
    main()
