"""What threads, finalizers and global state do is charged to the test that is behind it, as in pytest alone."""

from __future__ import annotations

import pytest
from parity import SUITES, Bench, both

ALONE = {
    "test_imports_inside",
    "test_sets_an_item",
    "test_sets_by_name",
    "test_sets_a_global",
    "test_extends_the_path",
    "test_silences_a_logger",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return both(Bench(tmp_path_factory.mktemp("charged"), SUITES / "charged"))


def test_outcomes_are_pytests(runs):
    plain, engine = runs
    assert engine.outcomes == plain.outcomes
    assert engine.code == plain.code == 1


def test_who_is_behind_it_fails_and_nobody_else(runs):
    _, engine = runs
    failed = {
        nodeid.rpartition("::")[2].partition("[")[0]
        for nodeid, outcomes in engine.outcomes.items()
        if "failed" in outcomes.split()
    }
    assert failed == {
        "test_expects_no_record",
        "test_expects_no_warning",
        "test_fails_in_a_thread",
        "test_fails_when_it_is_freed",
        "test_forgets_to_await",
        "test_forgets_to_await_in_a_task",
        "test_leaks_a_socket",
        "test_needs_what_another_sets",
        "test_sync_forgets_to_await",
    }


def test_nobody_is_to_blame_for_another(runs):
    _, engine = runs
    assert not [event for event in engine.events if event.get("verdict")]


def test_they_run_alone_from_the_start(runs):
    _, engine = runs
    lanes = {
        event["nodeid"].rpartition("::")[2]: event["lane"]
        for event in engine.events
        if event["type"] == "CaseFinished" and "test_globals.py" in event["nodeid"] and event["attempts"] == 1
    }
    assert {name for name, lane in lanes.items() if lane == "exclusive"} == ALONE
