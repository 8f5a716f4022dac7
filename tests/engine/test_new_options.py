"""The options of a run that aren't pytest's, and pytest's own where they need care."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time

import pytest
from parity import HERE, SUITES, Bench, both, faults_of, set_ups

PASSING = ("-k", "not fails")
FILE = "test_options_of_ours.py"


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, SUITES / "new_options")


def options(**given):
    return json.dumps(given)


def names(run):
    """Names of the tests in the order in which they were done."""
    return [event["nodeid"].rpartition("::")[2] for event in run.events if event["type"] == "CaseFinished"]


def failed(run):
    return {nodeid for nodeid, outcome in run.outcomes.items() if "failed" in outcome.split()}


def test_repeat(bench):
    run = bench.engine(*PASSING, SUITE_OPTIONS=options(repeat=3))
    assert run.code == 0, run.out
    copies = [f"run{number}" for number in (1, 2, 3)]
    plain = {f"test_{name}[{copy}]" for name in ("slow", "alone", "sync", "prints") for copy in copies}
    parametrized = {f"test_parametrized[{copy}-{number}]" for number in (1, 2) for copy in copies}
    assert sorted(names(run)) == sorted(plain | parametrized | {"test_case"})
    ran = [line[1] for line in run.noted("ran")]
    assert sorted(ran) == sorted(name for name in names(run) if not name.startswith("test_prints"))
    assert set_ups(run.trail, "server") == 1
    assert faults_of(run.trail) == []


def test_shuffle(bench):
    runs = [
        bench.start(*PASSING, *quiet, concurrency=1, SUITE_OPTIONS=options(shuffle=seed))
        for seed, quiet in ((7, ()), (7, ("-q",)), (8, ()))
    ]
    first, again, other = (run.finish() for run in runs)
    assert first.code == again.code == other.code == 0
    assert names(first) == names(again)
    assert names(first) != names(other)
    assert sorted(names(first)) == sorted(names(other))
    assert first.out.count("asynctest_kit: random order; --shuffle 7 gives the same one\n") == 2
    assert again.out.count("asynctest_kit: random order; --shuffle 7 gives the same one\n") == 1


def test_fail_slow(bench):
    run = bench.engine("-k", "slow or parametrized", SUITE_OPTIONS=options(fail_slow=0.5))
    assert failed(run) == {f"{FILE}::test_slow"}
    (phase,) = (phase for phase in run.phases[f"{FILE}::test_slow"] if phase.when == "call")
    assert re.fullmatch(r"test_slow passed, but took \d\.\d\d s; --fail-slow allows 0\.5 s", phase.longrepr)


def test_last_failed_and_failed_first(bench):
    first = bench.engine()
    assert failed(first) == {f"{FILE}::test_fails"}
    last = bench.engine("--lf")
    assert names(last) == ["test_fails"]
    every = bench.engine("--ff", "-v", concurrency=1)
    assert sorted(names(every)) == sorted(names(first))
    shared = [event["nodeid"] for event in every.events if event["type"] == "CaseStarted" and event["lane"] == "shared"]
    assert shared[0] == f"{FILE}::test_fails"


def test_durations(bench):
    run = bench.engine(*PASSING, "--durations=1", "--durations-min=0")
    assert "slowest 1 durations" in run.out
    assert re.search(rf"^\d\.\d\ds call +{FILE}::test_slow$", run.out, re.MULTILINE), run.out


def test_output_that_is_not_captured(bench):
    run = bench.engine("-s")
    assert "printed at once" in run.out
    assert run.sections(f"{FILE}::test_prints") == {}
    assert failed(run) == {f"{FILE}::test_fails"}
    captured = bench.engine("-k", "prints")
    assert "printed at once" not in captured.out


@pytest.mark.parametrize("option", ["--setup-show", "--stepwise"])
def test_options_that_run_tests_one_by_one(bench, option):
    plain, engine = both(bench, option)
    assert engine.outcomes == plain.outcomes, engine.out
    assert engine.code == plain.code
    assert [line for line in engine.trail if line[0] == "ran"] == [line for line in plain.trail if line[0] == "ran"]
    assert {event["lane"] for event in engine.events if event["type"] == "CaseFinished"} <= {"exclusive", "pytest"}
    assert faults_of(engine.trail) == []


def shown(run):
    """What --setup-show writes, in its order; without what the anyio plugin adds to async fixtures."""
    marks = ("SETUP", "TEARDOWN", f"{FILE}::")
    lines = (line.strip(" .").replace("anyio_backend, server)", "server)") for line in run.out.splitlines())
    return [line for line in lines if line.startswith(marks)]


def test_set_ups_are_shown(bench):
    plain, engine = both(bench, "--setup-show", "-k", "parametrized")
    assert shown(engine) == shown(plain)
    assert len(shown(plain)) > 10


class Debugged:
    """A run that is talked to through its standard input."""

    def __init__(self, folder, *arguments):
        for name in ("reports", "trail", "events"):
            (folder / name).touch()
        self.folder = folder
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(HERE / "under_engine.py"),
                *(str(folder / "events"), "64", "60", "--rootdir=.", "-cpytest.ini", "-panyio.pytest_plugin"),
                *(f"-ocache_dir={folder}/cache", *arguments),
            ],
            cwd=SUITES / "new_options",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))},
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                "PYTHONPATH": str(HERE),
                "SUITE_TRAIL": str(folder / "trail"),
            },
        )

    def read_until(self, text, limit=30):
        """What is written up to ``text``."""
        seen = b""
        deadline = time.monotonic() + limit
        stream = self._process.stdout
        while text not in seen.decode():
            ready, _, _ = select.select([stream], [], [], max(0, deadline - time.monotonic()))
            chunk = os.read(stream.fileno(), 65536) if ready else b""
            if not chunk:
                self._process.kill()
                raise AssertionError(f"no {text!r} in:\n{seen.decode()}")
            seen += chunk
        return seen.decode()

    def say(self, line):
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def finish(self):
        out, _ = self._process.communicate(timeout=30)
        return self._process.returncode, out.decode()

    @property
    def trail(self):
        return [line.split() for line in (self.folder / "trail").read_text().splitlines()]


def up(trail):
    """Fixtures that are up, by name."""
    values = [words[1] for words in trail if words[0] == "up"]
    return {value.partition("#")[0] for value in values if ["down", value] not in trail}


def test_the_debugger_opens_where_a_test_fails(tmp_path):
    run = Debugged(tmp_path, "--pdb", "-k", "fails or sync")
    assert 'assert colour == "red"' in run.read_until("(Pdb) ")
    assert up(run.trail) == {"server", "own"}
    run.say("p colour + ' light'")
    assert "'green light'" in run.read_until("(Pdb) ")
    run.say("c")
    code, out = run.finish()
    assert code == 1
    assert "1 failed, 1 passed" in out
    assert faults_of([words for words in run.trail if words[0] in {"up", "down"}]) == []


def test_quitting_the_debugger_ends_the_run(tmp_path):
    run = Debugged(tmp_path, "--pdb", "-k", "fails or prints")
    run.read_until("(Pdb) ")
    run.say("q")
    code, out = run.finish()
    assert code == 2
    assert "Quitting debugger" in out
    assert up(run.trail) == set()
