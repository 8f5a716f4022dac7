"""What holds for every stream of events: of real runs cut off anywhere, and of nonsense."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from asynctest_kit.budget import ledger, verdict
from asynctest_kit.engine import events as ev

if TYPE_CHECKING:
    from asynctest_kit.budget import Ledger

steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy

TICK = 1 / 64  # exact in binary, so that sums are
moments = st.integers(0, 640).map(lambda ticks: ticks * TICK)
durations = st.integers(0, 64).map(lambda ticks: ticks * TICK)
names = st.sampled_from("abcde")
some = st.lists(names, max_size=3, unique=True).map(tuple)
lanes = st.sampled_from(["shared", "exclusive", "pytest"])
causes = st.sampled_from(["", "time-out", "failure", "state", "tracing"])
phases = st.sampled_from(["resolve", "pull", "create", "boot", "ready", "migrate", "remove"])

ATTEMPT = ev.Attempt.__struct_fields__

nonsense = st.lists(
    st.one_of(
        st.builds(ev.RunStarted, at=moments, wall_clock=st.just(0.0), arguments=st.just(())),
        st.builds(ev.CollectionFinished, start=moments, end=moments, cases=st.integers(0, 9)),
        st.builds(ev.LoopStarted, at=moments, concurrency=st.integers(1, 3)),
        st.builds(ev.CaseStarted, nodeid=names, lane=lanes, at=moments),
        st.builds(
            ev.CaseFinished,
            nodeid=names,
            lane=lanes,
            outcome=st.just("passed"),
            start=moments,
            ready=moments,
            call_start=moments,
            call_end=moments,
            end=moments,
            needs=some,
            cause=causes,
        ),
        st.builds(
            ev.AttemptFinished,
            nodeid=names,
            lane=lanes,
            start=moments,
            ready=moments,
            call_start=moments,
            call_end=moments,
            end=moments,
            needs=some,
            cause=causes,
        ),
        st.builds(
            ev.CaseCutOff,
            nodeid=names,
            lane=lanes,
            start=moments,
            ready=moments,
            call_start=moments,
            call_end=moments,
            end=moments,
            needs=some,
            cause=causes,
            waiting=st.just("in its call"),
        ),
        st.builds(
            ev.FixtureFinished,
            fixture=names,
            name=names,
            scope=st.just("session"),
            phase=st.sampled_from(["setup", "teardown"]),
            start=moments,
            end=moments,
            needs=some,
        ),
        st.builds(ev.ServicePhase, service=names, phase=phases, start=moments, end=moments),
        st.builds(
            ev.ServiceReady,
            service=names,
            provider=st.just("docker"),
            detail=st.just(""),
            at=moments,
            fixtures=some,
        ),
        st.builds(ev.ServiceFailed, service=names, fixtures=some),
        st.builds(ev.LoopFinished, at=moments),
        st.builds(ev.RunFinished, at=moments, exit_code=st.integers(0, 5)),
    ),
    max_size=30,
)


@st.composite
def runs(draw: st.DrawFn) -> list[ev.Event]:
    """A run as an engine could have run it: nothing starts before what it needs."""
    now = draw(durations)
    stream: list[ev.Event] = [ev.RunStarted(at=0.0, wall_clock=0.0, arguments=())]
    collected = now + draw(durations)
    stream.append(ev.CollectionFinished(start=now, end=collected, cases=1))
    begun = collected + draw(durations)
    concurrency = draw(st.integers(1, 4))
    stream.append(ev.LoopStarted(at=begun, concurrency=concurrency))
    at = draw(durations)
    for phase in ("create", "boot", "migrate"):
        end = at + draw(durations)
        stream.append(ev.ServicePhase(service="postgres", phase=phase, start=at, end=end))
        at = end
    stream.append(ev.ServiceReady(service="postgres", provider="docker", detail="", at=at, fixtures=("f0",)))
    up: dict[str, float] = {}
    for index in range(draw(st.integers(0, 4))):
        needs = draw(st.lists(st.sampled_from([*up]), max_size=2, unique=True)) if up else []
        start = begun + draw(durations)
        ready = max([start, *(up[need] for need in needs), *([at] if index == 0 else [])])
        name = f"f{index}"
        up[name] = ready + draw(durations)
        stream.append(
            ev.FixtureFinished(
                fixture=name, name=name, scope="session", phase="setup", start=start, end=up[name], needs=tuple(needs)
            )
        )
    places = [begun] * concurrency
    for index in range(draw(st.integers(0, 8))):
        needs = draw(st.lists(st.sampled_from([*up]), max_size=2, unique=True)) if up else []
        lane = draw(lanes)
        start = min(places) if lane == "shared" else max(places)
        ready = max([start, *(up[need] for need in needs)])
        call_start = ready + draw(durations)
        call_end = call_start + draw(durations)
        end = call_end + draw(durations)
        places = [*sorted(places)[1:], end] if lane == "shared" else [end] * concurrency
        stream.append(
            ev.CaseFinished(
                nodeid=f"t{index}",
                lane=lane,
                outcome="passed",
                start=start,
                ready=ready,
                call_start=call_start,
                call_end=call_end,
                end=end,
                needs=tuple(needs),
            )
        )
    at_last = max(places)
    for index in range(draw(st.integers(0, 3))):  # what runs again
        first = next((one for one in stream if isinstance(one, ev.CaseFinished) and one.nodeid == f"t{index}"), None)
        if first is None:
            break
        stream[stream.index(first)] = ev.AttemptFinished(**{name: getattr(first, name) for name in ATTEMPT})
        begun = max([at_last, *(up[need] for need in first.needs)])
        end = begun + draw(durations)
        times = {"start": at_last, "ready": begun, "call_start": begun, "call_end": end, "end": end}
        stream.append(replace(first, lane="exclusive", attempts=2, cause=draw(causes.filter(bool)), **times))
        at_last = end
    places.append(at_last)
    done = max([*places, *up.values()]) + draw(durations)
    stream.append(ev.LoopFinished(at=done))
    stream.append(ev.RunFinished(at=max(done, at) + draw(durations), exit_code=0))
    return stream


streams = st.one_of(
    nonsense,
    runs(),
    runs().flatmap(lambda stream: st.integers(0, len(stream)).map(lambda length: stream[:length])),
    runs().flatmap(st.permutations),
)


def is_partition(pieces: list[tuple[float, float]], wall: float) -> bool:
    if not pieces:
        return wall == 0

    whole = pieces[0][0] == 0 and pieces[-1][1] == wall
    return whole and all(start < end for start, end in pieces) and all(a[1] == b[0] for a, b in pairwise(pieces))


@steady
@given(streams)
def test_slices_and_critical_path_partition_the_wall(stream: list[ev.Event]) -> None:
    book = ledger(stream)
    assert is_partition([(piece.start, piece.end) for piece in book.slices], book.wall)
    assert is_partition([(step.start, step.end) for step in book.critical_path], book.wall)


@steady
@given(streams)
def test_every_account_adds_up_to_the_wall(stream: list[ev.Event]) -> None:
    book = ledger(stream)
    assert sum(phase.seconds for phase in book.phases) == book.wall
    assert sum(step.seconds for step in book.critical_path) == book.wall
    assert sum(bound.seconds for bound in book.bounds) == book.wall


@steady
@given(streams)
def test_all_times_lie_in_the_run_and_in_order(stream: list[ev.Event]) -> None:
    book = ledger(stream)
    for test in book.tests:
        times = [0.0, test.start, test.ready, test.call_start, test.call_end, test.end, book.wall]
        assert times == sorted(times)
    assert 0 <= book.lower_bound <= book.wall
    assert 0 <= book.tests_wall <= book.wall
    assert book.effective_concurrency <= book.peak
    assert book.peak <= sum(lane.tests for lane in book.lanes)
    assert 0 <= book.second_attempts.wall <= book.wall


@steady
@given(runs())
def test_each_test_is_in_one_lane_once(stream: list[ev.Event]) -> None:
    book = ledger(stream)
    assert sum(lane.tests for lane in book.lanes) == len(book.tests)
    assert sum(lane.seconds for lane in book.lanes) == book.test_seconds
    assert sum(test.attempts - 1 for test in book.tests) == book.second_attempts.attempts


@steady
@given(streams, moments)
def test_only_times_since_the_start_matter(stream: list[ev.Event], later: float) -> None:
    assert ledger([shifted(event, later) for event in stream]) == ledger(stream)


def shifted(event: ev.Event, later: float) -> ev.Event:
    times = [name for name in ("at", "start", "ready", "call_start", "call_end", "end") if hasattr(event, name)]
    return replace(event, **{name: getattr(event, name) + later for name in times})


@steady
@given(runs())
def test_the_lower_bound_holds_the_longest_test(stream: list[ev.Event]) -> None:
    book = ledger(stream)
    longest = max((test.total for test in book.tests), default=0.0)
    assert book.lower_bound >= longest
    assert names_of(book) <= {test.nodeid for test in book.tests}


def names_of(book: Ledger) -> set[str]:
    return {step.name for step in book.critical_path if step.kind in ("test", "again")}


@steady
@given(streams, st.floats(0.001, 1000))
def test_a_verdict_is_one_comparison(stream: list[ev.Event], budget: float) -> None:
    judged = verdict(ledger(stream), budget)
    assert judged.held == (judged.wall <= budget)
    assert judged.share == judged.wall / budget
