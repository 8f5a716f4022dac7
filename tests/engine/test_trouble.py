"""Time-outs, cancellation and dying fixtures: each is reported where it belongs, and harms nobody else."""

from __future__ import annotations

import pytest
from parity import SUITES, Bench, faults_of

FILE = "test_trouble.py::"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("trouble"), SUITES / "trouble").engine("--tb=short")


def failures(run, name):
    return {phase.when: phase.longrepr for phase in run.phases[FILE + name] if phase.outcome == "failed"}


def test_neighbours_pass(run):
    for name in ("test_neighbour", "test_has_no_limit", "test_unmarked_neighbour", "test_scoped[0]", "test_scoped[2]"):
        assert run.outcome(FILE + name) == "passed passed passed"


def test_fixtures_live_rightly(run):
    # The crew ends under its test, since its own child cuts it off.
    assert [fault for fault in faults_of(run.trail) if not fault.endswith("under crew-fails")] == []


def test_unmarked_coroutines_run(run):
    assert run.outcome("test_unmarked.py::test_unmarked") == "passed passed passed"
    assert run.outcome("test_unmarked.py::TestUnmarked::test_method") == "passed passed passed"


@pytest.mark.parametrize("name", ["test_hangs", "test_hangs_by_our_mark"])
def test_time_out_tells_limit_and_line(run, name):
    ((when, text),) = failures(run, name).items()
    assert when == "call"
    assert f"{name}: the call took longer than its time-out of 0.05 s" in text
    assert "test_trouble.py:" in text
    assert ("asyncio.sleep(100)" in text) == (name == "test_hangs")


def test_time_out_in_set_up_and_tear_down(run):
    assert "the set-up took longer than its time-out of 0.05 s" in failures(run, "test_hangs_in_set_up")["setup"]
    assert (
        "the tear-down took longer than its time-out of 0.05 s" in failures(run, "test_hangs_in_tear_down")["teardown"]
    )


def test_swallowed_time_out_is_not_taken_for_success(run):
    assert run.noted("swallowed")
    assert "took longer than its time-out" in failures(run, "test_swallows_cancellation")["call"]


def test_expected_time_out(run):
    assert run.outcome(FILE + "test_hangs_as_expected") == "passed xfailed passed"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_own_time_out", "TimeoutError"),
        ("test_system_exit", "SystemExit: 3"),
        ("test_cancels_itself", "CancelledError"),
        ("test_raises_cancelled", "CancelledError"),
        ("test_base_exception", "Odd"),
        ("test_fails_in_an_anyio_child", "Failed: from a child"),
    ],
)
def test_whatever_a_test_raises_is_its_own(run, name, message):
    assert run.outcome(FILE + name) == "passed failed passed"
    assert message in failures(run, name)["call"]


def test_outcome_in_a_child(run):
    assert run.outcome(FILE + "test_skips_in_a_child") == "passed skipped passed"


def test_dying_fixture_fails_later_users_and_is_charged_to_the_last(run):
    assert run.outcome(FILE + "test_crew_fails") == "passed passed passed"
    assert run.outcome(FILE + "test_crew_is_gone") == "failed failed"
    assert "ended while tests still needed it" in failures(run, "test_crew_is_gone")["setup"]
    assert "LookupError: the child" in failures(run, "test_crew_is_gone")["teardown"]


def test_fixture_whose_set_up_was_cancelled(run):
    for name in ("test_cut_off", "test_cut_off_again"):
        assert "the set-up of fixture cut_off" in failures(run, name)["setup"]
        assert "was cancelled" in failures(run, name)["setup"]


@pytest.mark.parametrize(
    "name",
    [
        "test_sync_whose_fixture_cancels_itself",
        "test_sync_ends_all_after_one_cancels_itself",
        "test_whose_fixture_cancels_itself",
    ],
)
def test_tear_down_that_cancels_itself_is_no_interrupt(run, name):
    assert run.outcome(FILE + name) == "passed passed failed"
    assert run.code == 1
