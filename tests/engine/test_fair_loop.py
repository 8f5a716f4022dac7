"""Timers keep their order, with turns between them, however long a turn takes; those that are late are told of."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import time
from types import SimpleNamespace

import httpx
import pytest

from asynctest_kit.engine.capture import current_output
from asynctest_kit.engine.code_places import Place
from asynctest_kit.engine.deadlines import Alone, Deadlines, Doubt, tells_time_out
from asynctest_kit.engine.fair_loop import OF_FIXTURES, Account, FairLoop, current_account
from asynctest_kit.http import in_process
from asynctest_kit.http.in_process import AppTransport


async def _passed_on(times):
    for _ in range(times):
        await asyncio.get_running_loop().create_task(asyncio.sleep(0))


async def _time_out(seen):
    await asyncio.sleep(0.01)
    await _passed_on(2)
    seen.append("timed out")


async def _look(seen):
    await asyncio.sleep(0.02)
    seen.append("looked")


async def _neighbour():
    while True:
        time.sleep(0.015)  # noqa: ASYNC251  # a turn that takes long
        await asyncio.sleep(0)


async def _beside_a_busy_neighbour():
    seen = []
    neighbour = asyncio.create_task(_neighbour())
    await asyncio.gather(_time_out(seen), _look(seen))
    neighbour.cancel()
    return seen


def test_what_a_timer_begins_has_its_turns_before_a_later_timer():
    with asyncio.Runner(loop_factory=FairLoop) as runner, runner.get_loop().shared():
        assert runner.run(_beside_a_busy_neighbour()) == ["timed out", "looked"]


async def _blocked():
    loop = asyncio.get_running_loop()
    time.sleep(0.05)  # noqa: ASYNC251  # as above
    await asyncio.sleep(0)
    return time.monotonic() - loop.time()


def test_what_it_falls_behind_is_over_when_tests_run_alone():
    with asyncio.Runner(loop_factory=FairLoop) as runner:
        with runner.get_loop().shared():
            assert runner.run(_blocked()) > 0.04
        assert abs(time.monotonic() - runner.get_loop().time()) < 0.01


async def _cancelled(delay, when):
    """Cancel a timer: before or after it is due by the wall clock, in the turn in which it fires, and afterwards."""
    loop = asyncio.get_running_loop()
    if when == "as it fires":
        first = loop.call_later(delay, lambda: timers.pop().cancel())
        timers = [loop.call_at(first.when() + 1e-6, int)]
        loop.call_soon(time.sleep, 2 * delay)
        await asyncio.sleep(2 * delay)
        return
    timer = loop.call_later(delay, int)
    if when != "early":
        time.sleep(2 * delay)  # noqa: ASYNC251  # as above
        await asyncio.sleep(2 * delay if when == "fired" else 0)
    timer.cancel()


@pytest.mark.parametrize(
    ("when", "is_doubted"), [("early", False), ("late", True), ("as it fires", True), ("fired", False)]
)
def test_a_deadline_is_doubted_if_it_is_met_after_it_was_due_by_the_wall_clock(when, is_doubted):
    test, context = SimpleNamespace(item=None, doubts=[]), contextvars.copy_context()
    context.run(current_output.set, test)
    on_overdue = Deadlines(lambda _: None, print).overdue
    with asyncio.Runner(loop_factory=FairLoop) as runner, runner.get_loop().shared(on_overdue):
        runner.run(_cancelled(60 if when == "early" else 0.02, when), context=context)
    assert bool(test.doubts) is is_doubted
    if is_doubted:
        assert f"{test.doubts[0]}".startswith("a deadline of 0.02 s at ")
        assert test.doubts[0].took >= test.doubts[0].seconds


def _doubted(body):
    """How many seconds each deadline of a test allowed that is in doubt."""
    test, context = SimpleNamespace(item=None, doubts=[]), contextvars.copy_context()
    context.run(current_output.set, test)
    context.run(current_account.set, Account())
    on_overdue = Deadlines(lambda _: None, print).overdue
    with asyncio.Runner(loop_factory=FairLoop) as runner, runner.get_loop().shared(on_overdue):
        runner.run(body, context=context)
    return [doubt.seconds for doubt in test.doubts]


async def _late_answer(*_):
    """What is in time by the loop's clock only."""
    await asyncio.sleep(0)
    time.sleep(0.05)  # noqa: ASYNC251  # as above
    await asyncio.sleep(0)


async def _app(scope, receive, send):
    await _late_answer()
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def _asks_within_a_limit():
    async with httpx.AsyncClient(transport=AppTransport(_app), base_url="http://app", timeout=0.02) as client:
        assert (await client.get("/")).status_code == 204


async def _has_requests_ended():
    await in_process.ended({asyncio.create_task(_late_answer())})


@pytest.mark.parametrize(("body", "is_doubted"), [(_asks_within_a_limit, True), (_has_requests_ended, False)])
def test_deadlines_that_the_kit_sets_for_itself_are_not_doubted(monkeypatch, body, is_doubted):
    monkeypatch.setattr(in_process, "_GRACE", 0.02)
    assert _doubted(body()) == ([pytest.approx(0.02, abs=0.005)] if is_doubted else [])


async def _in_turns():
    """What takes ten turns of the loop, and nothing else."""
    await _passed_on(10)


async def _of_older_task(task):
    """What a task brings that paused meanwhile, and was begun before."""
    await task


async def _of_thread():
    await asyncio.to_thread(time.sleep, 0.01)


