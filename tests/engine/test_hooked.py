"""Hooks around fixtures and whole tests, as conftest files and plugins have them."""

from __future__ import annotations

import pytest
from parity import SUITES, Bench, both, faults_of, set_ups


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return both(Bench(tmp_path_factory.mktemp("hooked"), SUITES / "hooked"), "--tb=short")


def test_outcomes_are_the_same(runs):
    plain, engine = runs
    assert engine.outcomes == plain.outcomes, engine.out
    assert engine.longreprs == plain.longreprs


@pytest.mark.parametrize(
    "kind", ["before", "after", "raised", "finalized", "torn", "protocol", "below", "called-below", "set-up-below"]
)
def test_hooks_are_called_as_often(runs, kind):
    theirs, ours = (sorted(line for line in run.noted(kind) if "broken" not in line[1]) for run in runs)
    assert ours == theirs != []


def test_setup_show_shows_what_pytest_shows(tmp_path):
    plain, engine = both(Bench(tmp_path, SUITES / "hooked"), "--setup-show", "-k", "value or lazy or lane")
    shown = ("SETUP", "TEARDOWN", "test_hooked.py::")
    theirs, ours = (
        [line.strip(" .") for line in run.out.splitlines() if line.strip().startswith(shown)] for run in (plain, engine)
    )
    assert ours == theirs != []


def test_what_a_plugin_runs_again_it_runs_by_its_protocol(tmp_path):
    pytest.importorskip("pytest_rerunfailures")
    plain, engine = both(Bench(tmp_path, SUITES / "rerun"))
    assert engine.outcomes == plain.outcomes, engine.out
    assert "rerun" in engine.outcome("test_rerun.py::test_async")
    assert faults_of(engine.trail) == []
    assert set_ups(engine.trail, "settings") == 1
    lanes = {event["nodeid"]: event["lane"] for event in engine.events if event["type"] == "CaseFinished"}
    assert [nodeid for nodeid, lane in lanes.items() if lane == "shared"] == ["test_rerun.py::test_unmarked"]
