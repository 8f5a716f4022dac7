"""Output of concurrent tests reaches the report of the test that made it, and no other."""

from __future__ import annotations

import pytest
from parity import SUITES, Bench

FILE = "test_output.py::"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("output"), SUITES / "output")
    plain, engine = bench.start_plain("--tb=short"), bench.start("--tb=short")
    return plain.finish(), engine.finish()


def test_outcomes_are_the_same(runs):
    plain, engine = runs
    assert engine.outcomes == plain.outcomes, engine.out


@pytest.mark.parametrize("number", range(6))
def test_each_report_has_its_own_output(runs, number):
    _, engine = runs
    sections = engine.sections(f"{FILE}test_writes[{number}]")
    assert sections["Captured stdout call"] == "".join(f"out {number}.{step}\n" for step in range(3))
    assert sections["Captured stderr call"] == "".join(f"err {number}.{step}\n" for step in range(3))
    assert [line.rpartition(" ")[2] for line in sections["Captured log call"].splitlines()] == [
        f"{number}.{step}" for step in range(3)
    ]
    assert f"own set-up of test_writes[{number}]" in sections["Captured stdout setup"]
    assert sections["Captured stdout teardown"].startswith(f"own tear-down of test_writes[{number}]\n")


def test_sections_are_the_same(runs):
    plain, engine = runs
    for nodeid in plain.phases:
        if "test_writes" in nodeid or "test_sync" in nodeid or "test_bare_thread" in nodeid:
            continue  # a shared fixture's output is the first or last user's there, and nobody's here
        assert engine.sections(nodeid) == plain.sections(nodeid), nodeid


def test_warnings_are_told_by_test(runs):
    plain, engine = runs
    assert engine.warnings == plain.warnings
    assert engine.warnings[f"{FILE}test_writes[3]"] == [f"warned 3.{step}" for step in range(3)]


def test_what_belongs_to_no_test_is_shown_once(runs):
    _, engine = runs
    assert engine.out.count("shared set-up\n") == 1
    assert "that belongs to no test" in engine.out


def test_what_a_thread_prints_is_its_tests(runs):
    plain, engine = runs
    for run in (plain, engine):
        assert run.sections("test_output.py::test_bare_thread")["Captured stdout call"] == "from a thread\n"


def test_disabled_capture_reaches_the_terminal(runs):
    _, engine = runs
    assert engine.out.count("straight to the terminal") == 1


def test_without_capture(tmp_path):
    bench = Bench(tmp_path, SUITES / "output")
    finished = bench.engine("-s", "-k", "test_child_task or test_sync")
    assert "from a child" in finished.out
    assert "from a sync test" in finished.out
    assert finished.sections(f"{FILE}test_child_task") == {}
