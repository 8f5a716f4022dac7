"""Each test writes what no other writes, in between the others."""

import asyncio
import logging
import sys
import threading
import warnings

import pytest

pytestmark = pytest.mark.anyio
log = logging.getLogger("suite")


@pytest.fixture(scope="module")
async def shared(anyio_backend):
    print("shared set-up")
    yield
    print("shared tear-down")


@pytest.fixture
async def own(request):
    print(f"own set-up of {request.node.name}")
    log.info("own set-up")
    yield
    print(f"own tear-down of {request.node.name}")


def write(text):
    print(f"out {text}")
    print(f"err {text}", file=sys.stderr)
    log.info("log %s", text)
    sys.stdout.write("")
    sys.stdout.buffer.write(b"")
    warnings.warn(f"warned {text}", stacklevel=1)


@pytest.mark.parametrize("number", range(6))
async def test_writes(shared, own, number):
    for step in range(3):
        write(f"{number}.{step}")
        await asyncio.sleep(0.001)
    pytest.fail("to see the output")


async def _child():
    await asyncio.sleep(0.001)
    print("from a child")


async def test_child_task():
    async with asyncio.TaskGroup() as group:
        group.create_task(_child())
    pytest.fail("to see the output")


async def test_thread():
    await asyncio.to_thread(print, "from a thread")
    pytest.fail("to see the output")


async def test_debug_is_below_the_level():
    log.debug("not shown")
    pytest.fail("to see the output")


async def test_quiet():
    await asyncio.sleep(0.001)
    pytest.fail("to see that there is none")


def test_sync(shared):
    print("from a sync test")
    pytest.fail("to see the output")


async def test_capsys(capsys):
    print("captured")
    assert capsys.readouterr().out == "captured\n"
    print("left over")
    pytest.fail("to see the output")


async def test_capsys_disabled(capsys):
    with capsys.disabled():
        print("straight to the terminal")
    pytest.fail("to see the output")


async def test_caplog(caplog):
    log.info("one")
    with caplog.at_level(logging.DEBUG, logger="suite"):
        log.debug("two")
    assert caplog.messages == ["one", "two"]
    caplog.clear()
    log.warning("three")
    assert [record.message for record in caplog.records] == ["three"]
    pytest.fail("to see the output")


@pytest.fixture
def logs_first(caplog):
    log.info("in the set-up")


async def test_caplog_phases(logs_first, caplog):
    assert [record.message for record in caplog.get_records("setup")] == ["in the set-up"]
    assert caplog.messages == []


async def test_bare_thread():
    """What it prints is the output of the test that started it."""
    thread = threading.Thread(target=print, args=("from a thread",))
    thread.start()
    await asyncio.to_thread(thread.join)
    pytest.fail("to see the output")
