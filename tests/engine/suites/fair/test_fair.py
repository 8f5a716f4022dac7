"""Timers of one test, while a neighbour keeps the loop from turning for longer than they are apart."""

import asyncio
import contextlib
import os
import time

import pytest
from trail import note

pytestmark = pytest.mark.anyio

TESTS = 6
running = set()


def busy(seconds):
    """Block the loop by work, as a test does that computes or parses."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def test_blocks():
    """50 ms in each turn, as long as others run."""
    for _ in range(200):
        busy(0.05)
        await asyncio.sleep(0)
        if len(running) == TESTS or "SUITE_PLAIN" in os.environ:
            break


@contextlib.contextmanager
def counted(name):
    try:
        yield
    finally:
        running.add(name)


async def test_two_timers():
    """What the first timer starts has its turns before the second."""
    seen = []

    async def answer():
        await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        seen.append("answered")

    with counted("two"):
        asking = asyncio.create_task(answer())
        await asyncio.sleep(0.02)
        seen.append("looked")
        await asking
        note("two", *seen)
    assert seen == ["answered", "looked"]


async def test_time_limit():
    """A limit of the test's own isn't used up by its neighbour."""
    with counted("limit"):
        async with asyncio.timeout(0.05):
            for _ in range(3):
                await asyncio.sleep(0.005)


async def test_wait_for():
    async def answer():
        await asyncio.sleep(0.01)
        return "answer"

    with counted("wait"):
        assert await asyncio.wait_for(answer(), 0.03) == "answer"


async def test_three_in_order():
    seen = []
    loop = asyncio.get_running_loop()

    with counted("three"):
        for delay in (0.03, 0.01, 0.02):
            loop.call_later(delay, lambda delay=delay: loop.call_soon(seen.append, delay))
        await asyncio.sleep(0.04)
        await asyncio.sleep(0)
    assert seen == [0.01, 0.02, 0.03]


async def test_clock_goes_on():
    """The loop's time never goes back, and a sleep takes it at least as far as it says."""
    loop = asyncio.get_running_loop()
    with counted("clock"):
        for _ in range(5):
            before = loop.time()
            await asyncio.sleep(0.002)
            assert loop.time() >= before + 0.002 - time.get_clock_info("monotonic").resolution


async def test_sees_times_of_its_own():
    with counted("own"):
        start = time.monotonic()
        await asyncio.sleep(0.01)
        assert time.monotonic() - start >= 0.009


@pytest.mark.atk(exclusive=True)
async def test_alone():
    """The clock of a test alone is asyncio's: who moves ``time.monotonic`` moves the loop's time too."""
    loop, original = asyncio.get_running_loop(), time.monotonic
    before = loop.time()
    time.monotonic = lambda: original() + 1000
    try:
        moved = loop.time() - before
    finally:
        time.monotonic = original
    note("moved", moved >= 1000)
