"""A group's tests share its limit, and nobody else waits for it."""

from __future__ import annotations

import json

import pytest
from parity import SUITES, Bench

GROUPS = {"groups": {"three": 3}}


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, SUITES / "groups")


def most(run, *groups):
    """How many tests whose names begin with one of ``groups`` ran at once at most, and how many ran."""
    prefixes = tuple(f"{group}-" for group in groups)
    running: set[str] = set()
    ran: set[str] = set()
    found = 0
    for kind, *words in run.trail:
        if kind == "start":
            running.add(words[0])
            ran.add(words[0])
        elif kind == "end":
            running.discard(words[0])
        found = max(found, sum(name.startswith(prefixes) for name in running))
    return found, sum(name.startswith(prefixes) for name in ran)


def lanes(run):
    return {event["nodeid"]: event["lane"] for event in run.events if event["type"] == "CaseFinished"}


def options(**given):
    return json.dumps(given)


def test_limits_hold(bench):
    run = bench.engine(SUITE_OPTIONS=options(**GROUPS))
    assert set(run.outcomes.values()) == {"passed passed passed"}, run.out
    assert most(run, "one") == (1, 5)
    assert most(run, "three") == (3, 7)
    assert most(run, "free") == (4, 4)


def test_others_go_on(bench):
    """One that holds its group's only place waits for a test that comes after those in the queue behind it."""
    run = bench.engine("-k", "holds or next_in_group or of_another_group", timeout=20)
    assert run.code == 0, run.out
    assert [words for words in run.trail if words[1] != "other-1"] == [
        ["start", "held-1"],
        ["end", "held-1"],
        ["start", "held-2"],
        ["end", "held-2"],
    ]


def test_settings_overrule_marks(bench):
    rules = {
        "*::test_one*": {"group": "three"},
        "*::test_closest": {"group": "three"},
        "*::test_free*": {"exclusive": True},
        "*::test_alone": {"exclusive": False},
    }
    run = bench.engine(SUITE_OPTIONS=options(rules=rules, **GROUPS))
    assert run.code == 0, run.out
    assert most(run, "one", "three") == (3, 12)
    assert most(run, "free") == (1, 4)
    by_lane = lanes(run)
    assert by_lane["test_groups.py::test_free[0]"] == "exclusive"
    assert by_lane["test_groups.py::test_alone"] == "shared"


def test_the_first_rule_that_says_a_thing_wins(bench):
    rules = {"*::test_free*": {"retries": 1}, "*": {"exclusive": True}, "*test_free*": {"exclusive": False}}
    run = bench.engine("-k", "free", SUITE_OPTIONS=options(rules=rules))
    assert set(lanes(run).values()) == {"exclusive"}


PLAN = """\
21 tests, at most 64 at once
     19 beside each other on one loop
      1 alone on that loop
      1 alone, by pytest's own protocol
in this order: 2 alone, while services start; 19 beside each other
group held: 2 tests, at most 1 at once
group one: 5 tests, at most 1 at once
group other: 1 test, at most 1 at once
group three: 7 tests, at most 3 at once

alone on that loop: asked for by a mark or the settings
  test_groups.py::test_alone

alone, by pytest's own protocol: not a coroutine function
  test_groups.py::test_sync
"""


def test_the_plan_is_told_and_not_carried_out(bench):
    run = bench.engine(SUITE_OPTIONS=options(explain_plan=True, **GROUPS))
    assert run.code == 0, run.out
    assert PLAN in run.out
    assert run.trail == []
    assert run.phases == {}
    assert [event["type"] for event in run.events] == ["CollectionFinished"]


def test_the_plan_tells_what_an_earlier_run_found(tmp_path):
    bench = Bench(tmp_path, SUITES / "guard")
    bench.engine("test_ways.py::test_swallows", "test_ways.py::test_same_value")
    run = bench.engine(
        "test_ways.py::test_swallows", "test_ways.py::test_same_value", SUITE_OPTIONS=options(explain_plan=True)
    )
    assert (
        "2 tests, at most 64 at once\n"
        "      1 beside each other on one loop\n"
        "      1 alone on that loop\n"
        "in this order: 1 alone, while services start; 1 beside each other\n"
        "\n"
        "alone on that loop: in an earlier run it touched os.environ at test_ways.py:20\n"
        "  test_ways.py::test_swallows\n"
    ) in run.out


ALLOWED = "It takes exclusive, group, timeout, retries, isolation."


BAD_MARKS = {
    "'one'": f"positional argument 'one': it takes keywords only. {ALLOWED}",
    "exclusiv=True": f"unknown argument 'exclusiv'. Did you mean exclusive? {ALLOWED}",
    "xyz=1": f"unknown argument 'xyz'. {ALLOWED}",
    "exclusive=1": "exclusive=1 is not True or False.",
    "group=''": "group='' is not a name.",
    "group=3": "group=3 is not a name.",
    "timeout=-1": "timeout=-1 is not a number of seconds from 0 (no limit).",
    "timeout='1s'": "timeout='1s' is not a number of seconds from 0 (no limit).",
    "timeout=True": "timeout=True is not a number of seconds from 0 (no limit).",
    "timeout=float('inf')": "timeout=inf is not a number of seconds from 0 (no limit).",
    "timeout=float('nan')": "timeout=nan is not a number of seconds from 0 (no limit).",
    "retries=-1": "retries=-1 is not a whole number from 0.",
    "retries=1.0": "retries=1.0 is not a whole number from 0.",
    "retries=True": "retries=True is not a whole number from 0.",
    "isolation='schema'": "isolation='schema' is not one of 'transaction', 'database', 'server'.",
}


@pytest.mark.parametrize(
    ("place", "arguments"),
    [*(("test", arguments) for arguments in BAD_MARKS), ("class", "xyz=1"), ("module", "group=3")],
)
def test_a_bad_mark_is_refused(tmp_path, place, arguments):
    mark = f"pytest.mark.atk({arguments})"
    lines = {
        "test": ["import pytest", f"@{mark}", "async def test_it(): pass"],
        "class": ["import pytest", f"@{mark}", "class TestIt:", "    async def test_it(self): pass"],
        "module": ["import pytest", f"pytestmark = {mark}", "async def test_it(): pass"],
    }[place]
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "pytest.ini").write_text("[pytest]\n")
    (suite / "test_it.py").write_text("\n".join(lines) + "\n")
    run = Bench(tmp_path / "runs", suite).engine("-p", "asynctest_kit.plugin")
    assert run.code == 4
    nodeid = "test_it.py::TestIt::test_it" if place == "class" else "test_it.py::test_it"
    assert f"ERROR: {nodeid}: @pytest.mark.atk: {BAD_MARKS[arguments]}\n" in run.out
    assert run.phases == {}
