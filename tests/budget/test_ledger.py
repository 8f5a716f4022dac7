"""Ledgers of small runs whose accounts can be done by hand."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from asynctest_kit.budget import Ledger, ledger, verdict
from asynctest_kit.engine import events as ev

ORIGIN = 1000.0


def started(at: float = 0.0) -> ev.RunStarted:
    return ev.RunStarted(at=ORIGIN + at, wall_clock=1.7e9, arguments=("tests",))


def collected(start: float, end: float, cases: int = 1) -> ev.CollectionFinished:
    return ev.CollectionFinished(start=ORIGIN + start, end=ORIGIN + end, cases=cases)


def loop(at: float, concurrency: int = 64) -> ev.LoopStarted:
    return ev.LoopStarted(at=ORIGIN + at, concurrency=concurrency)


def case(nodeid: str, *times: float, lane: Any = "shared", needs: tuple[str, ...] = ()) -> ev.CaseFinished:
    start, ready, call_start, call_end, end = (ORIGIN + time for time in times)
    return ev.CaseFinished(
        nodeid=nodeid,
        lane=lane,
        outcome="passed",
        start=start,
        ready=ready,
        call_start=call_start,
        call_end=call_end,
        end=end,
        needs=needs,
    )


def called(nodeid: str, start: float, end: float, **more: Any) -> ev.CaseFinished:
    return case(nodeid, start, start, start, end, end, **more)


def again(nodeid: str, start: float, end: float, cause: ev.Cause, *, counts: bool = False) -> ev.Event:
    """A second attempt, alone, or with others that are traced."""
    if counts:
        return replace(called(nodeid, start, end, lane="exclusive"), outcome="failed", attempts=2, cause=cause)
    return uncounted(nodeid, start, end, lane="shared" if cause == "tracing" else "exclusive", cause=cause)


def uncounted(nodeid: str, start: float, end: float, *, lane: ev.Lane = "shared", cause: ev.Cause = "") -> ev.Event:
    at, until = ORIGIN + start, ORIGIN + end
    return ev.AttemptFinished(
        nodeid=nodeid, lane=lane, start=at, ready=at, call_start=at, call_end=until, end=until, cause=cause
    )


def cut_off(nodeid: str, *times: float, needs: tuple[str, ...] = (), waiting: str = "") -> ev.CaseCutOff:
    start, ready, call_start, end = (ORIGIN + time for time in times)
    return ev.CaseCutOff(
        nodeid=nodeid,
        lane="shared",
        start=start,
        ready=ready,
        call_start=call_start,
        call_end=end,
        end=end,
        needs=needs,
        waiting=waiting,
    )


def fixture(name: str, start: float, end: float, *, needs: tuple[str, ...] = (), **more: Any) -> ev.Event:
    phase = more.pop("phase", "setup")
    return ev.FixtureFinished(
        fixture=name,
        name=name,
        scope="session",
        phase=phase,
        start=ORIGIN + start,
        end=ORIGIN + end,
        needs=needs,
        **more,
    )


def service(name: str, *marks: float, fixtures: tuple[str, ...] = ()) -> list[ev.Event]:
    """A service whose create, boot and migrate phases lie between the four marks."""
    spans: list[ev.Event] = [
        ev.ServicePhase(service=name, phase=phase, start=ORIGIN + start, end=ORIGIN + end)
        for phase, start, end in zip(("create", "boot", "migrate"), marks, marks[1:], strict=False)
    ]
    ready = ev.ServiceReady(
        service=name, provider="embedded", detail="PostgreSQL 18", at=ORIGIN + marks[-1], fixtures=fixtures
    )
    return [*spans, ready]


def finished(loop_end: float, end: float) -> list[ev.Event]:
    return [ev.LoopFinished(at=ORIGIN + loop_end), ev.RunFinished(at=ORIGIN + end, exit_code=0)]


def steps(book: Ledger) -> list[tuple[str, str, str, float]]:
    return [(step.kind, step.name, step.part, round(step.seconds, 6)) for step in book.critical_path]


def phases(book: Ledger) -> dict[str, float]:
    return {phase.name: round(phase.seconds, 6) for phase in book.phases if phase.seconds}


#: PostgreSQL is asked for at 0.1 and ready at 1.6; one test needs it, one runs meanwhile, in which a pool is set up.
WITH_SERVICE: list[ev.Event] = [
    started(),
    collected(0.4, 0.6, cases=2),
    loop(0.7),
    *service("postgres", 0.1, 0.3, 1.2, 1.6, fixtures=("postgres",)),
    called("quick", 0.7, 0.9),
    fixture("postgres", 0.7, 1.65),
    fixture("pool", 1.65, 1.75, needs=("postgres",)),
    case("slow", 0.7, 1.75, 1.8, 2.3, 2.4, needs=("postgres", "pool")),
    fixture("pool", 2.4, 2.45, phase="teardown"),
    fixture("postgres", 2.45, 2.5, phase="teardown"),
    *finished(2.5, 2.8),
]


def test_the_wall_is_shared_out() -> None:
    book = ledger(WITH_SERVICE)
    assert book.wall == pytest.approx(2.8)
    assert phases(book) == {
        "start-up": 0.4,
        "collect": 0.3,
        "services": 0.7,  # 0.9 to 1.6: nothing else ran
        "fixtures": 0.3,  # 1.6 to 1.8 and 2.3 to 2.4
        "tests": 0.7,  # 0.7 to 0.9 and 1.8 to 2.3
        "tear-down": 0.1,
        "end": 0.3,
    }


def test_the_critical_path_goes_through_the_service_to_the_start() -> None:
    assert steps(ledger(WITH_SERVICE)) == [
        ("start-up", "", "", 0.1),
        ("service", "postgres", "create", 0.2),
        ("service", "postgres", "boot", 0.9),
        ("service", "postgres", "migrate", 0.4),
        ("fixture", "postgres", "set-up", 0.05),
        ("fixture", "pool", "set-up", 0.1),
        ("test", "slow", "set-up", 0.05),
        ("test", "slow", "call", 0.5),
        ("test", "slow", "tear-down", 0.1),
        ("tear-down", "", "", 0.1),
        ("end", "", "", 0.3),
    ]


def test_the_service_is_what_bounds_it() -> None:
    bound = ledger(WITH_SERVICE).bounds[0]
    assert (bound.kind, bound.name) == ("service", "postgres")
    assert bound.seconds == pytest.approx(1.5)
    assert bound.sentence == "postgres's boot (0.90 s) bounds the run: 1 of 2 tests waited for it"


def test_services_tell_provider_and_spans() -> None:
    (postgres,) = ledger(WITH_SERVICE).services
    assert (postgres.provider, postgres.detail, postgres.fixtures) == ("embedded", "PostgreSQL 18", ("postgres",))
    assert postgres.seconds("boot") == pytest.approx(0.9)
    assert postgres.seconds("pull") is None


def test_a_service_ready_before_the_loop_is_not_on_the_path() -> None:
    book = ledger(
        [
            started(),
            *service("redis", 0.1, 0.2, fixtures=("redis",)),
            collected(0.3, 0.8),
            loop(0.8),
            fixture("redis", 0.8, 0.9),
            case("one", 0.8, 0.9, 0.9, 1.0, 1.0, needs=("redis",)),
            *finished(1.0, 1.0),
        ]
    )
    assert steps(book) == [
        ("start-up", "", "", 0.3),
        ("collect", "", "", 0.5),
        ("fixture", "redis", "set-up", 0.1),
        ("test", "one", "call", 0.1),
    ]


def test_a_service_asked_for_late_leads_to_the_test_that_asked() -> None:
    book = ledger(
        [
            started(),
            collected(0.0, 0.1),
            loop(0.1, concurrency=1),
            called("first", 0.1, 0.5),
            *service("redis", 0.7, 1.0, fixtures=("redis",)),
            fixture("redis", 0.6, 1.1),
            case("second", 0.55, 1.1, 1.1, 1.2, 1.2, needs=("redis",)),
            *finished(1.2, 1.2),
        ]
    )
    assert steps(book) == [
        ("collect", "", "", 0.1),
        ("test", "first", "call", 0.4),
        ("queue", "redis", "", 0.1),
        ("queue", "redis", "", 0.1),
        ("service", "redis", "create", 0.3),
        ("fixture", "redis", "set-up", 0.1),
        ("test", "second", "call", 0.1),
    ]


def test_tests_that_start_when_their_fixture_is_up_waited_for_it() -> None:
    quick = [called(f"quick{i}", 0.5, 0.8) for i in range(20)]
    slow = [called(f"slow{i}", 1.61 + 0.2 * (i // 10), 1.8 + 0.2 * (i // 10), needs=("pool",)) for i in range(30)]
    book = ledger(
        [
            started(),
            collected(0.2, 0.5),
            loop(0.5, concurrency=10),
            *service("postgres", 0.1, 0.4, 1.4, fixtures=("postgres",)),
            *quick,
            fixture("postgres", 0.5, 1.5),
            fixture("pool", 1.5, 1.6, needs=("postgres",)),
            *slow,
            *finished(2.2, 2.2),
        ]
    )
    assert phases(book)["services"] == pytest.approx(0.6)  # 0.8 to 1.4
    assert phases(book)["fixtures"] == pytest.approx(0.2)
    assert steps(book) == [
        ("start-up", "", "", 0.1),
        ("service", "postgres", "create", 0.3),
        ("service", "postgres", "boot", 1.0),
        ("fixture", "postgres", "set-up", 0.1),
        ("fixture", "pool", "set-up", 0.1),
        ("queue", "slow9", "", 0.01),
        ("test", "slow9", "call", 0.19),
        ("queue", "slow19", "", 0.01),
        ("test", "slow19", "call", 0.19),
        ("queue", "slow29", "", 0.01),
        ("test", "slow29", "call", 0.19),
    ]


def test_the_exclusive_lane_is_a_chain() -> None:
    tests = [called(f"alone{i}", 1 + i / 10, 1.1 + i / 10, lane="exclusive") for i in range(31)]
    book = ledger([started(), collected(0.2, 0.5), loop(0.5), called("beside", 0.5, 1.0), *tests, *finished(4.1, 4.2)])
    assert len([step for step in book.critical_path if step.kind == "test"]) == 32
    assert book.bounds[0].sentence == "the exclusive lane: 31 tests one after the other, 3.10 s"
    assert [(lane.lane, lane.tests) for lane in book.lanes] == [("shared", 1), ("exclusive", 31)]
    assert book.lower_bound == pytest.approx(0.5 + 0.5 + 0.1)


def test_one_long_test_bounds_the_run() -> None:
    tests = [called(f"quick{i}", 0.5, 0.6) for i in range(20)]
    book = ledger([started(), collected(0.2, 0.5), loop(0.5), *tests, called("long", 0.5, 4.5), *finished(4.5, 5.0)])
    assert book.bounds[0].sentence == "one test of 4.00 s is 80 % of the run: long"
    assert [test.nodeid for test in book.slowest(2)] == ["long", "quick0"]
    assert book.lower_bound == pytest.approx(book.wall)


def test_too_few_places_bound_the_run() -> None:
    tests = [called(f"test{i}", 1 + i // 2, 2 + i // 2) for i in range(8)]
    book = ledger([started(), collected(0.5, 1), loop(1, concurrency=2), *tests, *finished(5, 5)])
    assert book.bounds[0].sentence == "places on the loop: 4 tests one after the other, 4.00 s"
    assert book.lower_bound == pytest.approx(2.0)
    assert (book.effective_concurrency, book.peak) == (pytest.approx(2.0), 2)


def test_a_test_that_is_kept_apart_waited_for_its_partner_and_for_no_place() -> None:
    waited = replace(called("t::waits", 8, 10), kept_from="t::holds")
    book = ledger([started(), loop(1), called("t::holds", 1, 8), called("t::free", 1, 2), waited, *finished(10, 10)])
    assert [name for kind, name, *_ in steps(book) if kind == "test"] == ["t::holds", "t::waits"]
    assert "queue" not in {kind for kind, *_ in steps(book)}
    assert book.bounds[0].sentence == (
        "one test of 7.00 s is 70 % of the run: t::holds; t::waits waited for t::holds, for they are kept apart"
    )
    assert "rows and keys of their own" in book.bounds[0].remedy


def test_with_places_left_no_test_is_blamed_for_another() -> None:
    book = ledger([started(), collected(0, 1), loop(1), called("a", 1, 1.1), called("b", 1.2, 3), *finished(3, 3)])
    assert steps(book) == [("collect", "", "", 1.0), ("queue", "b", "", 0.2), ("test", "b", "call", 1.8)]


def test_a_test_that_was_never_called_has_no_call() -> None:
    book = ledger([started(), collected(0, 1), loop(1), case("a", 1, 1.5, 2, 2, 2), *finished(2, 2)])
    assert book.tests[0].call == 0
    assert book.tests[0].wait == pytest.approx(0.5)
    assert phases(book) == {"collect": 1.0, "fixtures": 1.0}


def test_a_run_interrupted_in_its_collection() -> None:
    book = ledger([started(), *service("redis", 0.1, 0.6)])
    assert (book.wall, book.complete, book.exit_code) == (pytest.approx(0.6), False, None)
    assert phases(book) == {"start-up": 0.6}
    assert steps(book) == [("start-up", "", "", 0.6)]


def test_a_run_without_tests() -> None:
    book = ledger([started(), collected(0.2, 0.5, cases=0), ev.RunFinished(at=ORIGIN + 0.6, exit_code=5)])
    assert phases(book) == {"start-up": 0.2, "collect": 0.3, "end": 0.1}
    assert (book.complete, book.exit_code, book.collected) == (True, 5, 0)


def test_a_run_interrupted_while_a_test_hangs() -> None:
    hanging = ev.CaseStarted(nodeid="hangs", lane="shared", at=ORIGIN + 1)
    book = ledger([started(), collected(0.2, 1), loop(1), hanging, called("passes", 1, 1.5), called("last", 1.5, 9)])
    assert book.unfinished == ("hangs",)
    assert phases(book)["tests"] == pytest.approx(8.0)
    assert steps(book)[-1] == ("test", "hangs", "unfinished", 8.0)
    assert book.bounds[0].name == "hangs"


def test_a_run_interrupted_while_a_service_boots() -> None:
    waits = ev.CaseStarted(nodeid="waits", lane="shared", at=ORIGIN + 1)
    create = ev.ServicePhase(service="redis", phase="create", start=ORIGIN + 0.5, end=ORIGIN + 3)
    assert phases(ledger([started(), collected(0.2, 1), loop(1), waits, create]))["services"] == pytest.approx(2.0)


def test_a_service_that_failed_is_waited_for() -> None:
    boot = ev.ServicePhase(service="redis", phase="boot", start=ORIGIN + 0.5, end=ORIGIN + 3)
    never = ev.ServiceFailed(service="redis", fixtures=("redis",))
    failed = fixture("redis", 1, 3.1, failed=True)
    waits = case("a", 1, 3.1, 3.1, 3.1, 3.1, needs=("redis",))
    book = ledger([started(), collected(0.2, 1), loop(1), boot, never, failed, waits, *finished(3.1, 3.1)])
    assert phases(book)["services"] == pytest.approx(2.0)
    assert (book.services[0].ready, book.services[0].provider) == (None, "")
    assert book.bounds[0].sentence == "redis never was ready, and 1 test waited 2.50 s for it"


#: Two tests hang beside others for their second and fail again alone; one failed, and one is traced to another.
WITH_SECOND_ATTEMPTS: list[ev.Event] = [
    started(),
    collected(0.2, 0.5, cases=5),
    loop(0.5),
    called("quick", 0.5, 0.6),
    uncounted("broken", 0.5, 0.7),
    uncounted("hangs", 0.5, 1.5),
    uncounted("hangs too", 0.5, 1.5),
    uncounted("victim", 0.5, 0.8),
    again("hangs", 1.5, 2.5, "time-out", counts=True),
    again("hangs too", 2.5, 3.5, "time-out", counts=True),
    again("broken", 3.5, 3.7, "failure", counts=True),
    again("victim", 3.7, 4.0, "failure"),
    again("victim", 4.0, 4.2, "tracing"),
    again("quick", 4.0, 4.1, "tracing"),
    again("victim", 4.2, 4.4, "tracing"),
    called("victim", 0.5, 0.8),  # it is the first attempt that counts after all
    *finished(4.4, 4.7),
]


def test_second_attempts_are_told_apart_from_the_lanes() -> None:
    book = ledger(WITH_SECOND_ATTEMPTS)
    second = book.second_attempts
    assert (second.tests, second.attempts, second.causes) == (4, 7, {"time-out": 2, "failure": 2, "tracing": 3})
    assert (second.seconds, second.wall) == (pytest.approx(3.0), pytest.approx(2.9))
    (lane,) = book.lanes
    assert (lane.lane, lane.tests) == ("shared", 5)
    assert (book.test_seconds, book.tests_wall, book.peak) == (pytest.approx(2.6), pytest.approx(1.0), 5)
    assert phases(book) == {"start-up": 0.2, "collect": 0.3, "tests": 1.0, "again": 2.9, "end": 0.3}


def test_second_attempts_are_what_bounds_it() -> None:
    book = ledger(WITH_SECOND_ATTEMPTS)
    assert [step[:2] for step in steps(book) if step[0] in ("test", "again", "queue")] == [
        ("test", "hangs too"),
        ("again", "hangs"),
        ("again", "hangs too"),
        ("again", "broken"),
        ("again", "victim"),
        ("again", "victim"),
        ("again", "victim"),
    ]
    bound = book.bounds[0]
    assert (bound.kind, bound.seconds) == ("again", pytest.approx(2.9))
    assert bound.sentence == "4 tests ran again, alone: 2.90 s"
    assert bound.remedy == (
        "mend the tests that hang, or give them a shorter time-out; "
        "mend the tests that fail, or end the run at the first with `-x`"
    )
    assert book.lower_bound == pytest.approx(0.5 + 2.0 + 0.3)


def test_an_attempt_that_does_not_count_is_no_wait_for_a_place() -> None:
    boot = ev.ServicePhase(service="api", phase="boot", start=ORIGIN + 0.5, end=ORIGIN + 5)
    book = ledger(
        [
            *(started(), collected(0.2, 1, cases=2), loop(1)),
            *(boot, ev.ServiceFailed(service="api", fixtures=("api",)), fixture("api", 1, 5, failed=True)),
            case("needs it", 1, 5, 5, 5, 5, needs=("api",)),
            uncounted("hangs", 1, 11),
            again("hangs", 11, 21, "time-out", counts=True),
            *finished(21, 21),
        ]
    )
    assert steps(book) == [
        ("start-up", "", "", 0.2),
        ("collect", "", "", 0.8),
        ("test", "hangs", "call", 10.0),
        ("again", "hangs", "call", 10.0),
    ]


def test_what_is_cut_off_while_it_waits_for_a_service_leads_to_the_service() -> None:
    boot = ev.ServicePhase(service="api", phase="boot", start=ORIGIN + 0.5, end=ORIGIN + 9.5)
    book = ledger(
        [
            *(started(), collected(0.2, 1, cases=2), loop(1), called("quick", 1, 2)),
            cut_off("waits", 1, 9, 9, 9, needs=("start", "api"), waiting="waits for fixture api"),
            fixture("api", 1, 9.1, needs=("start",), failed=True),
            fixture("start", 1, 9.1, failed=True),
            *(boot, ev.ServiceFailed(service="api", fixtures=("start",))),
            ev.LoopFinished(at=ORIGIN + 9.2),
            ev.RunFinished(at=ORIGIN + 9.6, exit_code=2),
        ]
    )
    assert (book.unfinished, book.cut_off[0].waiting) == (("waits",), "waits for fixture api")
    assert phases(book) == {
        "start-up": 0.2,
        "collect": 0.8,
        "tests": 1.0,
        "services": 7.0,
        "tear-down": 0.2,
        "end": 0.4,
    }
    assert book.bounds[0].sentence == "api never was ready, and 1 test waited 8.50 s for it"


def test_what_is_cut_off_in_its_call_bounds_the_run() -> None:
    book = ledger([*(started(), collected(0.2, 1), loop(1)), cut_off("hangs", 1, 1, 1.5, 9), *finished(9, 9)])
    assert steps(book)[-2:] == [("test", "hangs", "set-up", 0.5), ("test", "hangs", "call", 7.5)]
    assert phases(book)["tests"] == pytest.approx(7.5)


def test_what_ended_all_the_same_was_not_cut_off() -> None:
    book = ledger([started(), collected(0.2, 1), loop(1), cut_off("a", 1, 1, 1, 2), called("a", 1, 3), *finished(3, 3)])
    assert (book.unfinished, book.cut_off) == ((), ())


def test_a_second_attempt_that_is_cut_off_is_one_of_a_test_that_failed_before() -> None:
    interrupted = replace(cut_off("fails", 2, 2, 2, 9), cause="failure")
    late = replace(cut_off("moves", 9, 9, 9, 9), cause="state")  # was still to run again
    firsts = [called("fails", 1, 2), uncounted("moves", 1, 2)]
    book = ledger([*(started(), collected(0.2, 1), loop(1)), interrupted, *firsts, late, *finished(9, 9)])
    assert (book.unfinished, [one.nodeid for one in book.tests]) == (("moves",), ["fails"])
    assert (book.second_attempts.tests, book.second_attempts.causes) == (1, {"failure": 1})
    assert phases(book) == {"start-up": 0.2, "collect": 0.8, "tests": 1.0, "again": 7.0}
    assert steps(book)[-1] == ("again", "fails", "call", 7.0)


def test_no_events_at_all() -> None:
    book = ledger([])
    assert (book.wall, book.critical_path, book.slices, book.lower_bound) == (0.0, (), (), 0.0)


@pytest.mark.parametrize(("budget", "held"), [(2.8001, True), (2.7999, False)])
def test_verdict(budget: float, held: bool) -> None:
    judged = verdict(ledger(WITH_SERVICE), budget)
    assert judged.held is held
    assert judged.share == pytest.approx(2.8 / budget)


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        verdict(ledger([]), 0.0)
