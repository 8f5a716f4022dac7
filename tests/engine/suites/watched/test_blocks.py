"""One blocks the loop; the others are its neighbours."""

import asyncio
import time

import pytest

pytestmark = pytest.mark.anyio


def helper():
    time.sleep(1.5)  # blocks here


async def test_blocks():
    await asyncio.sleep(0.05)
    helper()


@pytest.mark.timeout(1)
async def test_victim():
    for _ in range(5):
        await asyncio.sleep(0.1)
