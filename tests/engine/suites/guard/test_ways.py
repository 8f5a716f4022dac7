"""Who is stopped, wherever it is that it changes something; and who isn't."""

import asyncio
import importlib
import os

import pytest
from guard_points import built, method_of
from trail import held, note, used

pytestmark = pytest.mark.anyio

CHANGES = ("swallows", "own_fixture", "tear_down", "child_task", "thread", "module_one", "module_two", "class_one")
tried = set()


def sets(name):
    """Change the environment for a while; the guard stops whoever comes here beside others."""
    tried.add(name)
    getattr(os, "envi" + "ron").__setitem__("GUARD_WAY", name)


def unsets():
    getattr(os, "envi" + "ron").__delitem__("GUARD_WAY")


async def test_neighbour():
    while len(tried) < len(CHANGES):
        await asyncio.sleep(0)
        assert "GUARD_WAY" not in os.environ
    note("neighbour", len(tried))


async def test_swallows():
    tried.add("swallows")
    try:
        sets("swallows")
    except BaseException:  # noqa: BLE001
        note("swallowed")
    else:
        note("went-through", "swallows")
        unsets()
    await asyncio.sleep(0)


@pytest.fixture
async def own():
    with held("own") as value:
        sets("own_fixture")
        yield value
        unsets()


async def test_own_fixture(own):
    with used("own-fixture", own):
        await asyncio.sleep(0)


@pytest.fixture
async def torn():
    yield
    sets("tear_down")
    await asyncio.sleep(0)
    unsets()


async def test_tear_down(torn):
    note("before-tear-down")


async def child(name):
    sets(name)
    await asyncio.sleep(0)
    unsets()


async def test_child_task():
    async with asyncio.TaskGroup() as group:
        group.create_task(child("child_task"))


async def test_thread():
    await asyncio.to_thread(sets, "thread")
    await asyncio.sleep(0)
    unsets()


@pytest.fixture(scope="module")
async def of_module(anyio_backend):
    sets("module_one")
    tried.add("module_two")
    with held("of_module") as value:
        yield value
    unsets()


async def test_module_one(of_module):
    with used("module-one", of_module):
        assert os.environ["GUARD_WAY"] == "module_one"
        await asyncio.sleep(0)


async def test_module_two(of_module):
    with used("module-two", of_module):
        assert os.environ["GUARD_WAY"] == "module_one"
        await asyncio.sleep(0)


@pytest.fixture(scope="class")
async def of_class(anyio_backend):
    sets("class_one")
    with held("of_class") as value:
        yield value
    unsets()


class TestClass:
    async def test_class_one(self, of_class):
        with used("class-one", of_class):
            assert os.environ["GUARD_WAY"] == "class_one"
            await asyncio.sleep(0)


async def test_fails_alone_too():
    sets("alone")
    unsets()
    raise LookupError("of the test itself")


async def test_importing(tmp_path):
    """Code of a module runs once in a process, under every runner."""
    await asyncio.sleep(0)
    importlib.import_module("guard_imported")


async def test_same_value():
    """What is set to what it is doesn't change."""
    environment = getattr(os, "envi" + "ron")
    environment.__setitem__("GUARD_THERE", environment["GUARD_THERE"])
    await asyncio.sleep(0)


async def test_sleeps_in_a_thread():
    await asyncio.to_thread(built("time", "sleep"), 0.01)


async def test_sleeps_a_moment():
    built("time", "sleep")(0.001)
    await asyncio.sleep(0)


def with_a_loop():
    async def inside():
        method_of(asyncio.get_running_loop(), "set exception handler")(None)

    asyncio.run(inside())


async def test_loop_of_a_thread():
    await asyncio.to_thread(with_a_loop)
