"""Ctrl-C and SIGTERM: everything that was set up is torn down, in order, whatever was going on."""

from __future__ import annotations

import json
import os
import signal
import time

import preloaded
import pytest
from parity import SUITES, Bench, faults_of

from asynctest_kit.engine.interrupts import Terminated, raising

#: Where a test, or a fixture, waits when the run is interrupted; what is said of one test that this cuts off.
PLACES = {
    "shared set-up": "test_waits[4]: waits for fixture server, at test_interrupt.py:{wait_at} in wait_at",
    "own set-up": "test_waits[4]: in its set-up, at test_interrupt.py:{wait_at} in wait_at",
    "test": "test_waits[0]: in its call, at test_interrupt.py:{wait_at} in wait_at",
    "swallowed": "test_waits[0]: in its call, at test_interrupt.py:{swallow} in swallow",
    "own tear-down": None,
    "shared tear-down": "test_sync: in its tear-down",
    "alone": "test_alone: in its call, at test_interrupt.py:{wait_at} in wait_at",
    "sync test": "test_sync: in its call, at test_interrupt.py:{test_sync} in test_sync",
    "sync set-up": "test_sync: in its set-up, at test_interrupt.py:{wait_at} in wait_at",
}


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


def line_of(text):
    lines = (SUITES / "interrupt" / "test_interrupt.py").read_text().splitlines()
    return 1 + next(number for number, line in enumerate(lines) if line.strip() == text)


LINES = {
    "wait_at": line_of("await asyncio.sleep(100)"),
    "swallow": line_of("await asyncio.sleep(101)"),
    "test_sync": line_of("time.sleep(100)"),
}


def cut_off(run):
    """What is told of tests that never ended."""
    ended = {event["nodeid"] for event in run.events if event["type"] == "CaseFinished"}
    return [event for event in run.events if event["type"] == "CaseCutOff" and event["nodeid"] not in ended]


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
    assert "asynctest_kit/engine/" not in finished.out
    assert ("test_interrupt.py:{test_sync} in test_sync: Keyb".format(**LINES) in finished.out) is (
        where == "sync test"
    )
    if where == "swallowed":
        assert "stopping: waiting for test_interrupt.py::test_waits[0]; Ctrl-C again ends at once" in finished.out
        assert len(finished.noted("swallowed")) > 1
    told = {f"{event['nodeid'].partition('::')[2]}: {event['waiting']}" for event in cut_off(finished)}
    assert told >= ({PLACES[where].format(**LINES)} if PLACES[where] else set()), told
    assert bool(told) is bool(PLACES[where])
    if where == "own tear-down":
        assert len(finished.noted("own", "ended")) == 2  # what tears down isn't cut off


def test_interrupt_from_a_test(bench):
    finished = bench.engine(SUITE_WHERE="raised")
    assert faults_of(finished.trail) == []
    assert finished.code == 2, finished.out
    assert "KeyboardInterrupt" in finished.out


@pytest.mark.parametrize("where", ["own tear-down", "swallowed"])
def test_second_interrupt_ends_at_once(bench, where):
    run = bench.start(SUITE_WHERE=where)
    until_noted(run, "waits")
    run.process.send_signal(signal.SIGINT)
    if where == "swallowed":
        until_noted(run, "swallowed")
    else:
        time.sleep(0.05)
    run.process.send_signal(signal.SIGINT)
    finished = run.finish(20)
    assert where == "own tear-down" or "ERROR" not in finished.out
    assert finished.code == 2, finished.out
    assert finished.noted("own", "ended") == []


_HEAD = """
import asyncio
import os

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


async def test_touches():
    vars(os)["environ"]["TOUCHED"] = "yes"


async def test_waits():
    await waits()
"""

_WAITS_IN_ATTEMPT = """

attempts, beside = [], asyncio.Event()


async def test_fails():
    attempts.append("one more")
    if len(attempts) == {}:
        await waits()
    if len(attempts) == 1:
        await beside.wait()
        raise LookupError("before the end")


async def test_passes():
    beside.set()
"""


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_dies_of_sigterm():
    with raising():
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(write, b"!")
                time.sleep(60)
            finally:
                os._exit(1)
        assert os.read(read, 1) == b"!"  # what comes while it forks is lost
        os.close(read)
        os.close(write)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("suite", "command", "sentence", "second_attempts"),
    [
        (
            _FAILS_BEFORE,
            ["asynctest_kit", "run"],
            "It failed beside others and was not run again alone: the run ended before.",
            {},
        ),
        (
            _WAITS_IN_ATTEMPT.format(2),
            ["pytest", "--atk"],
            "It failed beside others, and its attempt alone was cut off: the run ended.",
            {"failure": 1},
        ),
        (
            _WAITS_IN_ATTEMPT.format(3),
            ["asynctest_kit", "run"],
            "It failed beside others and passed alone; the run ended before it was found beside whom it fails.",
            {"failure": 1, "tracing": 2},
        ),
    ],
    ids=["beside others", "while it runs again", "while it is traced"],
)
def test_sigterm_tells_what_has_failed_before(tmp_path, suite, command, sentence, second_attempts):
    (tmp_path / "test_it.py").write_text(_HEAD + suite)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    environment = {**os.environ, "ATK_REPORT_JSON": "report.json"}
    with (tmp_path / "out").open("wb") as out:
        run = preloaded.start(["-m", *command, "."], cwd=tmp_path, env=environment, out=out, err=out)
    deadline = time.monotonic() + 30
    while not (tmp_path / "waits").exists():
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run.send_signal(signal.SIGTERM)
    code = run.wait(20)
    out = (tmp_path / "out").read_text()
    assert code == 143, out
    assert "! SIGTERM !" in out
    assert "INTERRUPTED" in out
    assert "LookupError: before the end" in out
    assert sentence in out
    assert out.count("FAILED test_it.py::test_fails") == 1
    waits = "not finished  test_it.py::test_waits  in its call, at test_it.py:18 in waits"
    touches = "test_it.py::test_touches  waits to be run again alone: it touched os.environ at test_it.py:"
    assert (waits in out) is (touches in out) is ("test_waits" in suite), out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["second_attempts"]["causes"] == second_attempts
    *_, last = (step["kind"] for step in report["critical_path"] if step["kind"] in ("test", "again"))
    assert last == ("again" if second_attempts else "test")
