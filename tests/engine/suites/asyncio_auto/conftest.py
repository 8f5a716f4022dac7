import asyncio
import contextvars

import pytest
import pytest_asyncio
from trail import held

REQUEST = contextvars.ContextVar("REQUEST", default=None)


@pytest.fixture(scope="session")
async def server():
    with held("server") as value:
        await asyncio.sleep(0.01)
        yield value


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def table(server):
    with held("table", server) as value:
        yield value


@pytest_asyncio.fixture
async def row(table):
    with held("row", table) as value:
        yield value


@pytest.fixture
def sync_over(row):
    with held("sync_over", row) as value:
        yield value


@pytest_asyncio.fixture
def sync_with_loop():
    """Declared for asyncio, though sync: it may ask which loop the test will run on."""
    return asyncio.get_event_loop()


@pytest.fixture(params=["row", "server"])
def chosen(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
async def awaited():
    await asyncio.sleep(0)
    return "awaited"


@pytest.fixture
async def in_context():
    REQUEST.set("set")


@pytest.fixture(autouse=True)
async def around():
    with held("around"):
        yield
