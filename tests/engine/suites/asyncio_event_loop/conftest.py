"""As suites did before pytest-asyncio 1.0: a loop for the session, in the place of the plugin's."""

import asyncio

import pytest
from trail import held


@pytest.fixture(scope="session")
def event_loop():
    loop = asyncio.get_event_loop_policy().new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
async def server():
    with held("server") as value:
        await asyncio.sleep(0.01)
        yield value, asyncio.get_running_loop()


@pytest.fixture
async def row(server, event_loop):
    assert event_loop is asyncio.get_running_loop()
    with held("row", server[0]) as value:
        yield value


@pytest.fixture
def sync_row(event_loop, server):
    return event_loop.run_until_complete(asyncio.sleep(0, "run by a sync fixture"))
