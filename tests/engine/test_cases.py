"""unittest's cases and subtests come out as under pytest."""

from __future__ import annotations

import pytest
from parity import SUITES, Bench, both, faults_of

if not hasattr(pytest, "Subtests"):
    pytest.importorskip("pytest_subtests")
    PLUGINS = ["-p", "pytest_subtests.plugin"]
else:
    PLUGINS = []


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return both(Bench(tmp_path_factory.mktemp("cases"), SUITES / "cases"), "--tb=short", *PLUGINS)


def test_outcomes_are_the_same(runs):
    plain, engine = runs
    assert engine.outcomes == plain.outcomes, engine.out
    assert engine.longreprs == plain.longreprs
    assert engine.code == plain.code == 1


def test_hooks_of_cases_are_called_as_often(runs):
    plain, engine = runs
    kinds = ("cleaned", "asyncTearDown", "tearDown", "context-up", "context-down", "cleanup", "class-cleanup")
    for kind in (*kinds, "setUpModule", "tearDownModule"):
        assert sorted(engine.noted(kind)) == sorted(plain.noted(kind)) != [], kind


def test_subtests_have_their_own_output(runs):
    for run in runs:
        setup, subtest, *rest = run.phases["test_subtests.py::test_output"]
        assert {name: text for name, text in subtest.sections if text} == {"Captured stdout call": "from a subtest\n"}
        assert [phase.sections for phase in (setup, *rest)] == [()] * (1 + len(rest)), run.out


def test_fixtures_live_rightly(runs):
    for run in runs:
        assert faults_of(run.trail) == []
