"""A fixture or a test that is declared wrongly is told so in pytest's words."""

from __future__ import annotations

import pytest
from parity import SUITES, Bench, both

FILE = "test_misdeclared.py"

#: What the report of each must say.
MESSAGES = {
    "test_not_found setup": "fixture 'nowhere' not found\n>       available fixtures: ",
    "test_not_found_below setup": "fixture 'nowhere' not found\n>       available fixtures: ",
    "test_uses_nothing setup": "fixture 'nowhere_used' not found",
    "test_recursive setup": "recursive dependency involving fixture 'ring' detected",
    "test_itself setup": "recursive dependency involving fixture 'itself' detected",
    "test_scope_mismatch setup": (
        "ScopeMismatch: You tried to access the function scoped fixture fine with a module scoped request object."
    ),
    "test_scope_mismatch_asked setup": (
        "ScopeMismatch: You tried to access the function scoped fixture fine with a module scoped request object."
    ),
    "test_no_yield setup": "no_yield did not yield a value",
    "test_no_yield_sync setup": "no_yield_sync did not yield a value",
    "test_two_yields teardown": "fixture function has more than one 'yield':",
    "test_two_yields_sync teardown": "fixture function has more than one 'yield':",
    "test_async_generator call": "async def functions are not natively supported.",
    "test_no_param setup": "AttributeError: 'SubRequest' object has no attribute 'param'",
    "test_asked_without_param call": "The requested fixture has no parameter defined for test:",
    "test_direct_call call": 'Fixture "fine" called directly. Fixtures are not meant to be called directly,',
    "test_unknown_scope_asked call": "FixtureRequest.getfixturevalue() takes 2 positional arguments but 3 were given",
    "test_returns_a_coroutine call": "async def functions are not natively supported.",
    "TestStatic::test_without_self call": "takes 0 positional arguments but 1 was given",
}

#: Where ours tells more than the plugin that runs async fixtures under pytest.
OURS = {"test_two_yields teardown", "test_scope_mismatch_asked setup"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return both(Bench(tmp_path_factory.mktemp("misdeclared"), SUITES / "misdeclared"), "--tb=short")


def test_outcomes_are_the_same(runs):
    plain, engine = runs
    assert engine.outcomes == plain.outcomes, engine.out


def test_messages_are_pytests(runs):
    theirs, ours = (
        {name: text for name, text in run.longreprs.items() if name.removeprefix(f"{FILE}::") not in OURS}
        for run in runs
    )
    assert ours == theirs


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_say_what_is_wrong(runs, name):
    _, engine = runs
    test, _, when = name.partition(" ")
    (report,) = [phase for phase in engine.phases[f"{FILE}::{test}"] if phase.when == when]
    assert MESSAGES[name] in report.longrepr


def test_nothing_else_fails(runs):
    _, engine = runs
    unhappy = {nodeid for nodeid, outcome in engine.outcomes.items() if "failed" in outcome}
    assert unhappy - {f"{FILE}::{name.partition(' ')[0]}" for name in MESSAGES} <= {
        "test_sync_asks_async.py::test_sync",
    }


def test_an_unknown_argument_of_the_mark_is_refused(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_wrong.py").write_text(
        "import pytest\n\n\n@pytest.mark.atk(exclusiv=True)\nasync def test_wrong():\n    pass\n"
    )
    run = Bench(tmp_path / "runs", tmp_path).engine("-p", "asynctest_kit.plugin")
    assert run.code == 4
    assert "test_wrong.py::test_wrong" in run.out
    assert "unknown argument 'exclusiv'" in run.out
