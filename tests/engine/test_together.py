"""Tests run at once where they can, and alone where they must."""

from __future__ import annotations

import pytest
from parity import SUITES, Bench, faults_of, set_ups


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("together"), SUITES / "together")
    plain, engine = bench.start_plain(SUITE_PLAIN="1"), bench.start()
    return plain.finish(), engine.finish()


def test_outcomes_are_the_same(runs):
    plain, engine = runs
    assert engine.outcomes == plain.outcomes, engine.out
    assert engine.code == plain.code == 0, engine.out


def test_warnings_are_the_same(runs):
    plain, engine = runs
    assert engine.warnings == plain.warnings == {"test_beside.py::test_warns_unheard": ["shown in the summary"]}


def test_fixtures_live_rightly(runs):
    _, engine = runs
    assert faults_of(engine.trail) == []
    assert set_ups(engine.trail, "server") == 1
    assert set_ups(engine.trail, "late") == 1
    assert set_ups(engine.trail, "chosen") == 1


def test_what_only_skipped_tests_want_is_never_set_up(runs):
    plain, engine = runs
    assert set_ups(plain.trail, "never") == 0
    assert set_ups(engine.trail, "never") == 0


def test_hooks_are_called_once_for_each_test(runs):
    plain, engine = runs
    assert sorted(engine.noted("hook")) == sorted(plain.noted("hook"))


def test_who_changes_global_state_is_alone(runs):
    _, engine = runs
    running: set[str] = set()
    alone = met = 0
    for kind, *words in engine.trail:
        if kind == "start":
            running.add(words[0])
            if any(test.startswith("alone-") for test in running):
                assert len(running) == 1
                alone += 1
            met = max(met, len(running))
        elif kind == "end":
            running.remove(words[0])
    assert alone == 15
    assert met >= 8


def test_lanes_are_told(runs):
    _, engine = runs
    lanes = {event["nodeid"]: event["lane"] for event in engine.events if event["type"] == "CaseFinished"}
    assert lanes.keys() == engine.phases.keys()
    assert {lane for nodeid, lane in lanes.items() if "test_alone.py" in nodeid} == {"exclusive", "pytest"}
    listening = ("caplog", "catch_warnings", "filter_mark", "meets[0]", "recwarn", "warns_unheard")
    assert {lanes[f"test_beside.py::test_{name}"] for name in listening} == {"shared"}
    assert lanes["test_beside.py::test_sync_test_with_a_loop"] == "pytest"


def test_every_event_is_in_order(runs):
    _, engine = runs
    kinds = [event["type"] for event in engine.events]
    assert kinds[0] == "CollectionFinished"
    assert kinds[1] == "LoopStarted"
    assert kinds[-1] == "LoopFinished"
    for event in engine.events:
        if event["type"] == "CaseFinished":
            stations = [event[name] for name in ("start", "ready", "call_start", "call_end", "end")]
            assert stations == sorted(stations), event
    fixtures = [event for event in engine.events if event["type"] == "FixtureFinished"]
    assert [(event["fixture"], event["phase"]) for event in fixtures].count(("server", "setup")) == 1
    assert [(event["fixture"], event["phase"]) for event in fixtures].count(("server", "teardown")) == 1
