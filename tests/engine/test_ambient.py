"""Fixtures around every test that change the process's state: the same for all, or back to what it was."""

from __future__ import annotations

import pytest
from parity import SUITES, Bench


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("ambient"), SUITES / "ambient")
    plain, engine = bench.start_plain(), bench.start()
    return plain.finish(), engine.finish()


def finished(run):
    return {event["nodeid"].rpartition("/")[2]: event for event in run.events if event["type"] == "CaseFinished"}


def names(run, **wanted):
    """Tests whose last event has these values."""
    return {
        nodeid.rpartition("::")[2]
        for nodeid, event in finished(run).items()
        if all(event[name] == value for name, value in wanted.items())
    }


def test_state_is_as_under_pytest(runs):
    plain, engine = runs
    assert engine.outcomes == plain.outcomes
    assert set(engine.outcomes.values()) == {"passed passed passed"}, engine.out
    assert engine.code == plain.code == 0


def test_they_run_beside_each_other(runs):
    _, engine = runs
    beside = {f"test_{name}[{number}]" for name in ("sees_it", "never_sees_it", "reads") for number in range(6)}
    assert names(engine, lane="shared") == beside | {"test_over_the_session"}
    assert names(engine, lane="pytest") == {"test_sync", "test_sync_never_sees_it", "test_sync_changes"}


def test_some_met_and_none_met_another_state(runs):
    _, engine = runs
    running: set[str] = set()
    most: dict[str, int] = {}
    for kind, *words in engine.trail:
        if kind == "start":
            running.add(words[0])
            kinds = {name.partition("-")[0] for name in running}
            assert "patched" not in kinds or kinds == {"patched"}
            assert "alone" not in kinds or len(running) == 1
            for name in kinds:
                most[name] = max(most.get(name, 0), sum(other.startswith(name) for other in running))
        elif kind == "end":
            running.remove(words[0])
    assert {name for name, count in most.items() if count > 2} == {"patched", "plain", "reads"}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("changes[item]", "Registry.tasks at put_back/test_put_back.py:23"),
        ("changes[append]", "Registry.names at put_back/test_put_back.py:24"),
        ("changes[update]", "Registry.tasks at put_back/test_put_back.py:25"),
        ("sets", "product.Registry.current, which a fixture had to put back"),
    ],
)
def test_who_changes_what_is_put_back_is_moved(runs, name, place):
    _, engine = runs
    event = finished(engine)[f"test_put_back.py::test_{name}"]
    assert (event["verdict"], event["attempts"], event["note"]) == ("moved", 2, f"ran alone, for it touched {place}")


def test_containers_are_guarded_before_they_change(runs):
    _, engine = runs
    assert sorted(engine.noted("changed")) == [["changed", "append"], ["changed", "item"], ["changed", "update"]]


def test_what_only_the_test_knows_runs_alone(runs):
    _, engine = runs
    moved = {"test_changes[item]", "test_changes[append]", "test_changes[update]", "test_sets"}
    assert names(engine, lane="exclusive") == moved | {"test_of_its_own", "test_uses_monkeypatch", "test_undoes"}
