"""anyio's marks beside pytest-asyncio's."""

import asyncio

import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def by_anyio(anyio_backend):
    await asyncio.sleep(0)
    return "by anyio"


async def test_by_anyio(by_anyio):
    assert by_anyio == "by anyio"


def test_sync_by_anyio(by_anyio):
    assert by_anyio == "by anyio"
