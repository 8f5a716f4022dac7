"""What a test does in threads is its own: what they log, warn and print."""

import asyncio
import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = pytest.mark.anyio

log = logging.getLogger("app")


def job():
    log.error("job failed")


def warn():
    warnings.warn("from a job", UserWarning, stacklevel=1)


async def in_the_loops_executor(function):
    await asyncio.get_running_loop().run_in_executor(None, function)


async def in_an_executor(function):
    with ThreadPoolExecutor(1) as pool:
        await asyncio.wrap_future(pool.submit(function))


async def in_a_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    await asyncio.to_thread(thread.join)


async def from_a_thread(function):
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    async def call():
        function()
        done.set()

    await in_a_thread(lambda: asyncio.run_coroutine_threadsafe(call(), loop))
    await done.wait()


WAYS = pytest.mark.parametrize("way", [in_the_loops_executor, in_an_executor, in_a_thread, from_a_thread])


@WAYS
async def test_expects_a_record(way, caplog):
    await way(job)
    assert caplog.messages == ["job failed"]


@WAYS
async def test_expects_no_record(way, caplog):
    await way(job)
    assert not caplog.records


@pytest.mark.parametrize("way", [in_the_loops_executor, in_an_executor])
async def test_expects_a_warning(way):
    with pytest.warns(UserWarning, match="from a job"):
        await way(warn)


@pytest.mark.parametrize("way", [in_the_loops_executor, in_an_executor])
async def test_expects_no_warning(way):
    await way(warn)


@pytest.mark.parametrize("number", range(4))
async def test_neighbour_has_none_of_it(number, caplog):
    await asyncio.sleep(0.005 * number)
    assert not caplog.records
