"""What runs again, how often, and what is said of it; nothing of an attempt that doesn't count is seen."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections import Counter
from types import SimpleNamespace

import pytest
from parity import SUITES, Bench, faults_of, set_ups

from asynctest_kit.engine.deadlines import Doubt
from asynctest_kit.engine.executor import Execution, Times
from asynctest_kit.engine.memory import Memory
from asynctest_kit.engine.reruns import Again, Reruns

ALL_PASSED = "passed passed passed"
CALL_FAILED = "passed failed passed"
WARN = json.dumps({"interference_fails": False})


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, SUITES / "reruns")


def junit(folder):
    return [case.get("name") for case in ET.parse(folder / "junit.xml").getroot().iter("testcase")]


def finished(run):
    return {event["nodeid"].rpartition("::")[2]: event for event in run.events if event["type"] == "CaseFinished"}


def discarded(run):
    """How many attempts at each test don't count."""
    return Counter(event["nodeid"].rpartition("::")[2] for event in run.events if event["type"] == "AttemptFinished")


def tries(run, name):
    return len(run.noted("attempt", name))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run of all that fails for its own sake or by chance, and its JUnit file."""
    folder = tmp_path_factory.mktemp("reruns")
    run = Bench(folder, SUITES / "reruns").engine("test_reruns.py", f"--junitxml={folder}/junit.xml")
    return run, junit(folder)


@pytest.mark.parametrize(
    ("name", "outcomes", "ran", "verdict", "note"),
    [
        ("test_fine", ALL_PASSED, 1, "", ""),
        ("test_broken", CALL_FAILED, 2, "", ""),
        ("test_at_a_port", CALL_FAILED, 2, "", ""),
        ("test_elsewhere", CALL_FAILED, 2, "", ""),
        ("test_broken_alone", CALL_FAILED, 1, "", ""),
        ("test_flaky_alone", ALL_PASSED, 2, "flaky", "failed once, at first with: AssertionError: assert 1 == 2"),
        ("test_flaky_once", ALL_PASSED, 2, "flaky", "failed once, at first with: AssertionError: only the second time"),
        ("test_flaky_twice", ALL_PASSED, 3, "flaky", "failed twice, at first with: AssertionError: assert 1 == 3"),
        ("test_used_up", CALL_FAILED, 3, "", ""),
        ("test_over_broken", "failed passed", 1, "", ""),
        ("test_torn", "passed passed failed", 2, "", ""),
        ("test_expected", "passed xfailed passed", 2, "", ""),
        ("test_expected_strictly", CALL_FAILED, 2, "", ""),
        ("test_not_run", "xfailed passed", 1, "", ""),
        ("test_fresh", ALL_PASSED, 2, "flaky", "failed once, at first with: assert 1 == 2"),
        ("test_hangs", CALL_FAILED, 2, "", ""),
        ("test_sync_flaky", ALL_PASSED, 2, "flaky", "failed once, at first with: LookupError: only the first time"),
        ("test_sync_hangs", CALL_FAILED, 2, "", ""),
    ],
)
def test_each_kind(whole, name, outcomes, ran, verdict, note):  # noqa: PLR0917  # a row of the table
    run, _ = whole
    event = finished(run)[name]
    assert (event["attempts"], event["verdict"], event["note"]) == (ran, verdict, note)
    assert discarded(run)[name] == ran - 1
    (nodeid,) = (nodeid for nodeid in run.phases if nodeid.endswith(f"::{name}"))
    assert run.outcomes[nodeid] == outcomes


def attempts(run, name):
    """Why each attempt at a test was made, and where, in order."""
    told = [event for event in run.events if event["type"] in {"AttemptFinished", "CaseFinished"}]
    mine = {event["start"]: event for event in told if event["nodeid"].endswith(f"::{name}")}
    return [(event["cause"], event["lane"]) for _, event in sorted(mine.items())]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("test_fine", [("", "shared")]),
        ("test_broken", [("", "shared"), ("failure", "exclusive")]),
        ("test_used_up", [("", "shared"), ("failure", "exclusive"), ("failure", "exclusive")]),
        ("test_flaky_alone", [("", "exclusive"), ("failure", "exclusive")]),
        ("test_expected", [("", "shared"), ("expected failure", "exclusive")]),
        ("test_hangs", [("", "shared"), ("time-out", "exclusive")]),
        ("test_sync_flaky", [("", "pytest"), ("failure", "pytest")]),
        ("test_sync_hangs", [("", "pytest"), ("time-out", "pytest")]),
    ],
)
def test_each_attempt_says_why_it_was_made(whole, name, told):
    run, _ = whole
    assert attempts(run, name) == told


def test_the_report_is_that_of_the_attempt_alone(whole):
    run, _ = whole
    (phase,) = (phase for phase in run.phases["test_reruns.py::test_broken"] if phase.when == "call")
    assert "LookupError: broken in attempt 2" in phase.longrepr
    assert run.out.count("broken in attempt 1") == 1
    assert "It failed beside others first, with: LookupError: broken in attempt 1\n" in run.out
    (phase,) = (phase for phase in run.phases["test_reruns.py::test_used_up"] if phase.when == "call")
    assert "LookupError: used up in attempt 3" in phase.longrepr


def said(run, name):
    """What its report says of the attempts."""
    (phase,) = (phase for phase in run.phases[f"test_reruns.py::{name}"] if phase.when == "call")
    return dict(phase.sections).get("asynctest_kit")


def test_a_failure_that_differs_only_in_its_port_is_no_other(whole):
    run, _ = whole
    assert said(run, "test_at_a_port") is None
    assert said(run, "test_broken").startswith("It failed beside others first, with: LookupError: broken in attempt 1")


def test_a_failure_at_another_line_is_another(whole):
    run, _ = whole
    file = SUITES / "reruns/test_reruns.py"
    line = file.read_text().splitlines().index('        raise LookupError("the same words")') + 1
    assert f"with: LookupError: the same words, at {file}:{line}\n" in said(run, "test_elsewhere")


def test_the_output_is_that_of_the_attempt_that_counts(whole):
    run, _ = whole
    assert run.sections("test_reruns.py::test_broken") == {"Captured stdout call": "output of broken, attempt 2\n"}
    assert run.sections("test_reruns.py::test_flaky_twice") == {
        "Captured stdout call": "output of flaky_twice, attempt 3\n"
    }
    assert ", attempt 1" not in run.out.replace("output of broken_alone, attempt 1", "").replace(
        "output of torn, attempt 1", ""
    )


def test_what_is_shared_is_set_up_once(whole):
    run, _ = whole
    assert faults_of(run.trail) == []
    assert set_ups(run.trail, "server") == set_ups(run.trail, "table") == 1
    assert len(run.noted("broken-fixture")) == 1


def test_reporters_see_each_test_once(whole):
    run, cases = whole
    assert sorted(cases) == sorted(finished(run))
    for phases in run.phases.values():
        whens = [phase.when for phase in phases]
        assert whens in (["setup", "call", "teardown"], ["setup", "teardown"])


def test_flaky_is_counted_and_passes(bench):
    run = bench.engine(*(f"test_reruns.py::test_{name}" for name in ("fine", "flaky_once", "flaky_twice")))
    assert run.code == 0, run.out
    assert "1 passed, 2 flaky in" in run.out
    assert "\n.ff " in run.out
    verbose = bench.engine("test_reruns.py", "-v", "-k", "flaky_once")
    assert "test_reruns.py::test_flaky_once FLAKY" in verbose.out


def test_retries_of_the_whole_run_and_of_rules(bench):
    run = bench.engine("test_reruns.py", "-k", "broken_alone", SUITE_OPTIONS=json.dumps({"retries": 2}))
    assert tries(run, "broken_alone") == 3
    rules = {"*::test_flaky_*": {"retries": 0}, "*": {"retries": 1}}
    run = bench.engine(
        "test_reruns.py", "-k", "broken_alone or flaky_alone", SUITE_OPTIONS=json.dumps({"rules": rules})
    )
    assert tries(run, "broken_alone") == 2
    assert tries(run, "flaky_alone") == 1


@pytest.mark.parametrize("option", ["-x", "--maxfail=1"])
def test_an_early_end_asks_no_further(bench, option):
    run = bench.engine("test_reruns.py", option, "-k", "fine or used_up or test_broken or flaky_alone or innocent")
    assert run.code == 1
    assert "stopping after 1 failures" in run.out
    # Those alone come first, one of which is flaky: that is seen at the end only.
    assert list(finished(run)) == ["test_broken_alone"]
    assert discarded(run) == {"test_flaky_alone": 1}
    assert run.trail == [["attempt", "flaky_alone", "1"], ["attempt", "broken_alone", "1"]]


@pytest.mark.parametrize("option", ["-x", "--maxfail=1"])
def test_an_early_end_beside_others_asks_no_further(bench, option):
    run = bench.engine("test_reruns.py", option, "-k", "(fine or test_broken) and not alone", concurrency=1)
    assert run.code == 1
    assert "stopping after 1 failures" in run.out
    assert list(finished(run)) == ["test_fine", "test_broken"]
    assert discarded(run) == {}
    assert tries(run, "broken") == 1
    assert faults_of(run.trail) == []


def test_retries_go_before_an_early_end(bench):
    run = bench.engine("test_reruns.py", "-x", "-k", "flaky_once or fine")
    assert run.code == 0, run.out
    assert finished(run)["test_flaky_once"]["verdict"] == "flaky"


SUSPECTED = "failed beside 8 other tests and passes alone; fails again beside test_interference.py::test_suspect"


def test_interference_names_the_suspect(bench):
    run = bench.engine("test_interference.py")
    event = finished(run)["test_victim"]
    assert run.code == 1, run.out
    assert (event["verdict"], event["note"], event["lane"], event["attempts"]) == (
        "interference",
        SUSPECTED,
        "shared",
        2,
    )
    assert attempts(run, "test_victim")[:3] == [("", "shared"), ("failure", "exclusive"), ("tracing", "shared")]
    assert run.outcomes["test_interference.py::test_victim"] == CALL_FAILED
    (phase,) = (phase for phase in run.phases["test_interference.py::test_victim"] if phase.when == "call")
    assert dict(phase.sections) == {
        "Captured stdout call": "output of victim\n",
        "asynctest_kit": f"This test {SUSPECTED}.",
    }
    assert set(finished(run)) == {"test_victim", "test_suspect", *(f"test_innocent[{number}]" for number in range(7))}
    assert faults_of(run.trail) == []


def test_what_an_attempt_leaves_and_what_fails_by_chance_is_told_as_that(bench):
    run = bench.engine("test_left.py")
    for name, other in (("one", "two"), ("two", "one")):
        (phase,) = (phase for phase in run.phases[f"test_left.py::test_{name}"] if phase.when == "call")
        told = dict(phase.sections)["asynctest_kit"]
        assert told.startswith("It failed beside others first, with: AssertionError: assert [")
        assert "If it passes with `--concurrency 1`" in told
        assert told.splitlines()[0].count(name) == 2
        assert told.splitlines()[0].count(other) == 1
    event = finished(run)["test_every_second_time"]
    assert event["verdict"] == "interference"
    assert event["note"].endswith("it failed only sometimes: flaky, or by chance")
    assert "fails again beside" not in run.out


def test_interference_may_be_a_warning(bench):
    run = bench.engine("test_interference.py", SUITE_OPTIONS=WARN)
    event = finished(run)["test_victim"]
    assert run.code == 0, run.out
    assert (event["verdict"], event["note"], event["lane"]) == ("interference", SUSPECTED, "exclusive")
    assert "8 passed, 1 interference in" in run.out
    assert discarded(run)["test_victim"] == tries(run, "victim") - 1
    assert run.outcomes["test_interference.py::test_victim"] == ALL_PASSED


def test_who_was_a_victim_is_alone_in_the_next_run(bench):
    first, second = bench.engine("test_interference.py"), bench.engine("test_interference.py")
    assert (first.code, second.code) == (1, 0)
    assert finished(second)["test_victim"]["lane"] == "exclusive"
    assert discarded(second) == {}


def test_interference_goes_with_retries_as_flaky(bench):
    rules = {"rules": {"*test_victim": {"retries": 1}}}
    run = bench.engine("test_interference.py", SUITE_OPTIONS=json.dumps(rules))
    event = finished(run)["test_victim"]
    assert run.code == 0
    assert event["verdict"] == "flaky"
    assert event["note"] == "failed once, at first with: AssertionError: assert 'suspect' == 'victim'"


def test_failures_and_doubts_have_time_of_their_own():
    shared, alone = (SimpleNamespace(lane=lane, retries=0) for lane in ("shared", "exclusive"))
    first = Execution(shared, times=Times(start=0, end=1))
    doubtful, failed = Again(alone, first, doubt=Doubt(0.1, 0.2, None)), Again(alone, first, [first])
    reruns = Reruns(Memory(None), triages=True)
    assert not reruns.take(first)
    assert reruns.is_worth_it(doubtful)
    reruns.judge(doubtful, Execution(alone, times=Times(start=1, end=12)))
    assert not reruns.is_worth_it(doubtful)
    assert reruns.is_worth_it(failed)


BESIDE_SHORT_LIVED = """
import asyncio
import pytest

pytestmark = pytest.mark.anyio
WITHIN = []


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
async def place(anyio_backend):
    yield


@pytest.mark.parametrize("number", range(4))
async def test_user(place, number):
    pass


@pytest.mark.parametrize("number", range(3))
async def test_victim(anyio_backend, number):
    WITHIN.append(number)
    await asyncio.sleep(0.02)
    within = len(WITHIN)
    WITHIN.pop()
    await asyncio.sleep(0.02)
    assert within == 1
"""


def test_tracing_sets_what_has_ended_up_once_more_at_most(tmp_path):
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "pytest.ini").write_text("[pytest]\n")
    (suite / "test_short.py").write_text(BESIDE_SHORT_LIVED)
    run = Bench(tmp_path / "runs", suite).engine("-p", "no:faker")
    assert discarded(run)["test_user[0]"] > 1  # in more than one attempt of the tracing
    made = [event for event in run.events if event["type"] == "FixtureFinished" and event["name"] == "place"]
    assert sum(event["phase"] == "setup" for event in made) <= 2
