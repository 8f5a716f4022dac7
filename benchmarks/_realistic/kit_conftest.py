"""Fixtures of the suite for this kit: servers, pools and isolation are its own."""

import pytest
from work import open_client


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def client(pg_pool, anyio_backend):
    async with open_client(pg_pool) as client:
        yield client