async def _of_pipe():
    loop, (mine, others) = asyncio.get_running_loop(), os.pipe()
    came = loop.create_future()
    loop.add_reader(mine, came.set_result, None)
    os.write(others, b"x")
    await came
    loop.remove_reader(mine)
    os.close(mine)
    os.close(others)


async def _looks_again():
    await asyncio.sleep(0.001)


async def _has_task_look_again():
    await asyncio.create_task(_looks_again())


async def _computes():
    time.sleep(0.55)  # noqa: ASYNC251  # as above


async def _has_fixture_compute():
    context = contextvars.Context()
    context.run(current_account.set, OF_FIXTURES)
    asyncio.get_running_loop().call_soon(time.sleep, 0.55, context=context)
    await _in_turns()


async def _beside_who_blocks(body):
    task = [asyncio.create_task(asyncio.sleep(0.01))] if body is _of_older_task else []
    asyncio.get_running_loop().call_soon(time.sleep, 0.55, context=contextvars.Context())
    async with asyncio.timeout(0.5):
        await body(*task)


@pytest.mark.parametrize("body", [_in_turns, _of_older_task])
def test_a_deadline_is_not_doubted_if_nothing_came_from_outside_while_it_was_pending(body):
    assert _doubted(_beside_who_blocks(body)) == []


@pytest.mark.parametrize(
    "body", [_of_thread, _of_pipe, _looks_again, _has_task_look_again, _computes, _has_fixture_compute]
)
def test_a_deadline_is_doubted_if_what_it_waits_for_may_have_taken_as_long_alone(body):
    assert _doubted(_beside_who_blocks(body)) == [pytest.approx(0.5, abs=0.01)]


def _alone(body):
    """What came of the deadlines of a test that runs alone."""
    context, alone = contextvars.copy_context(), Alone(lambda _: None)
    context.run(current_output.set, SimpleNamespace())
    with asyncio.Runner(loop_factory=FairLoop) as runner, runner.get_loop().watched(alone.made, alone.ended):
        runner.run(body, context=context)
    return alone


async def _misses_and_meets():
    """Miss deadlines of 20 ms, one by each way to set it, and meet one of 60 s."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await asyncio.Event().wait()
    asyncio.get_running_loop().call_later(0.02, int)
    alarm = asyncio.create_task(asyncio.sleep(0.02))
    async with asyncio.timeout(60):
        await asyncio.sleep(0.03)
        await alarm


def test_alone_it_is_noted_how_long_those_allowed_that_were_missed():
    alone = _alone(_misses_and_meets())
    assert [one.seconds for one in alone.missed] == pytest.approx([0.02] * 3, abs=0.005)
    assert alone.has_missed([Doubt(0.02, 0.1, None)])
    assert not alone.has_missed([Doubt(60, 70, None), Doubt(0.03, 0.1, None)])


async def _meets(*took):
    """Meet deadlines of 1 s, set at one line, after as many seconds."""
    for seconds in took:
        async with asyncio.timeout(1):
            await asyncio.sleep(0)
            time.sleep(seconds)  # noqa: ASYNC251  # no pause is as short under load


@pytest.mark.parametrize(("took", "is_easy"), [((0, 0.01), True), ((0.01, 0.55), False), ((0.55, 0.01), False)])
def test_which_deadlines_an_attempt_alone_shows_to_leave_room(took, is_easy):
    alone, doubt = _alone(_meets(*took)), Doubt(1, 2, _place_of(_meets, 3))
    assert alone.has_met_with_ease(doubt) is is_easy
    assert not alone.has_met_with_ease(Doubt(1, 2, _place_of(_meets, 2)))
    assert not alone.has_met_with_ease(Doubt(1.1, 2, doubt.place))


async def _misses_one():
    for seconds in (0, 0.02):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(seconds)


def test_who_misses_one_of_a_kind_does_not_meet_it_with_ease():
    assert not _alone(_misses_one()).has_met_with_ease(Doubt(0.01, 0.3, _place_of(_misses_one, 3)))


def _place_of(function, lines):
    return Place(__file__, function.__code__.co_firstlineno + lines, function.__name__)


class ReadTimeout(OSError):  # noqa: N818  # a name of theirs
    """As httpx calls it."""


class QueryCanceledError(Exception):
    """As asyncpg calls it."""


def _caused(error, by):
    error.__cause__ = by
    return error


def _while_handling(error, other):
    error.__context__ = other
    return error


@pytest.mark.parametrize(
    ("error", "tells"),
    [
        (TimeoutError(), True),
        (asyncio.CancelledError(), True),
        (ReadTimeout(), True),
        (QueryCanceledError(), True),
        (_caused(AssertionError("no answer"), ReadTimeout()), True),
        (_while_handling(AssertionError("no answer"), TimeoutError()), True),
        (ExceptionGroup("some", [ValueError(), _caused(KeyError(), ExceptionGroup("", [TimeoutError()]))]), True),
        (AssertionError("TimeoutError"), False),
        (ExceptionGroup("some", [ValueError(), _caused(KeyError(), OSError())]), False),
    ],
)
def test_which_errors_tell_of_a_time_out(error, tells):
    assert tells_time_out(error) is tells


def test_alone_nothing_is_told():
    late = []
    with asyncio.Runner(loop_factory=FairLoop) as runner:
        with runner.get_loop().shared(late.append):
            pass
        runner.run(_cancelled(0.02, "late"))
    assert late == []
