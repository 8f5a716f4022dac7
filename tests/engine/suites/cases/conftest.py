import asyncio

import pytest
from trail import held


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
async def server(anyio_backend):
    with held("server") as value:
        await asyncio.sleep(0.01)
        yield value


@pytest.fixture(scope="class")
def for_class(request):
    with held("for_class") as value:
        request.cls.given = value
        yield value
