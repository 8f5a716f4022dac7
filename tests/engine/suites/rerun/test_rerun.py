import asyncio

import pytest
from trail import held, used

pytestmark = pytest.mark.anyio
tries = {"async": 0, "sync": 0}


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def settings():
    with held("settings") as value:
        yield value


@pytest.fixture(scope="module")
async def server(anyio_backend, settings):
    with held("server", settings) as value:
        yield value


@pytest.fixture
async def row(server):
    with held("row", server) as value:
        yield value


@pytest.mark.flaky(reruns=3)
async def test_async(row, settings):
    with used("async", row, settings):
        await asyncio.sleep(0)
    tries["async"] += 1
    assert tries["async"] == 3


@pytest.mark.flaky(reruns=3)
def test_sync(row, settings):
    with used("sync", row, settings):
        tries["sync"] += 1
    assert tries["sync"] == 2


@pytest.mark.flaky(reruns=1)
async def test_fails(row):
    raise LookupError


async def test_unmarked(row):
    with used("unmarked", row):
        await asyncio.sleep(0.01)
