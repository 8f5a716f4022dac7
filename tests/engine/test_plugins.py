"""Fixtures of faker, pytest-mock and respx: outcomes and values as under pytest, beside others where it can be."""

from __future__ import annotations

import pytest
from parity import SUITES, Bench, both

for _plugin in ("faker", "pytest_mock", "respx"):
    pytest.importorskip(_plugin)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return both(Bench(tmp_path_factory.mktemp("plugins"), SUITES / "plugins"))


def finished(run):
    return {event["nodeid"].partition("::")[2]: event for event in run.events if event["type"] == "CaseFinished"}


def beside(run, names):
    """Of those tests whose names hold one of ``names`` the ones that ran beside others."""
    return {nodeid for nodeid, event in finished(run).items() if event["lane"] == "shared" and nodeid.startswith(names)}


def test_outcomes_and_values_are_pytests(runs):
    plain, engine = runs
    assert engine.outcomes == plain.outcomes
    assert set(engine.outcomes.values()) == {"passed passed passed"}, engine.out
    properties = [
        {nodeid: [phase.properties for phase in phases] for nodeid, phases in run.phases.items()} for run in runs
    ]
    assert properties[0] == properties[1]


def test_who_draws_from_faker_runs_beside_others(runs):
    _, engine = runs
    numbers = {"test_draws": 4, "test_none_twice": 2, "TestSeeded::test_draws": 2, "TestElsewhere::test_draws": 2}
    numbers["TestOfTheShop::test_draws"] = 2
    together = {f"{name}[{number}]" for name, count in numbers.items() for number in range(count)}
    assert beside(engine, ("test_draws", "test_none", "Test", "test_asks")) == together | {"test_asks"}


def test_who_cannot_have_a_faker_of_its_own_runs_alone(runs):
    _, engine = runs
    notes = {event["note"] for nodeid, event in finished(engine).items() if nodeid.startswith("test_counts")}
    (note,) = notes
    assert note.startswith("ran alone, for it touched the session's Faker, which can't be copied")


def test_who_mocks_runs_alone_and_who_does_not_beside_others(runs):
    _, engine = runs
    names = {"test_not_patched": 3, "test_answers": 2, "test_answers_by_itself": 2}
    together = {f"{name}[{number}]" for name, count in names.items() for number in range(count)}
    assert beside(engine, ("test_not_patched", "test_answers", "test_patched")) == together


def test_who_mocks_http_by_itself_runs_beside_others(runs):
    _, engine = runs
    numbers = {
        "test_decorated": 10, "test_context": 10, "test_shared_router": 10, "test_fixture": 10,
        "test_plugins_fixture": 3, "test_child_tasks_and_threads": 3, "test_not_mocked": 10,
    }  # fmt: skip
    together = {f"{name}[{number}]" for name, count in numbers.items() for number in range(count)}
    assert together | {"test_decorated_with_a_router"} <= beside(engine, tuple(numbers))


def test_what_mocks_share_runs_alone(runs):
    _, engine = runs
    alone = {nodeid.partition("[")[0]: event["note"] for nodeid, event in finished(engine).items() if event["note"]}
    assert "respx at " in alone["TestOfAClass::test_one"]
    assert "a route of respx that other tests have, too, at " in alone["test_route_of_all"]
    assert "which a shared fixture's code called" in alone["test_called_by_a_shared_fixture"]
