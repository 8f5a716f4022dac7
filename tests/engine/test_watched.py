"""What blocks, hangs or leaks is named and ended, and costs nobody else anything."""

from __future__ import annotations

import re

import pytest
from parity import SUITES, Bench, faults_of

HUNG = "took longer than its time-out of 0.2 s and doesn't end when it is cancelled"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("watched"), SUITES / "watched").engine(timeout=30)


def message(run, nodeid, when):
    return next(phase.longrepr for phase in run.phases[nodeid] if phase.when == when)


def findings(run, nodeid):
    return [event["text"] for event in run.events if event["type"] == "FindingMade" and event["nodeid"] == nodeid]


def without_figures(text):
    return re.sub(r"for [0-9.]+ s", "for N s", text)


def test_outcomes(run):
    assert run.outcomes == {
        "test_blocks.py::test_blocks": "passed passed passed",
        "test_blocks.py::test_victim": "passed passed passed",
        "test_hangs.py::test_catches_everything": "passed failed passed",
        "test_hangs.py::test_set_up": "failed passed",
        "test_hangs.py::test_swallows_its_cancellation": "passed failed passed",
        "test_hangs.py::test_tear_down": "passed passed failed",
        "test_leaks.py::test_first_use": "passed passed passed",
        "test_leaks.py::test_later_use": "passed passed passed",
        "test_leaks.py::test_leaks": "passed passed passed",
        "test_sync.py::test_neighbour": "passed passed passed",
        "test_sync.py::test_sleeps": "passed failed passed",
    }


def test_the_fixtures_of_hung_tests_are_torn_down(run):
    assert faults_of(run.trail) == []
    tests = {value.partition("#")[0] for _, value in run.noted("down")}
    assert tests == {
        "resource-of-test_catches_everything",
        "resource-of-test_set_up",
        "resource-of-test_swallows_its_cancellation",
        "resource-of-test_tear_down",
    }


@pytest.mark.parametrize(
    ("name", "when", "text"),
    [
        ("test_swallows_its_cancellation", "call", "the call {}: it was closed at test_hangs.py:41 in {}"),
        ("test_catches_everything", "call", "the call {}: it is left behind at test_hangs.py:48 in {}"),
        ("test_tear_down", "teardown", "the tear-down {}: it was closed at test_hangs.py:26 in hangs_in_its_tear_down"),
        ("test_set_up", "setup", "the set-up {}: it was closed at test_hangs.py:33 in hangs_in_its_set_up"),
    ],
)
def test_what_hangs_is_told(run, name, when, text):
    assert message(run, f"test_hangs.py::{name}", when) == f"{name}: {text.format(HUNG, name)}"


def test_who_blocks_is_told_with_its_line(run):
    told = [without_figures(text) for text in findings(run, "test_blocks.py::test_blocks")]
    assert told == ["blocked the event loop for N s at test_blocks.py:12 in helper"]
    assert findings(run, "test_blocks.py::test_victim") == []


def test_what_is_left_is_told(run):
    (text,) = findings(run, "test_leaks.py::test_leaks")
    assert text == (
        "left task 'worker' (worker), created at test_leaks.py:15 in test_leaks, "
        "waiting at test_leaks.py:11 in worker: it was cancelled"
    )
    assert findings(run, "test_leaks.py::test_first_use") == []


def test_a_sync_test_fails_at_the_line_that_blocks(run):
    assert message(run, "test_sync.py::test_sleeps", "call") == (
        "@pytest.mark.timeout(0.2)\n"
        "    def test_sleeps():\n"
        ">       time.sleep(20)\n"
        "E       Failed: test_sleeps: the call took longer than its time-out of 0.2 s\n"
        "\n"
        "test_sync.py:10: Failed"
    )
