"""The corners of scopes, parameters, overrides, requests and marks."""

from __future__ import annotations

import pytest
from parity import SUITES, Bench, both, faults_of, set_ups


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return both(Bench(tmp_path_factory.mktemp("corners"), SUITES / "corners"), "--tb=short")


def test_outcomes_are_the_same(runs):
    plain, engine = runs
    assert engine.outcomes == plain.outcomes, engine.out
    assert engine.code == plain.code == 1


def test_failures_read_the_same(runs):
    plain, engine = runs
    assert engine.longreprs == plain.longreprs


def test_only_marks_fail_on_purpose(runs):
    _, engine = runs
    unhappy = {nodeid for nodeid, outcome in engine.outcomes.items() if "failed" in outcome.split()}
    assert {nodeid for nodeid in unhappy if not nodeid.startswith("test_marks.py")} == {
        "test_requests.py::test_raises_error",
        "test_requests.py::test_marked_late_and_passes",
        "test_levels.py::TestAsyncXunit::test_not_awaited",
        "test_levels.py::TestOverridingHeir::test_word",  # a fixture can't ask for the one of its base class
    }


def test_fixtures_live_rightly(runs):
    for run in runs:
        assert faults_of(run.trail) == []


@pytest.mark.parametrize(
    "name",
    [
        "plugin_autouse",
        "from_ini",
        "once",
        "wide_by_name",
        "own_package",
        "pack_autouse",
        *(f"session_param-{number}" for number in (1, 2, 3, 7, 8, 9)),
        "package_param-p",
        "package_param-q",
        "class_param-i",
        "class_param-j",
    ],
)
def test_shared_fixtures_are_set_up_once(runs, name):
    plain, engine = runs
    assert 1 == set_ups(engine.trail, name) <= set_ups(plain.trail, name)


def test_other_shared_fixtures_are_set_up_as_often_as_by_pytest(runs):
    plain, engine = runs
    for name in ("module_param-a", "module_param-b", "of_package", "conftest_autouse", "module_autouse"):
        assert set_ups(engine.trail, name) == set_ups(plain.trail, name) > 0, name


def test_what_is_noted_is_the_same(runs):
    plain, engine = runs
    for kind in ("finalized", "torn", "unmade", "unmade-async", "collected"):
        assert sorted(engine.noted(kind)) == sorted(plain.noted(kind)) != [], kind
