"""A time-out ends what runs too long, whatever that does about it, and says where it was."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import traceback

import anyio
import pytest

from asynctest_kit.engine.code_places import Place
from asynctest_kit.engine.time_limit import TimeLimit

pytestmark = pytest.mark.anyio

LIMIT = 0.02
PAUSES = (0.02, 0.02, 0.02)
MESSAGE = "test_x: the call took longer than its time-out of 0.02 s"


async def limited(body, *, seconds=LIMIT, **options):
    return await TimeLimit(seconds, "test_x: the call", pauses=PAUSES, **options).run(body)


async def fails(body, **options):
    """Run ``body`` to its time-out, in a task that goes on afterwards."""
    with pytest.raises(pytest.fail.Exception) as caught:
        await limited(body, **options)
    task = asyncio.current_task()
    assert task.cancelling() == 0
    await asyncio.sleep(0)
    return caught.value


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


async def test_what_ends_in_time_gives_its_value():
    async def body():
        await asyncio.sleep(0)
        return await asyncio.to_thread(lambda: 42)

    assert await limited(body, seconds=10) == 42
    assert await limited(body, seconds=0) == 42


async def test_what_is_raised_in_time_is_raised():
    async def body():
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)
        except TimeoutError:
            raise LookupError("mine") from None

    with pytest.raises(LookupError, match=r"^mine$") as caught:
        await limited(body, seconds=10)
    assert not hasattr(caught.value, "__notes__")


async def test_the_failure_ends_at_the_line_that_waited():
    async def helper():
        await asyncio.sleep(10)  # here

    async def body():
        await helper()

    error = await fails(body)
    assert str(error) == MESSAGE
    last = [one for one in traceback.extract_tb(error.__traceback__) if one.filename == __file__][-1]
    assert (last.name, last.lineno) == ("helper", line_of(helper, "# here"))


async def test_clean_up_has_its_time():
    done = []

    async def body():
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.005)
            done.append(True)

    assert str(await fails(body)) == MESSAGE
    assert done == [True]


async def test_what_the_clean_up_raises_is_raised_with_a_note():
    async def body():
        try:
            await asyncio.sleep(10)
        finally:
            raise LookupError("mine")

    with pytest.raises(LookupError, match=r"^mine") as caught:
        await limited(body)
    assert caught.value.__notes__ == [f"({MESSAGE}, and raised this when it was cancelled)"]


async def test_one_that_swallows_its_cancellation_and_ends_fails():
    async def body():
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return "done"

    assert str(await fails(body)) == f"{MESSAGE}, and it swallowed its cancellation"


async def test_one_that_goes_on_after_its_cancellation_is_closed_where_it_is():
    left = []

    async def body():
        try:
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(10)  # here
        finally:
            left.append(asyncio.current_task())

    error = await fails(body)
    place = Place(__file__, line_of(body, "# here"), "body")
    assert str(error) == f"{MESSAGE} and doesn't end when it is cancelled: it was closed at {place}"
    assert left == [asyncio.current_task()]


async def test_one_that_catches_everything_is_left_behind():
    woken = []

    async def body():
        while True:
            try:
                await asyncio.sleep(0.001)  # here
            except BaseException as error:  # noqa: BLE001  # the point of the test
                woken.append(type(error))

    error = await fails(body)
    place = Place(__file__, line_of(body, "# here"), "body")
    assert str(error) == f"{MESSAGE} and doesn't end when it is cancelled: it is left behind at {place}"
    before = len(woken)
    await asyncio.sleep(0.01)
    assert len(woken) == before


async def test_one_whose_close_fails_says_so():
    async def body():
        while True:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                pass
            except GeneratorExit:
                raise LookupError("mine") from None

    error = await fails(body)
    assert str(error).startswith(f"{MESSAGE} and doesn't end when it is cancelled: it was closed at ")
    assert str(error).endswith(", and raised LookupError('mine')")


async def _awaits(task):
    await task


async def _gathers(task):
    await asyncio.gather(task)


async def _groups(task):
    async with asyncio.TaskGroup() as group:
        group.create_task(_shields(task))


async def _shields(task):
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)


async def _spins(task):
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)


@pytest.mark.parametrize("wait", [_awaits, _gathers, _groups, _shields, _spins])
async def test_one_that_waits_for_a_stubborn_task_is_given_up(wait):
    stop = asyncio.Event()

    async def stubborn():
        while not stop.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await stop.wait()

    task = asyncio.create_task(stubborn())
    error = await fails(lambda: wait(task))
    assert str(error).startswith(f"{MESSAGE} and doesn't end when it is cancelled: it ")
    assert f" in {wait.__name__}" in str(error)
    assert not task.done()
    stop.set()
    await task


async def test_the_cancel_scope_of_a_fixture_can_be_left_after_a_test_was_given_up():
    async def body():
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(10)

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0.001)
        await fails(body)
    with anyio.move_on_after(0.001) as scope:
        await anyio.sleep(10)
    assert scope.cancelled_caught


async def test_the_task_group_of_a_test_that_was_given_up_does_not_cancel_the_tear_down():
    stop = asyncio.Event()
    tasks = []

    async def stubborn():
        tasks.append(asyncio.current_task())
        while not stop.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await stop.wait()

    async def body():
        async with anyio.create_task_group() as group:
            group.start_soon(stubborn)
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(10)

    error = await fails(body)
    assert "it was closed at" in str(error)
    for _ in range(10):
        await asyncio.sleep(0)
    stop.set()
    await asyncio.wait(tasks)


async def test_what_others_block_does_not_count():
    delays = iter([1.0, 1.1, 1.1])
    asked = []

    def delay():
        asked.append(True)
        return next(delays)

    loop = asyncio.get_running_loop()
    start = loop.time()
    error = await fails(lambda: asyncio.sleep(10), delay=delay)
    assert str(error) == MESSAGE
    assert loop.time() - start >= LIMIT + 0.1
    assert len(asked) == 3


async def test_a_cancellation_from_elsewhere_stays_one():
    task = asyncio.create_task(limited(lambda: asyncio.sleep(10), seconds=10))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_async_generator_that_hangs_is_closed_where_it_waits():
    closed = []

    async def generator():
        try:
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(10)  # here
        finally:
            closed.append(True)
        yield

    async def body():
        await anext(generator())

    error = await fails(body)
    place = Place(__file__, line_of(generator, "# here"), "generator")
    assert str(error) == f"{MESSAGE} and doesn't end when it is cancelled: it was closed at {place}"
    assert closed == [True]
