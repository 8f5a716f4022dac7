"""A little of everything: beside others, alone, by pytest's own protocol, parametrized, slow, failing."""

import asyncio
import unittest

import pytest
from trail import held, note, used

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
async def server(anyio_backend):
    with held("server") as value:
        yield value


@pytest.fixture
async def own(server):
    with held("own", server) as value:
        yield value


@pytest.mark.parametrize("number", [1, 2])
async def test_parametrized(own, number, request):
    with used(request.node.name, own):
        note("ran", request.node.name)
        await asyncio.sleep(0)


async def test_slow(own, request):
    note("ran", request.node.name)
    await asyncio.sleep(0.6)


@pytest.mark.atk(exclusive=True)
async def test_alone(own, request):
    note("ran", request.node.name)


def test_sync(request):
    note("ran", request.node.name)


class TestCase(unittest.TestCase):
    def test_case(self):
        note("ran", "test_case")


async def test_fails(own):
    colour = "green"
    print("printed before")
    note("fails", "with", own)
    assert colour == "red"


async def test_prints():
    print("printed at once")
