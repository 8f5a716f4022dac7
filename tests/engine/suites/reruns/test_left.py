"""Tests that leave their state dirty when they fail, and one that fails every second time, whoever runs beside it."""

import asyncio

import pytest

pytestmark = pytest.mark.anyio

log = []
runs = []


async def logs(name):
    log.append(name)
    for _ in range(50):
        await asyncio.sleep(0)
    assert log == [name]
    log.clear()


async def test_one():
    await logs("one")


async def test_two():
    await logs("two")


async def test_every_second_time():
    runs.append(None)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(runs) % 2 == 0
