"""Tests around which an autouse fixture puts a registry back; most leave it alone."""

import asyncio

import pytest
from product import Registry
from trail import note, used

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("number", range(6))
async def test_reads(number):
    with used(f"reads-{number}"):
        for _ in range(20):
            assert (dict(Registry.tasks), list(Registry.names), Registry.current) == ({}, [], None)
            await asyncio.sleep(0)


def change(how):
    """Behind a name that reading a test's code doesn't follow into an attribute."""
    {
        "item": lambda: Registry.tasks.__setitem__("a", 1),
        "append": lambda: Registry.names.append("a"),
        "update": lambda: Registry.tasks.update(a=1),
    }[how]()


@pytest.mark.parametrize("how", ["item", "append", "update"])
async def test_changes(how):
    change(how)
    note("changed", how)
    await asyncio.sleep(0)
    assert Registry.tasks or Registry.names


async def test_sets():
    """An attribute can't be guarded: what is put back tells, and the test is moved all the same."""
    kind = type("Holder", (), {"kept": Registry}).kept
    setattr(kind, "cur" + "rent", "mine")
    note("set")
    assert Registry.current == "mine"


def test_sync_changes():
    Registry.tasks["sync"] = 1
    assert Registry.tasks == {"sync": 1}
