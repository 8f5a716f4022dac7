"""What nobody awaited fails the test that started it."""

import asyncio
import gc
import threading
import warnings

import pytest

pytestmark = pytest.mark.anyio


async def test_task_fails():
    async def fail():
        raise ValueError("in a task")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0.01)
    del task


async def test_task_that_nobody_keeps_fails():
    async def fail():
        raise ValueError("in a task")

    asyncio.create_task(fail())  # noqa: RUF006
    await asyncio.sleep(0.01)
    gc.collect()


async def test_callback_fails():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0.01)


async def test_thread_fails():
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()


async def test_coroutine_is_not_awaited():
    asyncio.sleep(0)


async def test_neighbour_passes():
    await asyncio.sleep(0.05)


async def test_warns_as_expected():
    with pytest.warns(UserWarning):
        await asyncio.sleep(0.02)
        warnings.warn("expected", stacklevel=1)
        await asyncio.sleep(0.05)


async def test_warns_unexpectedly():
    await asyncio.sleep(0.03)
    warnings.warn("unexpected", stacklevel=1)
