"""Tests that stop the clock, or set it years ahead, in the middle of a run."""

import asyncio
import datetime as dt
import time

import pytest
from freezegun import freeze_time
from trail import held, note

pytestmark = pytest.mark.anyio

FAR = "2040-01-02 03:04:05"


def year():
    return dt.datetime.now(tz=dt.UTC).year


@pytest.fixture
async def own():
    with held("own") as value:
        yield value


async def test_before(own):
    await asyncio.sleep(0.01)
    assert year() < 2040


@freeze_time(FAR, real_asyncio=True)
async def test_decorated(own):
    await asyncio.sleep(0.01)
    assert year() == 2040


async def test_frozen_block(own):
    with freeze_time(FAR, real_asyncio=True):
        assert year() == 2040
        await asyncio.sleep(0.01)
    assert year() < 2040


async def test_ticks_by_years(own):
    """A step of ten years is longer than any time-out."""
    with freeze_time("2030-01-01") as frozen:
        frozen.tick(dt.timedelta(days=3650))
        assert year() == 2039
        note("ticked")


@pytest.fixture
def frozen():
    with freeze_time(FAR, real_asyncio=True) as clock:
        yield clock


async def test_frozen_by_a_fixture(frozen, own):
    """Up over the whole test, its set-up and its tear-down."""
    frozen.tick(1000)
    await asyncio.sleep(0.01)
    assert year() == 2040


async def test_frozen_by_a_hidden_name():
    """Reading the code doesn't show it; the guard stops it."""
    freezer = globals()["freeze" + "_time"]("2040-01-01", real_asyncio=True)
    freezer.start()
    assert year() == 2040
    freezer.stop()


@pytest.mark.parametrize("number", range(4))
async def test_beside(number):
    for _ in range(50):
        assert year() < 2040
        await asyncio.sleep(0)


@freeze_time(FAR)
def test_sync():
    assert year() == 2040
    assert time.time() > 2_000_000_000


async def test_last(own):
    await asyncio.sleep(0.01)
    assert year() < 2040
