"""What nobody awaited is charged to the test that it belongs to, or to nobody."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from types import SimpleNamespace

import pytest

from asynctest_kit.engine.background import Background
from asynctest_kit.engine.capture import CaseOutput, current_output
from asynctest_kit.engine.leaked_tasks import TaskLedger


def in_two_tests(first, second):
    """Run ``first`` in the context of one test, then ``second`` in that of another; give what each was charged with."""
    notes = []
    outputs = [CaseOutput(SimpleNamespace(nodeid=name)) for name in ("first", "second")]

    async def main():
        loop = asyncio.get_running_loop()
        with (
            TaskLedger().installed(loop),
            Background(lambda nodeid, text: notes.append((nodeid, text))).watching(loop),
        ):
            for output, body in zip(outputs, (first, second), strict=True):
                context = contextvars.copy_context()
                context.run(current_output.set, output)
                await asyncio.create_task(body(), context=context)

    with asyncio.Runner() as runner:
        runner.run(main())
    return *(output.errors for output in outputs), notes


async def fail():
    raise LookupError("mine")


async def nothing():
    pass


async def leave_a_failed_task():
    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    del task


async def leave_a_failed_task_to_the_collector():
    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    task.add_done_callback(circle := [task].append)
    circle.__self__.append(circle)


async def leave_a_failed_future_to_the_collector():
    future = asyncio.get_running_loop().create_future()
    future.set_exception(LookupError("mine"))
    circle = [future]
    circle.append(circle)


async def collect():
    gc.collect()


def test_the_test_that_made_a_task_is_charged():
    mine, others, notes = in_two_tests(leave_a_failed_task, nothing)

    assert [type(error) for error in mine] == [LookupError]
    assert others == notes == []


def test_who_runs_while_garbage_is_collected_is_not_charged_with_a_task():
    mine, others, notes = in_two_tests(leave_a_failed_task_to_the_collector, collect)

    assert [type(error) for error in mine] == [LookupError]
    assert others == notes == []


def test_who_runs_while_garbage_is_collected_is_not_charged_with_a_future():
    mine, others, notes = in_two_tests(leave_a_failed_future_to_the_collector, collect)

    assert mine == others == []
    [(nodeid, text)] = notes
    assert nodeid == "the background"
    assert text == "raised LookupError('mine'), of no test that is known: Future exception was never retrieved"


def test_who_waits_while_the_loop_lets_go_of_a_future_is_not_charged_with_it():
    left = []

    async def fail_a_future():
        future = asyncio.get_running_loop().create_future()
        future.set_exception(LookupError("mine"))
        left.append(future)

    async def have_the_loop_run():  # as a sync fixture does that asks for an async one
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda _: None, left.pop())
        loop._run_once()

    mine, others, notes = in_two_tests(fail_a_future, have_the_loop_run)

    assert mine == others == []
    assert [nodeid for nodeid, _ in notes] == ["the background"]


def test_a_callbacks_failure_is_its_tests():
    async def call():
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    mine, others, notes = in_two_tests(call, nothing)

    assert [type(error) for error in mine] == [ZeroDivisionError]
    assert others == notes == []


def test_what_comes_after_its_test_is_a_finding():
    async def close_first():
        current_output.get().close()
        await leave_a_failed_task()

    mine, others, notes = in_two_tests(close_first, nothing)

    assert mine is None
    assert others == []
    assert notes == [("first", "raised LookupError('mine'), too late: Task exception was never retrieved")]


@pytest.mark.parametrize("leave", [asyncio.gather, asyncio.wait_for])
def test_a_cancellation_is_no_error(leave):
    async def cancel():
        future = asyncio.get_running_loop().create_future()
        waits = asyncio.gather(future) if leave is asyncio.gather else asyncio.ensure_future(leave(future, None))
        await asyncio.sleep(0)
        waits.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del waits

    assert in_two_tests(cancel, collect) == ([], [], [])
