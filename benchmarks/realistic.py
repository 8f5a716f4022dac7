"""200 tests as real suites have them, whole processes: ``atk run`` beside its peers and a script by hand.

Each test inserts a user, reads it back, sets and gets a Redis key, calls an ASGI application that selects, and waits
20 ms; at its end what it wrote is rolled back. All do the same work on their own fixtures (``_realistic/``): peers and
the script have one pool and one Redis client for the session, and a transaction for each test. Pytest loads the plugins
that are installed, as it does for users; with --lean none, so that nobody pays for what another has installed.

- servers are up: peers and the script get the URLs of containers whose ports Docker publishes; ``atk run`` those of
  containers that ``atk up`` keeps, with the process that waits there for the next run, and in a row of its own the same
  URLs as the peers, without one
- containers are cold: peers start them with testcontainers, each worker of xdist its own; the script with aiodocker,
  both at once, polling every 20 ms; ``atk run`` from the snapshots of an earlier run

Without Docker all get the URLs of the embedded provider's servers, and nothing is cold.

    python benchmarks/realistic.py [--check] [--tests N] [--rounds N] [--concurrency N] [--pool N] [--lean]

Peers are pytest-xdist, pytest-asyncio-cooperative and, for cold containers, testcontainers >= 4.15: ``pip install -e
'.[example]' pytest-xdist pytest-asyncio-cooperative testcontainers``. What isn't installed is left out, and said.
Images are ATK_POSTGRES_IMAGE and ATK_REDIS_IMAGE, or the catalogue's defaults; they must be there already.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _aims
import _environment
import _services
from _plugins import ANYIO, COOPERATIVE, XDIST, Plugin, chosen

from asynctest_kit.cli.warm import meeting
from asynctest_kit.isolation import postgres
from asynctest_kit.provision.client import Client

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

_FILES = Path(__file__).with_name("_realistic")
_IMPORTS = "import pytest\nfrom work import use\n"
_TEST = """

@pytest.mark.{mark}
async def test_user_{number}(pg, redis, client):
    await use(pg, redis, client)
