"""Tests of groups, which note when they run."""

import asyncio

import pytest
from trail import used

pytestmark = pytest.mark.anyio


async def run(name):
    with used(name):
        for _ in range(30):
            await asyncio.sleep(0)


@pytest.mark.atk(group="one")
@pytest.mark.parametrize("number", range(4))
async def test_one(number):
    await run(f"one-{number}")


@pytest.mark.atk(group="three")
class TestThree:
    @pytest.mark.parametrize("number", range(7))
    async def test_three(self, number):
        await run(f"three-{number}")

    @pytest.mark.atk(group="one")
    async def test_closest(self):
        await run("one-closest")


@pytest.mark.parametrize("number", range(4))
async def test_free(number):
    await run(f"free-{number}")


@pytest.mark.atk(group="held", timeout=20)
async def test_holds(alive):
    """Waits in its group until one of another group, and one that would be next in its own, can be told apart."""
    with used("held-1"):
        await alive.wait()


@pytest.mark.atk(group="held")
async def test_next_in_group():
    with used("held-2"):
        await asyncio.sleep(0)


@pytest.mark.atk(group="other")
async def test_of_another_group(alive):
    with used("other-1"):
        alive.set()


@pytest.fixture(scope="session")
async def alive(anyio_backend):
    return asyncio.Event()


@pytest.mark.atk(exclusive=True)
async def test_alone():
    await run("alone")


def test_sync():
    with used("sync"):
        pass
