"""Suites of pytest-asyncio run on our loop, with the outcomes that they have under it."""

from __future__ import annotations

import pytest
from parity import SUITES, Bench, both, faults_of, set_ups

plugin = pytest.importorskip("pytest_asyncio.plugin")

#: Until 1.0 a fixture gave each test its loop, and suites replaced it.
HAS_EVENT_LOOP = hasattr(plugin, "event_loop")
HAS_FACTORIES = hasattr(plugin, "_asyncio_loop_factory")

ON_OUR_LOOP = {
    "asyncio_auto": 19,
    "asyncio_strict": 13,
    "asyncio_event_loop": 5,
    "asyncio_policy": 1,
    "asyncio_factories": 3,
}


SUITES_OF_THIS_VERSION = [
    "asyncio_auto",
    "asyncio_strict",
    "asyncio_policy",
    *(["asyncio_event_loop"] if HAS_EVENT_LOOP else []),
    *(["asyncio_factories"] if HAS_FACTORIES else []),
]


@pytest.fixture(scope="module", params=SUITES_OF_THIS_VERSION)
def suite(request):
    return request.param


@pytest.fixture(scope="module")
def runs(suite, tmp_path_factory):
    return both(Bench(tmp_path_factory.mktemp(suite), SUITES / suite), "--tb=short")


def test_outcomes_are_the_same(runs):
    plain, engine = runs
    assert engine.outcomes == plain.outcomes, engine.out
    assert engine.code == plain.code


def test_failures_read_the_same(runs):
    plain, engine = runs
    theirs, ours = plain.longreprs, engine.longreprs
    for twice in [name for name in theirs if "test_twice" in name]:  # each has words of its own for a second yield
        assert "fixture function has more than one 'yield'" in ours.pop(twice)
        assert "Async generator fixture didn't stop" in theirs.pop(twice)
    for generated in [name for name in theirs if "test_hypothesis" in name]:  # told in words of chance
        assert "assert 1 > 3" in ours.pop(generated)
        assert "assert 1 > 3" in theirs.pop(generated)
    assert ours == theirs


def test_its_tests_run_on_our_loop(suite, runs):
    _, engine = runs
    ours = [event for event in engine.events if event["type"] == "CaseFinished" and event["lane"] != "pytest"]
    assert len(ours) == ON_OUR_LOOP[suite]


def test_fixtures_live_rightly(runs):
    plain, engine = runs
    assert faults_of(engine.trail) == []
    for name in {line[1].partition("#")[0] for line in plain.noted("up")} & {"server", "table", "of_class"}:
        assert set_ups(engine.trail, name) == set_ups(plain.trail, name), name
