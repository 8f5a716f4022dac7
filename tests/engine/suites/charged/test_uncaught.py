"""What nobody can catch fails the test that it comes from, and not one that expects a failure."""

import asyncio
import socket
import threading

import pytest

pytestmark = pytest.mark.anyio


async def nothing():
    pass


async def test_forgets_to_await():
    nothing()
    await asyncio.sleep(0.01)


@pytest.mark.xfail
async def test_known_defect():
    await asyncio.sleep(0.005)
    raise AssertionError("known")


async def test_skips():
    await asyncio.sleep(0.005)
    pytest.skip("not here")


@pytest.mark.parametrize("number", range(3))
async def test_neighbour(number):
    await asyncio.sleep(0.002 * number)


async def test_leaks_a_socket():
    leaked = socket.socket()
    del leaked
    await asyncio.sleep(0)


async def test_fails_in_a_thread():
    def fail():
        raise ValueError("in a thread")

    thread = threading.Thread(target=fail)
    thread.start()
    await asyncio.to_thread(thread.join)


async def test_fails_when_it_is_freed():
    class Fails:
        def __del__(self):
            raise ValueError("when it is freed")

    Fails()
    await asyncio.sleep(0)


async def test_forgets_to_await_in_a_task():
    async def inner():
        nothing()

    await asyncio.create_task(inner())


def test_sync_forgets_to_await():
    nothing()
