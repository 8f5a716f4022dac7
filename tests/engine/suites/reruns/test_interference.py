"""Tests that fail for what another test does to a module's state."""

import asyncio

import pytest
from trail import held, note, used

pytestmark = pytest.mark.anyio


class State:
    """Of the module, changed by a method: reading the tests doesn't show it."""

    user = "nobody"

    def become(self, user):
        self.user = user


state = State()


async def while_mine(name):
    """Let the loop turn while ``state`` is ours."""
    for _ in range(2000):
        await asyncio.sleep(0)
        if state.user != name:
            return


@pytest.fixture(scope="module")
async def table(anyio_backend):
    with held("table") as value:
        yield value


async def test_victim(table):
    note("attempt", "victim")
    print("output of victim")
    state.become("victim")
    with used("victim", table):
        await while_mine("victim")
    assert state.user == "victim"


@pytest.mark.parametrize("number", range(7))
async def test_innocent(table, number):
    with used(f"innocent-{number}", table):
        for _ in range(20):
            await asyncio.sleep(0)


async def test_suspect(table):
    with used("suspect", table):
        for _ in range(10):
            await asyncio.sleep(0)
        state.become("suspect")
