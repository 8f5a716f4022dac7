"""``request.getfixturevalue`` of async fixtures: whatever pytest can have, the engine can."""

from __future__ import annotations

import signal
import time

import pytest
from parity import SUITES, Bench, both, faults_of, set_ups


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return both(Bench(tmp_path_factory.mktemp("asked"), SUITES / "asked"), "--tb=short")


def test_outcomes_are_the_same(runs):
    plain, engine = runs
    assert engine.outcomes == plain.outcomes, engine.out
    assert engine.longreprs == plain.longreprs
    assert engine.code == plain.code == 1


def test_only_what_cannot_be_had_fails(runs):
    _, engine = runs
    names = {nodeid.partition("::")[2] for nodeid, outcome in engine.outcomes.items() if "failed" in outcome}
    assert names == {"test_broken", "test_nowhere", "test_narrower", "test_from_async_code", "test_from_async_fixture"}


def test_fixtures_live_rightly(runs):
    plain, engine = runs
    assert faults_of(engine.trail) == []
    for name in ("slow_session", "chosen_session", "slow_module", "chosen_module"):
        assert set_ups(engine.trail, name) == set_ups(plain.trail, name) > 0, name


def test_async_code_is_told_what_to_do(runs):
    _, engine = runs
    (phase,) = [phase for phase in engine.phases["test_asked.py::test_from_async_code"] if phase.outcome == "failed"]
    assert "request.getfixturevalue('other') can't set up an async fixture from running code" in phase.longrepr
    assert "name it in the signature, or add @pytest.mark.usefixtures('other')" in phase.longrepr


def test_a_fixture_asked_for_that_hangs_is_cut_off(tmp_path):
    run = Bench(tmp_path, SUITES / "asked_hangs").engine(timeout=0.5)
    assert run.outcomes == {
        "test_hangs.py::test_hangs": "failed passed",
        "test_hangs.py::test_cancelled": "failed passed",
        **{f"test_hangs.py::test_goes_on[{number}]": "passed passed passed" for number in range(3)},
    }
    assert "test_hangs: the set-up took longer than its time-out of 0.5 s" in run.out
    assert faults_of(run.trail) == []


def test_an_interrupt_ends_what_was_asked_for_and_who_asked(tmp_path):
    run = Bench(tmp_path, SUITES / "asked_hangs").start("-k", "test_hangs and not cancelled")
    deadline = time.monotonic() + 30
    while not any(line[0] == "up" and line[1].startswith("hangs") for line in run.trail):
        assert run.process.poll() is None, run.finish().out
        assert time.monotonic() < deadline
        time.sleep(0.02)  # nothing else tells of another process when its fixture hangs
    run.process.send_signal(signal.SIGINT)
    finished = run.finish()
    assert finished.code == 2, finished.out
    assert faults_of(finished.trail) == []
