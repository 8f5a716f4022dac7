"""What pytest lets a suite say means the same under the engine."""

from __future__ import annotations

import pytest
from parity import SUITES, Bench, both, faults_of, set_ups

#: Modules whose tests fail on purpose; every other test of the suite must pass, lest two wrongs look like parity.
ON_PURPOSE = ("test_outcomes.py", "test_torn_module.py", "unit/")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("dialect"), SUITES / "dialect")
    return both(bench, "--doctest-modules", "--tb=short")


def test_outcomes_are_the_same(runs):
    plain, engine = runs
    assert engine.outcomes == plain.outcomes, engine.out
    assert engine.code == plain.code == 1


def test_what_should_pass_passes(runs):
    _, engine = runs
    expected = {
        "test_request.py::test_get_missing_uncaught": "passed failed passed",
        "test_request.py::test_marked_by_fixture": "passed xfailed passed",
        "test_request.py::test_marks_itself": "passed xfailed passed",
        "test_scopes.py::test_pairs[named]": "passed xfailed passed",
    }
    assert {
        nodeid: outcome
        for nodeid, outcome in engine.outcomes.items()
        if not nodeid.startswith(ON_PURPOSE) and outcome != "passed passed passed"
    } == expected


def test_failures_read_the_same(runs):
    plain, engine = runs
    theirs, ours = plain.longreprs, engine.longreprs
    group = "test_outcomes.py::test_torn_both teardown"  # an exception group is printed with the frames that raise it
    assert "2 sub-exceptions" in theirs.pop(group)
    assert "2 sub-exceptions" in ours.pop(group)
    assert ours == theirs


def test_fixtures_live_rightly(runs):
    plain, engine = runs
    assert faults_of(plain.trail) == []
    assert faults_of(engine.trail) == []


@pytest.mark.parametrize(
    "name",
    [
        "sync_session",
        "async_session",
        "over_async",
        "plain_only",
        "own_module",
        "of_class",
        "box",
        "each_session-a",
        "each_session-b",
        "each_module-1",
        "each_module-2",
        "dynamic",
        "per_side-l",
        "per_side-r",
    ],
)
def test_shared_fixtures_are_set_up_once(runs, name):
    _, engine = runs
    assert set_ups(engine.trail, name) == 1


def test_own_fixtures_are_set_up_as_often_as_by_pytest(runs):
    plain, engine = runs
    for name in ("async_local", "sync_local", "mine"):
        assert set_ups(engine.trail, name) == set_ups(plain.trail, name) > 0


def test_everything_noted_under_pytest_is_noted(runs):
    plain, engine = runs
    kinds = ("setup_module", "setup_class", "setup_method", "teardown_method", "teardown_class", "teardown_module")
    kinds += ("setUpClass", "tearDownClass", "finalized", "lazy", "setup_function", "teardown_function")
    for kind in kinds:
        assert sorted(engine.noted(kind)) == sorted(plain.noted(kind)) != [], kind


def test_autouse_fixtures_surround_every_test_that_can_run(runs):
    around, ours = ({line[1] for line in run.noted("everywhere")} for run in runs)
    assert ours <= around
    # A test whose closure can't be resolved sets nothing up at all, where pytest begins and then fails.
    assert around - ours == {
        "test_outcomes.py::test_missing_deeper",
        "test_outcomes.py::test_missing_fixture",
    }


def test_finalizers_run_last_first(runs):
    _, engine = runs
    order = [line[1] for line in engine.noted("finalized") if line[1] in {"first", "second"}]
    assert order == ["second", "first"]
