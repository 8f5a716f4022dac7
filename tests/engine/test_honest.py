"""Never a false pass, never a false fail: what pytest sees in one test, we see beside others."""

from __future__ import annotations

import pytest
from parity import SUITES, Bench, both

FAILING = {
    "test_background.py::test_task_fails",
    "test_background.py::test_task_that_nobody_keeps_fails",
    "test_background.py::test_callback_fails",
    "test_background.py::test_thread_fails",
    "test_background.py::test_coroutine_is_not_awaited",
    "test_background.py::test_warns_unexpectedly",
    "test_hooks.py::test_leaves_statements",
    "test_hooks.py::test_sync_leaves_statements",
    "test_hooks.py::test_refused_after_its_call",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return both(Bench(tmp_path_factory.mktemp("honest"), SUITES / "honest"))


def test_outcomes_are_pytests(runs):
    plain, engine = runs
    assert engine.outcomes == plain.outcomes


def test_what_should_fail_fails_and_nothing_else(runs):
    for run in runs:
        failed = {nodeid for nodeid, outcome in run.outcomes.items() if "failed" in outcome}
        assert failed == FAILING


def test_background_failures_name_their_cause(runs):
    _, engine = runs
    for nodeid, cause in [
        ("test_background.py::test_task_fails", "ValueError: in a task"),
        ("test_background.py::test_callback_fails", "ZeroDivisionError"),
        ("test_background.py::test_thread_fails", "PytestUnhandledThreadExceptionWarning"),
        ("test_background.py::test_coroutine_is_not_awaited", "PytestUnraisableExceptionWarning"),
    ]:
        assert any(cause in phase.longrepr for phase in engine.phases[nodeid])
