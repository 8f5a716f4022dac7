"""Each test of this module waits where an interrupt is to hit it; ``SUITE_WHERE`` chooses the place."""

import asyncio
import os
import time

import pytest
from trail import held, note, used

pytestmark = pytest.mark.anyio
WHERE = os.environ["SUITE_WHERE"]


async def wait_at(place):
    if place == WHERE:
        note("waits")
        await asyncio.sleep(100)


async def swallow():
    note("waits")
    while True:
        try:
            await asyncio.sleep(101)
        except asyncio.CancelledError:
            note("swallowed")


@pytest.fixture(scope="session")
async def base(anyio_backend):
    with held("base") as value:
        yield value
        await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
async def _start(base, anyio_backend):
    await wait_at("shared set-up")


@pytest.fixture(scope="session")
async def server(_start, base, anyio_backend):
    with held("server", base) as value:
        try:
            yield value
        finally:
            if WHERE == "shared tear-down":
                note("waits")
                await asyncio.sleep(0.3)
            await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def sync_shared(base):
    with held("sync_shared", base) as value:
        yield value


@pytest.fixture
async def own(server):
    with held("own", server) as value:
        await wait_at("own set-up")
        yield value
        if WHERE == "own tear-down":
            note("waits")
        await asyncio.sleep(0.3)
        note("own", "ended")


@pytest.fixture
def sync_own(sync_shared):
    with held("sync_own", sync_shared) as value:
        yield value


@pytest.mark.parametrize("number", range(2 if WHERE == "own tear-down" else 5))
async def test_waits(own, sync_shared, number):
    with used(f"waits-{number}", own, sync_shared):
        await asyncio.sleep(0.01)
        if number == 0:
            await wait_at("test")
            if WHERE == "swallowed":
                await swallow()
        elif WHERE not in {"own tear-down", "shared tear-down", "sync test", "sync set-up", "alone"}:
            await asyncio.sleep(100)


@pytest.mark.skipif(WHERE != "alone", reason="elsewhere")
async def test_alone(monkeypatch, own):
    with used("alone", own):
        await wait_at("alone")


@pytest.fixture
async def async_for_sync(server, sync_own):
    with held("async_for_sync", server, sync_own) as value:
        await wait_at("sync set-up")
        yield value
        await asyncio.sleep(0.01)


@pytest.mark.skipif(not WHERE.startswith("sync"), reason="elsewhere")
def test_sync(async_for_sync, sync_own, server):
    with used("sync", async_for_sync, sync_own, server):
        if WHERE == "sync test":
            note("waits")
            time.sleep(100)


@pytest.mark.skipif(WHERE != "raised", reason="elsewhere")
async def test_raises(own):
    with used("raises", own):
        raise KeyboardInterrupt
