import asyncio

import pytest


@pytest.fixture
async def value():
    return asyncio.get_running_loop()


async def test_value(value):
    assert value is asyncio.get_running_loop()


def test_sync_value(value):
    assert isinstance(value, asyncio.AbstractEventLoop)


def test_set_loop(event_loop):
    asyncio.set_event_loop(event_loop)
    assert asyncio.get_event_loop() is event_loop
