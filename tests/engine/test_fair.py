"""A neighbour that is busy makes timers late, and never changes their order or what happens between them."""

from __future__ import annotations

import pytest
from parity import SUITES, Bench


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("fair"), SUITES / "fair").engine()


def test_all_pass_at_once_beside_who_blocks(run):
    assert set(run.outcomes.values()) == {"passed passed passed"}, run.out
    attempts = {event["nodeid"]: event["attempts"] for event in run.events if event["type"] == "CaseFinished"}
    assert set(attempts.values()) == {1}
    assert not [event for event in run.events if event["type"] == "AttemptFinished"]


def test_what_lies_between_two_timers_has_its_turns(run):
    assert run.noted("two") == [["two", "answered", "looked"]]


def test_they_ran_beside_who_blocks(run):
    events = {event["nodeid"].rpartition("::")[2]: event for event in run.events if event["type"] == "CaseFinished"}
    blocks = events["test_blocks"]
    for name, event in events.items():
        if name not in {"test_blocks", "test_alone"}:
            assert event["lane"] == "shared"
            assert blocks["start"] < event["end"] <= blocks["end"]


def test_alone_the_clock_is_asyncios(run):
    assert run.noted("moved") == [["moved", "True"]]
