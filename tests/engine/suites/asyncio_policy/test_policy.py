"""Tests that ask for a loop of a kind of its own get it."""

import asyncio

import pytest
from trail import held, used


class Loop(asyncio.SelectorEventLoop):
    pass


class Policy(asyncio.DefaultEventLoopPolicy):
    _loop_factory = Loop


@pytest.fixture(scope="module")
def event_loop_policy():
    return Policy()


@pytest.fixture
async def row():
    assert isinstance(asyncio.get_running_loop(), Loop)
    with held("row") as value:
        yield value


async def test_own_loop(row):
    with used("own", row):
        assert isinstance(asyncio.get_running_loop(), Loop)


async def test_fails(row):
    assert not isinstance(asyncio.get_running_loop(), Loop)


def test_sync_beside(row):
    assert row