"""
_SETTINGS = '[tool.asynctest_kit.services.postgres]\nmigrations = { sql = "migrations" }\n'
_PYTEST = ("-m", "pytest", "-q")

#: Seconds in which a process must have all imported that a run imports; on other systems than Linux there is none.
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Way:
    """A row.

    Attributes:
        title: What it is called.
        arguments: Of the interpreter.
        suite: Whose fixtures.
        mark: What it knows a coroutine test by.
        package: What must be installed.
        plugin: Its own.
        is_cold: Whether it starts its servers.
        is_slow: Whether it takes so long that one round tells enough.
    """

    title: str
    arguments: tuple[str, ...]
    suite: str = "peer"
    mark: str = "anyio"
    package: str = "anyio"
    plugin: Plugin = ANYIO
    is_cold: bool = False
    is_slow: bool = False


def _ways(concurrency: int) -> list[Way]:
    kit = ("-m", "asynctest_kit", "run", "-q", "--concurrency", str(concurrency))
    xdist = (*_PYTEST, "-p", "anyio", "-n", "2")
    cooperative = (*_PYTEST, "--max-asyncio-tasks", str(concurrency))
    is_xdist: Any = {"plugin": XDIST, "package": "pytest-xdist"}
    named: Any = {"mark": "asyncio_cooperative", "package": "pytest-asyncio-cooperative", "plugin": COOPERATIVE}
    return [
        Way("pytest + anyio", _PYTEST, is_slow=True),
        Way("xdist -n 2 + anyio", xdist, **is_xdist, is_slow=True),
        Way("asyncio-cooperative", cooperative, **named),
        Way("script by hand", ("script.py",)),
        Way("atk run, kept by `atk up`", kit, suite="kit"),
        Way("atk run, by URLs", kit, suite="urls"),
        Way("cold: pytest + anyio", _PYTEST, package="testcontainers", is_cold=True, is_slow=True),
        Way("cold: xdist -n 2 + anyio", xdist, **is_xdist, is_cold=True, is_slow=True),
        Way("cold: asyncio-cooperative", cooperative, is_cold=True, **named),
        Way("cold: script by hand", ("script.py",), is_cold=True),
        Way("cold: atk run, snapshots", kit, suite="cold", is_cold=True),
    ]


@dataclass(frozen=True, slots=True)
class Aim:
    """That one way takes at most so many times as long as another."""

    one: str
    other: str
    limit: float


_AIMS = (
    Aim("atk run, kept by `atk up`", "pytest + anyio", 1 / 5),
    Aim("atk run, kept by `atk up`", "xdist -n 2 + anyio", 1 / 5),
    Aim("atk run, kept by `atk up`", "asyncio-cooperative", 1 / 2),
    Aim("atk run, kept by `atk up`", "script by hand", 1.3),
    Aim("cold: atk run, snapshots", "cold: script by hand", 1.0),
)


def main() -> None:
    """Measure; print a table of seconds and ratios, and which aims hold."""
    parser = _aims.parser(__doc__)
    parser.add_argument("--tests", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--pool", type=int, default=32, help="connections of the peers' pool")
    parser.add_argument("--lean", action="store_true", help="load no plugins but those that are named")
    parser.add_argument("--only", default="", help="ways whose title matches")
    options, aims = parser.parse_args(), _aims.Aims()
    asyncio.run(_run(options, aims))
    aims.end(options)


async def _run(options: argparse.Namespace, aims: _aims.Aims) -> None:
    has_docker = not (problem := await _services.docker_problem())
    if not has_docker:
        print(f"left out: what uses Docker ({problem})")
    if not has_docker and (problem := _services.embedded_problem()):
        print(f"left out: all ({problem})")
        return
    ways = [way for way in _ways(options.concurrency) if _is_had(way, options.only, has_docker=has_docker)]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for suite, mark in {(way.suite, way.mark) for way in ways}:
            _write(folder, suite, mark, options.tests)
        variables = await _servers(stack, folder, has_docker=has_docker) | {
            "BENCH_TESTS": str(options.tests),
            "BENCH_AT_ONCE": str(options.concurrency),
            "BENCH_POOL": str(options.pool),
            **({"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} if options.lean else {}),
        }
        if any(way.suite == "kit" for way in ways):
            _keep(stack, _folder(folder, "kit", "anyio"))
        results = _measure(ways, folder, variables, options)
    _print(results, options)
    for aim in _AIMS:
        if aim.one in results and aim.other in results:
            pairs = zip(results[aim.one], results[aim.other], strict=False)
            ratio = statistics.median(one / other for one, other in pairs)
            aims.tell(f"{aim.one}: {ratio:.2f} of {aim.other}", ratio, aim.limit)


def _is_had(way: Way, only: str, *, has_docker: bool) -> bool:
    """Whether it is wanted, and has what it needs."""
    if not re.search(only, way.title) or (not has_docker and (way.is_cold or way.suite == "kit")):
        return False

    missing = [name for name in _packages(way) if not _is_installed(name)]
    if missing:
        print(f"left out: {way.title} ({', '.join(missing)} isn't installed)")
    return not missing


def _keep(stack: AsyncExitStack, project: Path) -> None:
    """Have its services up until the end."""
    stack.callback(_call, [sys.executable, "-m", "asynctest_kit", "down"], project, {})
    _call([sys.executable, "-m", "asynctest_kit", "up"], project, {})


def _measure(
    ways: Sequence[Way], folder: Path, variables: Mapping[str, str], options: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds of each way, which take turns, after one that leaves byte code, snapshots and what a run remembers."""
    results: dict[str, list[float]] = {way.title: [] for way in ways}
    for number in range(options.rounds + 1):
        for way in ways:
            if way.is_slow and number != 1:
                continue
            seconds = _seconds(way, folder, variables, options.tests)
            if number:
                results[way.title].append(seconds)
            if way.suite == "kit":
                _await_the_process_that_waits(_folder(folder, way.suite, way.mark))
    return results


def _packages(way: Way) -> list[str]:
    starts = way.is_cold and way.suite == "peer" and way.arguments[0] == "-m"
    return [way.package, *(["testcontainers"] if starts else [])]


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _folder(folder: Path, suite: str, mark: str) -> Path:
    return folder / f"{suite}-{mark}"


