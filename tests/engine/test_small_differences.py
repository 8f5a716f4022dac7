"""Suites whose hooks and garbage ask for more than most: each comes out as under pytest."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import preloaded
import pytest

_HEAD = """
import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A small suite, what it is run with, and what both runners must give.

    Attributes:
        code: The exit code; None for any but 0, where pytest ends with an error of its own.
        shows: A piece of output.
    """

    test: str
    conftest: str = ""
    options: tuple[str, ...] = ()
    code: int | None = 0
    shows: str = "passed"


SUITES = {
    "garbage of the collection raises": Suite(
        test="""
class Bad:
    def __init__(self):
        self.itself = self

    def __del__(self):
        raise ValueError("while collecting")

Bad()

async def test_passes():
    pass
""",
        options=("-W", "error::pytest.PytestUnraisableExceptionWarning"),
        code=None,
        shows="while collecting",
    ),
    "a conftest file has collect under its own name": Suite(
        conftest="""
from gc import collect
import pytest

@pytest.fixture
def full_collect():
    return collect
""",
        test="""
import weakref

class Node:
    def __init__(self):
        self.itself = self

NODES = {"one": Node()}

async def test_is_freed(full_collect):
    ended = weakref.ref(NODES.pop("one"))
    full_collect()
    assert ended() is None
""",
    ),
    "collect is an attribute of a class": Suite(
        test="""
import gc

class Sweeper:
    sweep = gc.collect

async def test_sweeps():
    Sweeper().sweep()
""",
    ),
    "a suite has thresholds of its own": Suite(
        conftest="""
import gc

def pytest_configure(config):
    gc.set_threshold(50, 2, 2)
""",
        test="""
import weakref

class Node:
    pass

async def test_is_freed_soon():
    node = Node()
    node.itself = node
    ended = weakref.ref(node)
    del node
    kept = [[] for _ in range(600)]
    assert kept
    assert ended() is None
""",
    ),
    "a shared value's end raises": Suite(
        test="""
class Bad:
    def __del__(self):
        raise ValueError("of a shared value")

@pytest.fixture(scope="module")
def bad():
    yield Bad()

async def test_has_it(bad):
    pass
""",
        options=("-W", "error::pytest.PytestUnraisableExceptionWarning"),
        code=None,
        shows="of a shared value",
    ),
    "a wrapper gives one test another fixture": Suite(
        conftest="""
import pytest

@pytest.fixture
def odd():
    raise LookupError("only for odd tests")

@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(name):
    made = yield
    for item in made if isinstance(made, list) else ():
        if "odd" in name:
            item.fixturenames.append("odd")
    return made
""",
        test="""
async def test_odd():
    pass

async def test_even():
    pass
""",
        code=1,
        shows="1 passed, 1 error",
    ),
    "a hook gives one of many like tests another list of fixtures": Suite(
        conftest="""
import pytest

@pytest.fixture
def name(request):
    return request.node.name

@pytest.fixture
def own(name, request):
    request.function.own = name

@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.name == "test_third":
            item.fixturenames = [*item.fixturenames, "own"]
""",
        test="""
async def test_first(name):
    assert name == "test_first"

async def test_second(name):
    assert name == "test_second"

async def test_third(name):
    assert name == test_third.own == "test_third"
""",
        shows="3 passed",
    ),
    "a hook fails a test": Suite(
        conftest="""
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report):
    if report.when == "call" and "bad" in report.nodeid:
        report.outcome, report.longrepr = "failed", "made bad"
""",
        test="""
async def test_good():
    pass

async def test_bad():
    pass
""",
        shows="1 failed, 1 passed",
    ),
    "the reporter is patched": Suite(
        conftest="""
from _pytest.terminal import TerminalReporter

def told(self, report):
    if report.when == "call":
        self._tw.line(f"TOLD {report.nodeid}")
        self._add_stats(report.outcome, [report])

def pytest_configure(config):
    TerminalReporter.pytest_runtest_logreport = told
""",
        test="""
async def test_one():
    pass
""",
        shows="TOLD test_it.py::test_one",
    ),
    "a hook writes among the letters": Suite(
        conftest="""
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report):
    if report.when == "call":
        print(f"<{report.nodeid[-1]}>")
""",
        test="""
async def test_a():
    pass

async def test_b():
    pass
""",
        shows="<a>\n.<b>\n.",
    ),
    "a mark is added while a test runs": Suite(
        conftest="""
def pytest_runtest_logreport(report):
    report.keywords[f"of {report.when}"] = 1
    print(report.when, "late" in report.keywords, sorted(key for key in report.keywords if key.startswith("of ")))
""",
        test="""
async def test_marks(request):
    request.node.add_marker(pytest.mark.late)
""",
        shows="teardown True ['of teardown']",
    ),
    "a hook ends the run": Suite(
        conftest="""
import pytest

def pytest_runtest_logreport(report):
    if report.when == "call" and "ends" in report.nodeid:
        pytest.exit("no more of this", 5)
""",
        test="""
async def test_ends():
    pass
""",
        code=5,
        shows="no more of this",
    ),
    "every test is run again": Suite(
        test="""
runs = []

def test_sync():
    runs.append(1)
    assert len(runs) > 1

async def test_async():
    runs.append(1)
    assert len(runs) > 3
""",
        options=("--force-reruns", "2"),
        shows="2 passed, 2 rerun",
    ),
}


@pytest.fixture(params=SUITES, ids=lambda name: name.replace(" ", "-"))
def suite(request, tmp_path):
    found = SUITES[request.param]
    if "--force-reruns" in found.options:
        pytest.importorskip("pytest_rerunfailures")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = late\n")
    (tmp_path / "conftest.py").write_text(found.conftest)
    (tmp_path / "test_it.py").write_text(_HEAD + found.test)
    return found


def test_comes_out_as_under_pytest(suite, tmp_path):
    blocked = ("asyncio", "cacheprovider", "faker", "hypothesispytest", "pact", "respx", "schemathesis", "valkey")
    environment = {**os.environ, "PYTEST_ADDOPTS": " ".join(f"-p no:{plugin}" for plugin in blocked)}
    for runner in (["pytest"], ["asynctest_kit", "run"]):
        command = ["-m", *runner, *suite.options, "-p", "no:randomly", "."]
        run = preloaded.run(command, cwd=tmp_path, env=environment)
        out = run.stdout + run.stderr
        assert run.returncode == suite.code if suite.code is not None else run.returncode, out
        assert suite.shows in re.sub(r" *\[ *\d+%\]", "", out), out
