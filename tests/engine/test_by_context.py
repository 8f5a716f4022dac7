"""Warnings and log records beside others: each test's outcome and what it is told are pytest's."""

from __future__ import annotations

import pytest
from parity import SUITES, Bench


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("by_context"), SUITES / "by_context")
    plain, engine = bench.start_plain(SUITE_PLAIN="1"), bench.start(timeout=20)
    return plain.finish(), engine.finish()


def test_outcomes_are_pytests(runs):
    plain, engine = runs
    assert engine.outcomes == plain.outcomes, engine.out
    failed = {nodeid for nodeid, outcome in engine.outcomes.items() if outcome != "passed passed passed"}
    assert failed == {"test_records.py::test_fails_with_its_own_records", "test_warnings.py::test_leaves_one"}


def test_failures_read_the_same(runs):
    plain, engine = runs
    assert engine.longreprs == plain.longreprs


def test_everybody_was_beside_the_others(runs):
    """They couldn't have met otherwise."""
    _, engine = runs
    lanes = {
        event["nodeid"].rpartition("::")[2]: event["lane"] for event in engine.events if event["type"] == "CaseStarted"
    }
    exceptions = {"test_alone": "exclusive", "test_sync_one": "pytest", "test_levels_are_as_they_were": "pytest"}
    failing = {
        "test_fails_with_its_own_records": "exclusive",
        "test_leaves_one": "exclusive",
    }  # in their second attempt
    assert lanes == dict.fromkeys(lanes, "shared") | exceptions | failing


def test_warnings_are_told_as_by_pytest(runs):
    plain, engine = runs
    assert {nodeid: sorted(texts) for nodeid, texts in engine.warnings.items()} == {
        nodeid: sorted(texts) for nodeid, texts in plain.warnings.items()
    }


def test_what_is_told_of_each(runs):
    _, engine = runs
    assert {nodeid.rpartition("::")[2]: sorted(texts) for nodeid, texts in engine.warnings.items()} == {
        "test_alone": ["of a test alone"],
        "test_always_by_mark": ["every time", "every time", "once in a module"],
        "test_default_by_ini": ["told once at a place", "told once at all"],
        "test_default_by_mark": ["told for number 0", "told for number 1", "told once at its line"],
        "test_once_by_mark": ["of any line"],
        "test_sync_one": ["of a sync test"],
        "test_thread": ["in a thread"],
    }


def test_records_are_in_the_report_of_their_test(runs):
    plain, engine = runs
    nodeid = "test_records.py::test_fails_with_its_own_records"
    assert engine.sections(nodeid).keys() == plain.sections(nodeid).keys() == {"Captured log call"}
    assert engine.sections(nodeid)["Captured log call"].endswith("of the one that fails")
    assert "says" not in engine.sections(nodeid)["Captured log call"]
