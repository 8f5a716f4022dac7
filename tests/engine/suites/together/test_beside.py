import asyncio
import contextvars
import logging
import os
import warnings

import pytest
from trail import held, note, used

pytestmark = pytest.mark.anyio

variable = contextvars.ContextVar("variable", default="untouched")


@pytest.fixture(scope="session")
def meeting(anyio_backend):
    return [] if "SUITE_PLAIN" in os.environ else asyncio.Barrier(8)


@pytest.mark.parametrize("number", range(8))
async def test_meets(meeting, number):
    """Passes only if all eight run at once."""
    with used(f"beside-{number}"):
        if meeting != []:
            await meeting.wait()


@pytest.fixture(scope="session")
def listening(anyio_backend):
    """Where those that listen to records or warnings meet: all hear each other, unless they're kept apart."""
    return [] if "SUITE_PLAIN" in os.environ else asyncio.Barrier(5)


async def all_together(listening):
    if listening != []:
        await listening.wait()


async def test_caplog(caplog, listening):
    with used("beside-caplog"):
        await all_together(listening)
        with caplog.at_level(logging.INFO):
            logging.getLogger("some").info("told")
            await all_together(listening)
        assert caplog.messages == ["told"]
        assert caplog.get_records("setup") == []
        assert caplog.record_tuples == [("some", logging.INFO, "told")]


async def test_recwarn(recwarn, listening):
    with used("beside-recwarn"):
        await all_together(listening)
        warnings.warn("heard", stacklevel=1)
        await all_together(listening)
        assert [str(one.message) for one in recwarn] == ["heard"]


@pytest.mark.filterwarnings("ignore:told")
async def test_filter_mark(listening):
    with used("beside-filter"):
        await all_together(listening)
        warnings.warn("told to ignore", stacklevel=1)
        logging.getLogger("some").warning("of another test")
        await all_together(listening)


@pytest.mark.filterwarnings("default")
async def test_warns_unheard(listening):
    with used("beside-default"):
        await all_together(listening)
        warnings.warn("shown in the summary", stacklevel=1)
        await all_together(listening)


async def test_catch_warnings(listening):
    with used("beside-catch"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        await all_together(listening)
        warnings.warn("x", stacklevel=1)
        await all_together(listening)


@pytest.mark.parametrize("number", range(4))
async def test_context(number):
    assert variable.get() == "untouched" or "SUITE_PLAIN" in os.environ  # anyio shares one context
    variable.set(number)
    await asyncio.sleep(0.001)
    assert variable.get() == number


@pytest.fixture
async def sets_variable():
    token = variable.set("by the fixture")
    yield
    variable.reset(token)


async def test_context_of_own_fixture(sets_variable):
    assert variable.get() == "by the fixture"


@pytest.mark.skip(reason="mark")
async def test_skipped(never):
    raise AssertionError


@pytest.mark.skipif(True, reason="condition")
async def test_skipif(never):
    raise AssertionError


@pytest.mark.xfail(run=False)
async def test_no_run(never):
    raise AssertionError


@pytest.mark.hooked
async def test_hooked(never):
    raise AssertionError


@pytest.mark.hooked
async def test_hooked_alone(never, monkeypatch):
    raise AssertionError


@pytest.mark.hooked
def test_hooked_sync(never):
    raise AssertionError


@pytest.mark.skip
def test_skipped_sync(never):
    raise AssertionError


async def _loops():
    await asyncio.sleep(0)
    return 7


@pytest.fixture(scope="module")
def ran_a_loop():
    return asyncio.run(_loops())


@pytest.fixture
def runs_a_loop_twice():
    loop = asyncio.new_event_loop()
    yield loop.run_until_complete(_loops())
    loop.run_until_complete(_loops())
    loop.close()


async def test_sync_fixture_with_a_loop(ran_a_loop, runs_a_loop_twice):
    assert ran_a_loop == runs_a_loop_twice == 7
    await asyncio.sleep(0)


def test_sync_test_with_a_loop(ran_a_loop, server):
    assert asyncio.run(_loops()) == ran_a_loop


@pytest.fixture(scope="session")
def chosen(request):
    with held("chosen", request.getfixturevalue("late")) as value:
        yield value


@pytest.fixture(scope="session")
def late():
    with held("late") as value:
        yield value


async def test_late(request):
    with used("late", request.getfixturevalue("late")):
        await asyncio.sleep(0)


@pytest.fixture(scope="session")
def asked(anyio_backend):
    return asyncio.Event()


async def test_late_again(request, asked):
    with used("late-again", request.getfixturevalue("chosen"), request.getfixturevalue("late")):
        asked.set()
        await asyncio.sleep(0)


async def test_late_known(chosen, asked):
    """Holds what another test asks for while that test runs."""
    with used("late-known", chosen):
        await asked.wait()


@pytest.fixture
async def in_order():
    note("order", 1)
    async with asyncio.timeout(10):
        yield asyncio.current_task()
    note("order", 3)


async def test_one_task(in_order):
    """Set-up, test and tear-down of what is the test's own happen in one task."""
    note("order", 2)
    assert in_order is asyncio.current_task() or "SUITE_PLAIN" in os.environ
