"""What a fixture asked for hangs, is cancelled, or ends the fixture that asked."""

import asyncio

import pytest
from trail import held, used

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def hangs(anyio_backend):
    with held("hangs"):
        await asyncio.Event().wait()


@pytest.fixture
async def cancels_itself(anyio_backend):
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


@pytest.fixture
async def base(anyio_backend):
    with held("base") as value:
        yield value


@pytest.fixture
def asks_hanging(request, base):
    with held("asks_hanging", base):
        yield request.getfixturevalue("hangs")


@pytest.fixture
def asks_cancelled(request):
    return request.getfixturevalue("cancels_itself")


async def test_hangs(asks_hanging):
    pass


async def test_cancelled(asks_cancelled):
    pass


@pytest.mark.parametrize("number", range(3))
async def test_goes_on(base, number):
    with used(f"goes-on-{number}", base):
        await asyncio.sleep(0.01)
