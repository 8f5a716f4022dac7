"""A deadline that leaves room, and is met late by the wall clock each time, for a neighbour blocks the loop."""

import asyncio
import threading
import time

import pytest

pytestmark = pytest.mark.anyio

pending = asyncio.Event()


async def test_blocks():
    """Longer than its neighbour's deadline, as soon as that is pending."""
    await pending.wait()
    threading.Event().wait(1.1)


async def test_has_room():
    """What it waits for takes a hundredth of its deadline."""
    pending.set()
    await asyncio.wait_for(asyncio.to_thread(time.sleep, 0.01), 1)
