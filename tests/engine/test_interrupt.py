"""Ctrl-C: everything that was set up is torn down, in order, whatever was going on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from parity import SUITES, Bench, faults_of

PLACES = (
    "shared set-up",
    "own set-up",
    "test",
    "own tear-down",
    "shared tear-down",
    "alone",
    "sync test",
    "sync set-up",
)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, SUITES / "interrupt")


def until_noted(run, word):
    """Poll the trail of another process; nothing else tells when its test is where it should be."""
    deadline = time.monotonic() + 30
    while not any(line[0] == word for line in run.trail):
        assert run.process.poll() is None, run.finish().out
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("where", PLACES)
def test_interrupt(bench, where):
    run = bench.start(SUITE_WHERE=where)
    until_noted(run, "waits")
    run.process.send_signal(signal.SIGINT)
    finished = run.finish(20)
    assert faults_of(finished.trail) == []
    assert finished.code == 2, finished.out
    assert "KeyboardInterrupt" in finished.out
    assert "INTERNALERROR" not in finished.out
    if where == "own tear-down":
        assert len(finished.noted("own", "ended")) == 2  # what tears down isn't cut off


def test_interrupt_from_a_test(bench):
    finished = bench.engine(SUITE_WHERE="raised")
    assert faults_of(finished.trail) == []
    assert finished.code == 2, finished.out
    assert "KeyboardInterrupt" in finished.out


def test_second_interrupt_ends_at_once(bench):
    run = bench.start(SUITE_WHERE="own tear-down")
    until_noted(run, "waits")
    run.process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    run.process.send_signal(signal.SIGINT)
    finished = run.finish(20)
    assert finished.code == 2, finished.out
    assert finished.noted("own", "ended") == []


_HEAD = """
import anyio
import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


async def waits():
    await anyio.Path("waits").touch()
    await anyio.sleep(60)
"""

_FAILS_BEFORE = """

async def test_fails():
    raise LookupError("before the end")


async def test_waits():
    await waits()
"""

_RUNS_AGAIN = """

async def test_fails():
    if await anyio.Path("failed").exists():
        await waits()
    await anyio.Path("failed").touch()
    raise LookupError("before the end")


async def test_passes():
    pass
"""


@pytest.mark.parametrize("suite", [_FAILS_BEFORE, _RUNS_AGAIN], ids=["beside others", "while it runs again"])
def test_what_has_failed_before_is_told(tmp_path, suite):
    (tmp_path / "test_it.py").write_text(_HEAD + suite)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    run = subprocess.Popen(
        [sys.executable, "-m", "asynctest_kit", "run", "."], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "waits").exists():
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=20)
    assert run.returncode == 2, out
    assert "LookupError: before the end" in out
    assert "was not run again alone: the run ended before" in out
    assert out.count("FAILED test_it.py::test_fails") == 1
    assert ("not finished  test_it.py::test_waits" in out) is ("test_waits" in suite)