def _write(folder: Path, suite: str, mark: str, tests: int) -> None:
    place = _folder(folder, suite, mark)
    (place / "migrations").mkdir(parents=True)
    (place / "pytest.ini").write_text("[pytest]\n")
    (place / "pyproject.toml").write_text(_SETTINGS)
    body = "".join(_TEST.format(mark=mark, number=number) for number in range(tests))
    (place / "test_users.py").write_text(_IMPORTS + body)
    shutil.copy(_FILES / "work.py", place)
    shutil.copy(_FILES / "script.py", place)
    shutil.copy(_FILES / "01_schema.sql", place)
    shutil.copy(_FILES / "01_schema.sql", place / "migrations")
    shutil.copy(_FILES / f"{'peer' if suite == 'peer' else 'kit'}_conftest.py", place / "conftest.py")


async def _servers(stack: AsyncExitStack, folder: Path, *, has_docker: bool) -> dict[str, str]:
    """Variables that lead the peers to servers that are up."""
    if has_docker:
        server, cache = [await _services.published(stack, name) for name in _services.NAMES]
    else:
        client = stack.enter_context(closing(Client.connect(folder)))
        server, cache = [await client.endpoint(_services.spec(name, "embedded")) for name in _services.NAMES]
    await (await postgres.connect(server)).close()
    images = {f"BENCH_{name.upper()}_IMAGE": _services.image(name) for name in _services.NAMES}
    return {"BENCH_POSTGRES": server.url, "BENCH_REDIS": cache.url, **images}


def _seconds(way: Way, folder: Path, variables: Mapping[str, str], tests: int) -> float:
    """Of the whole process."""
    if way.is_cold:
        variables = {name: value for name, value in variables.items() if name not in {"BENCH_POSTGRES", "BENCH_REDIS"}}
        variables = {**variables, "TESTCONTAINERS_RYUK_DISABLED": "true"}
    if way.suite == "urls":
        urls = {"ATK_POSTGRES_URL": variables["BENCH_POSTGRES"], "ATK_REDIS_URL": variables["BENCH_REDIS"]}
        variables = {**variables, **urls}
    if way.suite == "kit":
        _await_the_process_that_waits(_folder(folder, way.suite, way.mark))
    start = time.perf_counter()
    is_script = way.arguments[0] != "-m"
    plugins = [] if is_script else chosen(way.plugin, lean="PYTEST_DISABLE_PLUGIN_AUTOLOAD" in variables)
    output = _call([sys.executable, *way.arguments, *plugins], _folder(folder, way.suite, way.mark), variables)
    seconds = time.perf_counter() - start
    if f"{tests} passed" not in output:
        raise SystemExit(f"{way.title}: not all {tests} tests passed:\n{output[-2000:]}")
    return seconds


def _await_the_process_that_waits(place: Path) -> None:
    """What a run leaves for the next; so that it doesn't load beside others, either."""
    status = place.stat()
    path = Path(meeting.directory(), f"{status.st_dev:x}-{status.st_ino:x}")
    limit = time.monotonic() + _PATIENCE
    while not path.exists() and time.monotonic() < limit:
        time.sleep(0.05)


def _call(command: Sequence[str], place: Path, variables: Mapping[str, str]) -> str:
    environment = _environment.clean(PYTHONWARNINGS="ignore", **variables)
    done = subprocess.run(
        command, cwd=place, env=environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return done.stdout


def _print(results: Mapping[str, Sequence[float]], options: argparse.Namespace) -> None:
    medians = {title: statistics.median(seconds) for title, seconds in results.items()}
    print(
        f"{options.tests} tests, {options.concurrency} at once, {options.pool} connections for peers; "
        f"seconds, medians of {options.rounds} rounds (1 of pytest and xdist)"
    )
    for title, seconds in medians.items():
        ours = medians.get("cold: atk run, snapshots" if title.startswith("cold") else "atk run, kept by `atk up`")
        print(f"{title:32}{seconds:8.2f} s" + (f"{seconds / ours:8.2f} x" if ours else ""))


if __name__ == "__main__":
    main()
