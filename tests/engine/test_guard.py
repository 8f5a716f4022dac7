"""What the guard stops never happens beside others, counts for nothing, and is known in the next run."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys

import pytest
from parity import SUITES, Bench, faults_of

from asynctest_kit.engine.guard import POINTS

INSTALLED = [
    point
    for point in POINTS
    if point[0].partition(".")[0] in sys.stdlib_module_names or importlib.util.find_spec(point[0].partition(".")[0])
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guard")
    shutil.copytree(SUITES / "guard", folder / "suite", ignore=shutil.ignore_patterns("__pycache__"))
    return Bench(folder / "runs", folder / "suite")


@pytest.fixture(scope="module")
def first(bench):
    return bench.engine()


@pytest.fixture(scope="module")
def second(bench, first):
    """The next run, which knows what the first has found."""
    return bench.engine("-k", "not neighbour")


@pytest.fixture(scope="module")
def third(bench, second):
    """A run after one of the two files has changed."""
    with (bench.suite / "test_ways.py").open("a") as file:
        file.write("\n# changed\n")
    return bench.engine("-k", "not neighbour")


def finished(run):
    return {event["nodeid"]: event for event in run.events if event["type"] == "CaseFinished"}


def attempts(run):
    return [event["nodeid"] for event in run.events if event["type"] == "AttemptFinished"]


def lanes(run, file):
    """The lanes of a file's tests, in the order of their attempts."""
    found: dict[str, list[str]] = {}
    for event in run.events:
        if event["type"] == "CaseStarted" and event["nodeid"].startswith(file):
            found.setdefault(event["nodeid"], []).append(event["lane"])
    return found


def nodeid_of(point):
    return f"test_points.py::test_touches[{point[0]}:{point[1]}]"


STOPPED = [
    "TestClass::test_class_one",
    "test_child_task",
    "test_fails_alone_too",
    "test_module_one",
    "test_module_two",
    "test_own_fixture",
    "test_swallows",
    "test_tear_down",
    "test_thread",
]
FREE = [
    "test_importing",
    "test_loop_of_a_thread",
    "test_neighbour",
    "test_same_value",
    "test_sleeps_a_moment",
    "test_sleeps_in_a_thread",
]


@pytest.mark.parametrize(
    "point", [point for point in POINTS if point in INSTALLED], ids=lambda point: ":".join(point[:2])
)
def test_every_point_is_there(point):
    owner = importlib.import_module(point[0])
    *outer, name = point[1].split(".")
    for part in outer:
        owner = getattr(owner, part)
    assert callable(vars(owner)[name]) or isinstance(vars(owner)[name], classmethod)


def test_every_point_is_tried(first):
    tried = {nodeid for nodeid in first.phases if nodeid.startswith("test_points.py::test_touches")}
    assert tried == {nodeid_of(point) for point in INSTALLED}


def test_everything_passes_that_should(first):
    passed = {nodeid for nodeid, outcome in first.outcomes.items() if outcome == "passed passed passed"}
    assert first.phases.keys() - passed == {"test_ways.py::test_fails_alone_too"}, first.out
    assert first.outcomes["test_ways.py::test_fails_alone_too"] == "passed failed passed"
    assert first.code == 1
    assert faults_of(first.trail) == []


def test_neighbours_never_see_a_change(first):
    """Both neighbours run until all have tried, and look at everything in every turn of the loop."""
    assert sorted(first.noted("neighbour")) == sorted([["neighbour", str(len(INSTALLED))], ["neighbour", "8"]])


@pytest.mark.parametrize("point", INSTALLED, ids=lambda point: ":".join(point[:2]))
def test_who_comes_to_a_point_is_moved(first, point):
    event = finished(first)[nodeid_of(point)]
    assert lanes(first, "test_points.py")[nodeid_of(point)] == ["shared", "exclusive"]
    assert attempts(first).count(nodeid_of(point)) == 1
    assert (event["verdict"], event["attempts"], event["lane"]) == ("moved", 2, "exclusive")
    note = re.fullmatch(r"ran alone, for it touched (.*) at guard_points\.py:\d+", event["note"])
    assert note is not None, event["note"]
    assert note[1] == point[2]
    # Stopped before the change: what comes after it happens once, in the attempt alone.
    assert first.noted("touched", *point[:2]) == [["touched", *point[:2]]]


def test_who_is_stopped_anywhere_is_moved(first):
    by_verdict = {
        nodeid.removeprefix("test_ways.py::"): event["verdict"]
        for nodeid, event in finished(first).items()
        if nodeid.startswith("test_ways.py")
    }
    failing = {"test_fails_alone_too": ""}
    assert by_verdict == dict.fromkeys(STOPPED, "moved") | dict.fromkeys(FREE, "") | failing
    for name in STOPPED:
        event = finished(first)[f"test_ways.py::{name}"]
        assert event["attempts"] == 2
        if name not in failing:
            assert event["note"] == "ran alone, for it touched os.environ at test_ways.py:20"
    for name in FREE:
        assert lanes(first, "test_ways.py")[f"test_ways.py::{name}"] == ["shared"]


def test_swallowing_it_does_not_help(first):
    assert first.noted("swallowed") == [["swallowed"]]
    assert first.noted("went-through") == [["went-through", "swallows"]]


def test_users_of_a_fixture_that_is_stopped_run_alone_one_after_the_other(first):
    running = [words for words in first.trail if words[0] in {"start", "end", "up", "down"}]
    values = [words for words in running if any(word.startswith("of_module#") for word in words[1:])]
    (up,) = [place for place, words in enumerate(running) if words == ["up", values[0][1]]]
    assert [words[:2] for words in running[up : up + 6]] == [
        ["up", values[0][1]],
        ["start", "module-one"],
        ["end", "module-one"],
        ["start", "module-two"],
        ["end", "module-two"],
        ["down", values[0][1]],
    ]


def test_the_report_of_a_failure_alone_is_shown(first):
    (phase,) = (phase for phase in first.phases["test_ways.py::test_fails_alone_too"] if phase.when == "call")
    assert "LookupError: of the test itself" in phase.longrepr
    assert "StateTouched" not in first.out


def test_the_next_run_runs_them_alone_at_once(first, second):
    moved = [event["nodeid"] for event in finished(first).values() if event["verdict"] == "moved"]
    started = lanes(second, "test_")
    assert {tuple(started[nodeid]) for nodeid in moved} == {("exclusive",)}
    assert attempts(second) == []
    assert {event["verdict"] for event in finished(second).values()} == {""}
    assert second.outcomes == {nodeid: first.outcomes[nodeid] for nodeid in second.phases}


def test_a_file_that_has_changed_gets_another_chance(first, third):
    ways, points = lanes(third, "test_ways.py"), lanes(third, "test_points.py")
    for name in STOPPED:
        assert ways[f"test_ways.py::{name}"] == ["shared", "exclusive"]
    assert set(map(tuple, points.values())) == {("exclusive",)}
    assert third.outcomes == {nodeid: first.outcomes[nodeid] for nodeid in third.phases}
