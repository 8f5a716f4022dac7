"""They don't end when they are told to."""

import asyncio
import contextlib

import anyio
import pytest
from trail import held

pytestmark = pytest.mark.anyio


@pytest.fixture
async def resource(request):
    with held(f"resource-of-{request.node.name}"):
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0.01)
            yield


@pytest.fixture
async def hangs_in_its_tear_down(resource):
    yield
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


@pytest.fixture
async def hangs_in_its_set_up(resource):
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
    yield


@pytest.mark.timeout(0.2)
async def test_swallows_its_cancellation(resource):
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


@pytest.mark.timeout(0.2)
async def test_catches_everything(resource):
    while True:
        with contextlib.suppress(BaseException):
            await asyncio.sleep(60)


@pytest.mark.timeout(0.2)
async def test_tear_down(hangs_in_its_tear_down):
    pass


@pytest.mark.timeout(0.2)
async def test_set_up(hangs_in_its_set_up):
    pass
