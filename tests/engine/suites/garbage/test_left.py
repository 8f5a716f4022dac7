"""What tests leave lies in cycles that only the garbage collector finds."""

import gc
import weakref

import pytest

pytestmark = pytest.mark.anyio


class Left:
    def __init__(self, name):
        self.name = name
        self.itself = self

    def __del__(self):
        raise ValueError(f"{self.name} was left")


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def shared():
    yield
    Left("by a fixture")


async def test_sees_what_refers_to_an_object(shared):
    held = object()
    holder = [held]
    assert any(one is holder for one in gc.get_referrers(held))
    assert any(one is test_sees_what_refers_to_an_object.__globals__ for one in gc.get_referrers(Left))


class Node:
    def __init__(self):
        self.itself = self


NODES = {"made while collecting": Node()}


async def test_sees_what_was_made_while_collecting():
    assert any(one is NODES for one in gc.get_objects())


async def test_finds_what_nobody_holds_any_more():
    ended = weakref.ref(NODES.pop("made while collecting"))
    gc.collect()
    assert ended() is None


async def test_leaves(shared):
    Left("by a test")
