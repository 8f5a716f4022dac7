"""Everything that is checked about this project. ``nox -s tests`` needs only Python, apt and a package index."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.options.default_venv_backend = "uv|venv"  # uv, where it is, installs in a tenth of pip's time
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "boundaries", "tests", "tests_lowest-3.11", "demo", "docs"]
nox.needs_version = ">=2024.10.9"

_PYTHONS = ("3.11", "3.12", "3.13")

#: Versions that the checks themselves use; what users install is not pinned.
_PINNED = ("-c", ".ci/constraints.txt")
_PEERS = ("pytest-asyncio-concurrent", "pytest-asyncio-cooperative", "pytest-xdist")
_TEST_TOOLS = ("coverage>=7.10", "pytest>=8.4")

#: Sizes of the benchmarks in CI; None for one that would fetch a suite of others.
_SMALL = {
    "api": ("--iterations", "128", "--rounds", "1"),
    "collecting": ("--files", "2", "--tests", "20", "--rounds", "1"),
    "leases": ("--iterations", "100", "--rounds", "1"),
    "mocks": ("--iterations", "50", "--rounds", "1"),
    "public": None,
    "realistic": ("--tests", "20", "--rounds", "1"),
    "sleeping": ("--tests", "50", "--rounds", "1"),
    "provisioning": ("--rounds", "1"),
    "roundtrips": ("--iterations", "100", "--rounds", "1"),
    "startup": ("--rounds", "2"),
}

#: For all runs of our tests but that of the session `tests`, which runs every one: without those that are marked `once`
#: (pytest counts them as deselected). They show what container engines, servers and programs do, kills and many at
#: once, and hardly depend on versions. The engine's, the fixtures' and isolation's run everywhere: tests/conftest.py
#: takes the mark from none of them.
_THINNED = ("-m", "not once")
_SHORTER = {"STUBBED_TESTS": "20", "ADVERSARIES": "24"}

#: In CI they share what isn't the core, all of which the session `tests` runs beside them: what is about libraries
#: is for their oldest releases, what is about processes for the newest Python.
_ABOUT_LIBRARIES = ("tests/contracts", "tests/http")
_ABOUT_PROCESSES = ("tests/provision",)

#: Plugins and libraries whose suites our tests run.
_TESTED_WITH = (
    "faker", "freezegun", "gql", "h2", "hypothesis", "psycopg[binary]", "pytest-asyncio", "pytest-mock",
    "pytest-rerunfailures", "pytest-xdist", "python-jsonpath", "pyyaml", "schemathesis", "strawberry-graphql", "trio",
    "websockets",
)  # fmt: skip

#: Not where peers run: its pytest plugin has a fixture for every test, with which pytest-asyncio-concurrent runs none.
_PACT = ("pact-python", "pact-python-cli")

#: The oldest versions that the project's metadata allows.
_LOWEST = (
    "pytest==8.4.0", "aiodocker==0.25.0", "anyio==4.14.0", "asyncpg==0.32.0", "click==8.1.8", "httpx==0.27.0",
    "msgspec==0.19.0", "redis==5.2.0", "respx==0.22.0", "rich==13.9.4", "structlog==24.4.0", "h11==0.16.0",
    "alembic==1.13.0", "sqlalchemy==2.0.36", "starlette==0.40.0", "uvicorn==0.53.0", "python-jsonpath==1.3.0",
    "gql==4.0.0", "jsonschema-rs==0.59.0", "pact-python==3.3.0", "pact-python-ffi==0.5.8.0",
    "pact-python-cli==1!0.10.9", "schemathesis==4.32.0", "strawberry-graphql==0.320.0", "websockets==15.0",
)  # fmt: skip


@nox.session
def lint(session: nox.Session) -> None:
    """Style and format."""
    session.install(*_PINNED, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly."""
    session.install(*_PINNED, ".[example]", "mypy")
    session.run("mypy")


@nox.session
def boundaries(session: nox.Session) -> None:
    """The direction of imports between the parts."""
    session.install(*_PINNED, "import-linter")  # it reads the sources and imports none
    session.run("lint-imports")


@nox.session
def tests(session: nox.Session) -> None:
    """Our tests under ``atk run``, with coverage. Sets the machine up by itself."""
    environment = _test_bed()
    _install_tests(session)
    environment["COVERAGE_PROCESS_START"] = str(Path("pyproject.toml").resolve())
    if "--last-failed" not in session.posargs:
        session.run("coverage", "erase")
    session.run(
        "coverage", "run", "-m", "asynctest_kit", "run", "tests", _own_cache("tests"), *session.posargs, env=environment
    )
    session.run("coverage", "combine", silent=True)
    session.run("coverage", "report", "--fail-under=90")


@nox.session
def chaos(session: nox.Session) -> None:
    """Runs whose processes are killed: thirty of each kind, on each provider. CHAOS_SEED repeats an earlier one's."""
    environment = _test_bed() | {"CHAOS": os.environ.get("CHAOS", "60")}
    _install_tests(session)
    session.run("python", "-m", "pytest", "tests/provision/test_chaos.py", *session.posargs, env=environment)


