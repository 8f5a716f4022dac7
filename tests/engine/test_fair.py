"""A busy neighbour makes timers late, and changes neither their order nor whether a deadline is met."""

from __future__ import annotations

import re

import pytest
from parity import SUITES, Bench

FILE = SUITES / "fair/test_fair.py"
WAYS = ["by_timeout", "by_wait_for", "by_fail_after", "by_wait", "by_alarm", "by_timer"]
MISSED = {f"test_misses_its_deadline[{way}]" for way in WAYS}

#: Their deadlines are met alone, as their neighbours' turns are what makes them late.
IN_DOUBT = {"test_time_limit", "test_wait_for"}

#: They fail where they meet it.
EXPECT = {"test_expects_to_miss_it[with_raises]", "test_expects_to_miss_it[with_a_result]"}

#: They fail beside others only, and tell of a deadline.
FAIL = {
    "test_fails_beside_others": r"0\.1 s at test_fair\.py:\d+ in test_fails_beside_others, which was met",
    "test_fails_for_another_reason[within]": r"0\.08 s at test_fair\.py:\d+ in within, which was met",
    "test_fails_for_another_reason[within_as_long]": r"0\.08 s at test_fair\.py:\d+ in within, which was met",
    "test_is_late": r"0\.02 s at test_fair\.py:\d+ in test_is_late, which was over",
}

RUNS_ONCE = {"test_runs_only_once", "test_waits_for_what_is_gone"}

WITH_VERDICT = {"test_is_skipped_alone", "test_misses_it_once", *FAIL, *RUNS_ONCE}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("fair"), SUITES / "fair").engine(FILE.name)


@pytest.fixture(scope="module")
def finished(run):
    return {event["nodeid"].rpartition("::")[2]: event for event in run.events if event["type"] == "CaseFinished"}


def test_all_pass_beside_who_blocks_but_those_that_miss_a_deadline(run, finished):
    passed = {name for name, event in finished.items() if event["outcome"] == "passed"}
    assert passed == finished.keys() - MISSED - FAIL.keys(), run.out
    assert {finished[name]["outcome"] for name in MISSED | FAIL.keys()} == {"failed"}


def test_those_whose_deadline_is_in_doubt_run_again_alone(finished):
    again = {name: (event["attempts"], event["lane"], event["cause"]) for name, event in finished.items()}
    once = {name for name, event in finished.items() if event["attempts"] == 1}
    assert once == finished.keys() - MISSED - IN_DOUBT - EXPECT - WITH_VERDICT
    assert {again[name] for name in MISSED | IN_DOUBT} == {(2, "exclusive", "deadline")}
    for name in IN_DOUBT:
        assert finished[name]["note"].startswith("beside others it may have missed a deadline of 0.0")
    assert {name for name, event in finished.items() if event["verdict"]} == WITH_VERDICT


def test_an_attempt_alone_that_says_nothing_leaves_it_doubtful(run, finished):
    event = finished["test_is_skipped_alone"]
    assert (event["outcome"], event["verdict"], event["attempts"]) == ("passed", "doubtful", 2)
    assert event["note"].startswith("may have missed a deadline of 0.1 s at test_fair.py:")
    assert "Run again alone, it was skipped, which says nothing of that" in event["note"]
    assert ", 3 doubtful" in run.out


@pytest.mark.parametrize(
    ("name", "raised"),
    [("test_runs_only_once", "AssertionError: 409: is there already"), ("test_waits_for_what_is_gone", "Assert")],
)
def test_a_pass_stands_if_alone_it_fails_by_another_than_the_deadline_in_doubt(finished, name, raised):
    event = finished[name]
    assert (event["outcome"], event["verdict"], event["attempts"]) == ("passed", "doubtful", 2)
    assert event["note"].startswith("may have missed a deadline of 0.1 s at test_fair.py:")
    assert f"Run again alone, it failed by no deadline, with: {raised}" in event["note"]
    assert "the test may be one that can't run twice" in event["note"]


