"""pytest's own options and reports work as ever."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from parity import SUITES, Bench, both, faults_of


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, SUITES / "options")


def cases_of(path):
    """What a JUnit file tells of each test, without times."""
    suite = ET.parse(path).getroot().find("testsuite")
    totals = {name: suite.get(name) for name in ("tests", "errors", "failures", "skipped")}
    cases = {
        (case.get("classname"), case.get("name")): [
            (child.tag, child.get("message"), child.get("type")) for child in case if child.tag != "properties"
        ]
        + [(item.get("name"), item.get("value")) for item in case.iter("property")]
        for case in suite.iter("testcase")
    }
    return totals, cases


def test_junit_file(bench, tmp_path):
    first = bench.start_plain(f"--junitxml={tmp_path}/plain.xml")
    second = bench.start(f"--junitxml={tmp_path}/engine.xml")
    plain, engine = first.finish(), second.finish()
    assert engine.outcomes == plain.outcomes, engine.out
    theirs, ours = cases_of(tmp_path / "plain.xml"), cases_of(tmp_path / "engine.xml")
    assert ours == theirs
    assert faults_of(engine.trail) == []


def test_lines_instead_of_letters(bench):
    finished = bench.engine("-o", "verbosity_test_cases=1")
    assert sum("PASSED" in line for line in finished.out.splitlines()) > 1, finished.out


def test_selection(bench):
    by_mark = bench.engine("-m", "colour")
    by_name = bench.engine("-k", "red or broken")
    assert {nodeid.rpartition("::")[2] for nodeid in by_mark.phases} == {"test_red", "test_green"}
    assert {nodeid.rpartition("::")[2] for nodeid in by_name.phases} == {"test_red", "test_broken"}


def test_last_failed(bench):
    first = bench.engine()
    failed = {nodeid for nodeid, outcome in first.outcomes.items() if "failed" in outcome.split()}
    second = bench.engine("--lf")
    assert second.phases.keys() == failed
    assert failed


def test_maxfail_stops_early_and_tears_down(bench):
    finished = bench.engine("-x", concurrency=1)
    assert finished.code == 1, finished.out
    assert "stopping after 1 failures" in finished.out
    assert [nodeid for nodeid, outcome in finished.outcomes.items() if "failed" in outcome.split()] != []
    assert len(finished.phases) < 14
    assert faults_of(finished.trail) == []


def test_maxfail_beside_others(bench):
    finished = bench.engine("--maxfail=2", "-k", "red or broken or slow or green")
    assert finished.code == 1, finished.out
    assert "stopping after 2 failures" in finished.out
    assert faults_of(finished.trail) == []


@pytest.mark.parametrize("option", ["--collect-only", "--setup-plan"])
def test_options_of_pytests_own_loop(bench, option):
    plain, engine = both(bench, option, "-k", "green")
    assert engine.code == plain.code == 0
    assert engine.outcomes == plain.outcomes
    assert [event["type"] for event in engine.events] == ["CollectionFinished"]


def test_nothing_to_run(bench):
    assert bench.engine("-k", "no_such_test").code == 5


def test_broken_collection(tmp_path):
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "pytest.ini").write_text("[pytest]\n")
    (suite / "test_broken.py").write_text("import no_such_module_at_all\n")
    (suite / "test_fine.py").write_text("async def test_fine(): pass\n")
    bench = Bench(tmp_path / "runs", suite)
    stopped = bench.engine()
    assert stopped.code == 2
    assert stopped.phases == {}
    assert "no_such_module_at_all" in stopped.out
    assert "! Interrupted: 1 error during collection !" in stopped.out
    assert "KeyboardInterrupt" not in stopped.out
    went_on = bench.engine("--continue-on-collection-errors")
    assert went_on.code == 1
    assert list(went_on.outcomes.values()) == ["passed passed passed"]


def test_pytest_exit(tmp_path):
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "pytest.ini").write_text("[pytest]\n")
    (suite / "test_exit.py").write_text(
        "import pytest\n"
        "from trail import held\n"
        "@pytest.fixture(scope='module')\n"
        "async def up():\n"
        "    with held('up') as value: yield value\n"
        "async def test_exit(up): pytest.exit('enough', returncode=7)\n"
    )
    finished = Bench(tmp_path / "runs", suite).engine()
    assert finished.code == 7
    assert "Exit: enough" in finished.out
    assert faults_of(finished.trail) == []