@nox.session
def adversaries(session: nox.Session) -> None:
    """Tests that do their worst: 2,000 bodies on each provider, and a run of 2,000. ADVERSARIES_SEED repeats one."""
    environment = _test_bed() | {"ADVERSARIES": os.environ.get("ADVERSARIES", "2000")}
    _install_tests(session)
    session.run("python", "-m", "pytest", "tests/isolation/test_adversaries.py", *session.posargs, env=environment)


@nox.session(python=_PYTHONS)
@nox.parametrize("runner", ["atk run", "python -m pytest"], ids=["atk", "pytest"])
def tests_on(session: nox.Session, runner: str) -> None:
    """Our tests on one version of Python, under ``atk run`` or under pytest."""
    environment = _test_bed()
    _install_tests(session)
    cache = _own_cache(f"tests_on-{session.python}-{runner[:3]}")
    options = ("-q", "tests", cache, *_THINNED, *_left_out(*_ABOUT_LIBRARIES))
    session.run(*runner.split(), *options, *session.posargs, env=environment | _SHORTER)


@nox.session(python=_PYTHONS)
def tests_lowest(session: nox.Session) -> None:
    """Our tests under the oldest supported pytest, on the oldest allowed dependencies."""
    environment = _test_bed()
    session.install(".[example]", *_LOWEST, *_TESTED_WITH, *_PACT, "pytest-subtests")
    cache = _own_cache(f"tests_lowest-{session.python}")
    options = ("-q", "tests", cache, *_THINNED, *_left_out(*_ABOUT_PROCESSES))
    session.run("python", "-m", "pytest", *options, *session.posargs, env=environment | _SHORTER)


@nox.session
@nox.parametrize("pytest", ["pytest", "pytest==8.4.*"], ids=["newest", "8.4"])
def public(session: nox.Session, pytest: str) -> None:
    """Suites of public projects under pytest and under ``atk run``: the same outcomes. Fetches them from the index."""
    session.install("--upgrade", pytest)
    environment = {"PUBLIC_SUITES": "1"} | ({"TESTS_MAY_NOT_SKIP": "1"} if os.environ.get("CI") else {})
    session.run("python", "-m", "pytest", "-q", "tests/public", *session.posargs, env=environment)


@nox.session
def demo(session: nox.Session) -> None:
    """The example: without any Docker in reach, on containers, and under plain pytest with the same outcomes."""
    session.install(".[example,pact]")
    without_docker = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    session.run("atk", "run", "examples/shop", env=without_docker)
    environment = _test_bed()
    session.run("atk", "run", "examples/shop", "--provider", "docker", env=environment)
    told = session.run("python", "-m", "pytest", "-q", "examples/shop", env=environment, silent=True) or ""
    session.log(told)
    if "TESTS_MAY_NOT_SKIP" in environment and "skipped" in told.splitlines()[-1]:
        session.error("something was skipped")


@nox.session
def docs(session: nox.Session) -> None:
    """Every command in README.md, in a fresh environment."""
    session.run("python", ".ci/check_docs.py", *session.posargs, env=_test_bed())


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks: ratios to peers, measured in one run; a missed aim fails, once all have run.

    In CI they are small, which proves no aim: that they work is what is checked.
    """
    environment = _test_bed() | {"PYTHONDONTWRITEBYTECODE": ""}
    installed = () if os.environ.get("CI") else _TESTED_WITH  # plugins that every process of pytest's loads
    session.install(*_PINNED, ".[example]", "testcontainers", *_PEERS, *installed)
    failed = []
    for script in sorted(Path("benchmarks").glob("[!_]*.py")):
        options = _SMALL.get(script.stem, ()) if os.environ.get("CI") else ("--check",)
        if options is not None:
            try:
                session.run("python", str(script), *options, env=environment)
            except CommandFailed:
                failed.append(script.name)
    if failed:
        session.error(f"missed an aim, or failed: {', '.join(failed)}")


def _install_tests(session: nox.Session) -> None:
    session.install(*_PINNED, "-e", ".[example]", *_TEST_TOOLS, *_TESTED_WITH, *_PACT)


def _left_out(*folders: str) -> list[str]:
    """Options: in CI those folders' tests are another session's."""
    return [f"--ignore={folder}" for folder in folders] if os.environ.get("CI") else []


def _own_cache(name: str) -> str:
    """An option: sessions that run at once don't share what pytest remembers of their failures."""
    return f"-ocache_dir=.nox/{name}-cache"


def _test_bed() -> dict[str, str]:
    """Provide Docker and images; in CI their absence is a failure and not a skip."""
    assignments = subprocess.run(
        [sys.executable, ".ci/testbed.py"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    environment = dict(re.findall(r"^export (\w+)=(.*)$", assignments, re.MULTILINE))
    if os.environ.get("CI"):
        environment["TESTS_MAY_NOT_SKIP"] = "1"
    return environment
