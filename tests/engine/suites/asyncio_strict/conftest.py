import asyncio

import pytest
import pytest_asyncio
from trail import held


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server():
    with held("server") as value:
        await asyncio.sleep(0.01)
        yield value, asyncio.get_running_loop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def table():
    with held("table") as value:
        yield value


@pytest_asyncio.fixture
async def row():
    with held("row") as value:
        yield value


@pytest_asyncio.fixture(params=[1, 2], ids=["one", "two"])
async def each(request):
    with held(f"each-{request.param}") as value:
        yield value


@pytest_asyncio.fixture(name="renamed")
async def _whatever(row):
    return row


@pytest.fixture
def sync_over(row):
    return f"over {row}"
