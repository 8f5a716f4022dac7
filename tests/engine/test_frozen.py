"""Tests that stop the clock or set it years ahead: nobody times out for it, and what is measured is real."""

from __future__ import annotations

import time

import pytest
from parity import SUITES, Bench, both, faults_of

pytest.importorskip("freezegun")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    start = time.monotonic()
    plain, engine = both(Bench(tmp_path_factory.mktemp("frozen"), SUITES / "frozen"))
    return plain, engine, time.monotonic() - start


def test_outcomes_are_pytests(runs):
    plain, engine, _ = runs
    assert engine.outcomes == plain.outcomes
    assert set(engine.outcomes.values()) == {"passed passed passed"}, engine.out
    assert engine.code == 0
    assert faults_of(engine.trail) == []


def test_who_stops_the_clock_is_alone(runs):
    _, engine, _ = runs
    finished = {
        event["nodeid"].rpartition("::")[2]: event for event in engine.events if event["type"] == "CaseFinished"
    }
    beside = {"test_before", "test_last", *(f"test_beside[{number}]" for number in range(4))}
    assert {name for name, event in finished.items() if event["lane"] == "shared"} == beside
    hidden = finished["test_frozen_by_a_hidden_name"]
    assert (hidden["verdict"], hidden["attempts"]) == ("moved", 2)
    assert hidden["note"].startswith("ran alone, for it touched freezegun at test_frozen.py:")
    assert {event["verdict"] for name, event in finished.items() if event is not hidden} == {""}


def test_what_is_measured_is_real(runs):
    """No duration is negative, and all lie within the time that the run took."""
    _, engine, took = runs
    times = [event["at"] for event in engine.events if event["type"] in {"LoopStarted", "LoopFinished"}]
    for event in engine.events:
        if event["type"] == "CaseFinished":
            stations = [event[name] for name in ("start", "ready", "call_start", "call_end", "end")]
            assert stations == sorted(stations), event
            assert times[0] <= stations[0] <= stations[-1] <= times[1]
    assert times[1] - times[0] < took
