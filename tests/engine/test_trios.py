"""Tests on trio run by pytest's protocol, those on asyncio on our loop; what needs no loop they share."""

from __future__ import annotations

import pytest
from parity import SUITES, Bench, both, faults_of, set_ups

pytest.importorskip("trio")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return both(Bench(tmp_path_factory.mktemp("trios"), SUITES / "trios"), "--tb=short")


def test_outcomes_are_the_same(runs):
    plain, engine = runs
    assert engine.outcomes == plain.outcomes, engine.out
    assert engine.longreprs == plain.longreprs
    assert engine.code == plain.code == 1


def test_each_runs_where_it_must(runs):
    _, engine = runs
    lanes = {event["nodeid"]: event["lane"] for event in engine.events if event["type"] == "CaseFinished"}
    assert {nodeid for nodeid, lane in lanes.items() if lane != "pytest"} == {
        nodeid for nodeid in lanes if "[asyncio" in nodeid and "test_sync[" not in nodeid
    }


def test_fixtures_live_rightly(runs):
    plain, engine = runs
    assert faults_of(engine.trail) == []
    for name in ("settings", "server-asyncio", "server-trio"):
        assert set_ups(engine.trail, name) == set_ups(plain.trail, name) == 1, name
