"""Ctrl-C: everything that was set up is torn down, in order, whatever was going on."""

from __future__ import annotations

import signal
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
