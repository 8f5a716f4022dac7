"""What they leave running."""

import asyncio

import pytest

pytestmark = pytest.mark.anyio


async def worker():
    await asyncio.Event().wait()


async def test_leaks():
    asyncio.create_task(worker(), name="worker")  # noqa: RUF006
    await asyncio.sleep(0)


async def test_first_use(pool):
    assert await pool.ask() == "answer"


async def test_later_use(pool):
    await asyncio.sleep(0.2)
    assert await pool.ask() == "answer"