@pytest.mark.parametrize("name", sorted(EXPECT))
def test_who_expects_to_miss_a_deadline_and_does_so_alone_has_passed(finished, name):
    event = finished[name]
    assert (event["outcome"], event["verdict"], event["attempts"]) == ("passed", "", 2)
    assert event["note"].startswith(
        "it expects a time-out, and failed beside others, where there was a deadline of 0.1 s at test_fair.py:"
    )
    assert event["note"].endswith("by the wall clock; it passed alone, and that counts")


@pytest.mark.parametrize("name", FAIL)
def test_a_failure_with_a_deadline_that_was_late_is_told_and_not_traced(run, finished, name):
    event = finished[name]
    assert (event["verdict"], event["attempts"]) == ("interference", 2)
    told = (
        rf"passes alone, maybe for the clock: there was a deadline of {FAIL[name]} after [\d.]+ s by the wall clock; "
    )
    assert re.search(told, event["note"])
    assert event["note"] in said(run, name)
    assert "tracing" not in {event["cause"] for event in run.events if event["type"] == "AttemptFinished"}


def test_it_has_its_retries(finished):
    event = finished["test_misses_it_once"]
    assert (event["outcome"], event["verdict"], event["attempts"]) == ("passed", "flaky", 3)
    assert event["note"] == "failed once, at first with: TimeoutError"


def said(run, name):
    (phase,) = (phase for phase in run.phases[f"test_fair.py::{name}"] if phase.when == "call")
    return dict(phase.sections).get("asynctest_kit")


@pytest.mark.parametrize(
    ("way", "line", "function"),
    [
        (
            "by_timeout",
            "async with asyncio.timeout(0.1):\n        await answer()\n\n\nasync def by_wait_for",
            "by_timeout",
        ),
        ("by_wait_for", "await asyncio.wait_for(answer(), 0.1)", "by_wait_for"),
        ("by_timer", "timer.cancel()", "by_timer"),
    ],
)
def test_the_failure_says_how_it_passed_before(run, way, line, function):
    number = FILE.read_text().partition(line)[0].count("\n") + 1
    told = said(run, f"test_misses_its_deadline[{way}]")
    assert told.startswith("It passed beside others first, but may have missed a deadline of 0.1 s at ")
    assert f"test_fair.py:{number} in {function}, which was met after " in told
    assert "atk(exclusive=True)" in told


def test_a_shared_fixtures_deadline_is_a_finding(run):
    (found,) = (event for event in run.events if event["type"] == "FindingMade" and "deadline" in event["text"])
    assert found["nodeid"].startswith("fixture server")
    assert found["text"].startswith("may have missed a deadline of 0.1 s at test_fair.py:")


def test_what_lies_between_two_timers_has_its_turns(run):
    assert run.noted("two") == [["two", "answered", "looked"]]


def test_they_ran_beside_who_blocks(run):
    first = {
        event["nodeid"].rpartition("::")[2]: event
        for event in run.events
        if event["type"] in {"CaseFinished", "AttemptFinished"} and not event["cause"]
    }
    blocks = first["test_blocks"]
    for name, event in first.items():
        if name not in {"test_blocks", "test_alone"}:
            assert event["lane"] == "shared"
            assert blocks["start"] < event["call_end"] <= blocks["end"]


def test_alone_the_clock_is_asyncios(run):
    assert run.noted("moved") == [["moved", "True"]]


def test_a_deadline_that_was_met_alone_with_ease_is_not_doubted_in_the_next_run(tmp_path):
    bench = Bench(tmp_path, SUITES / "fair")
    runs = [bench.engine("test_room.py") for _ in range(2)]
    attempts = [[event["attempts"] for event in run.events if event["type"] == "CaseFinished"] for run in runs]
    assert attempts == [[1, 2], [1, 1]]
