"""What goes wrong in one test must stay in it."""

import asyncio

import anyio
import pytest
from trail import held, note, used

pytestmark = pytest.mark.anyio


@pytest.fixture
async def own():
    with held("own") as value:
        yield value


@pytest.fixture(scope="module")
async def shared(anyio_backend):
    with held("shared") as value:
        yield value


async def test_neighbour(shared, own):
    with used("neighbour", shared, own):
        await asyncio.sleep(0.3)


@pytest.mark.timeout(0.05)
async def test_hangs(shared, own):
    with used("hangs", shared, own):
        await asyncio.sleep(100)


@pytest.mark.atk(timeout=0.05)
async def test_hangs_by_our_mark(own):
    await asyncio.Event().wait()


@pytest.mark.atk(timeout=0)
@pytest.mark.timeout(0.01)
async def test_has_no_limit():
    await asyncio.sleep(0.05)


@pytest.mark.timeout(timeout=0.05, method="thread")
async def test_swallows_cancellation():
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        note("swallowed")


@pytest.fixture
async def slow():
    await asyncio.sleep(100)


@pytest.fixture
async def slow_end():
    yield
    await asyncio.sleep(100)


@pytest.mark.timeout(0.05)
async def test_hangs_in_set_up(own, slow):
    raise AssertionError


@pytest.mark.timeout(0.05)
async def test_hangs_in_tear_down(own, slow_end):
    pass


@pytest.mark.timeout(0.05)
@pytest.mark.xfail(reason="hangs, as known")
async def test_hangs_as_expected():
    await asyncio.sleep(100)


async def test_own_time_out():
    async with asyncio.timeout(0.01):
        await asyncio.sleep(100)


async def test_system_exit():
    raise SystemExit(3)


async def test_cancels_itself(own):
    asyncio.current_task().cancel()
    await asyncio.sleep(1)


async def test_raises_cancelled():
    raise asyncio.CancelledError


class Odd(BaseException):
    pass


async def test_base_exception():
    raise Odd


async def test_skips_in_a_child():
    async with asyncio.TaskGroup() as group:
        group.create_task(_skip())


async def _skip():
    await asyncio.sleep(0)
    pytest.skip("from a child")


async def test_fails_in_an_anyio_child():
    async with anyio.create_task_group() as group:
        group.start_soon(_fail)


async def _fail():
    await asyncio.sleep(0)
    pytest.fail("from a child")


@pytest.fixture(scope="module")
async def crew(anyio_backend):
    """Its task group's child fails while it is held."""
    with held("crew") as value:
        async with anyio.create_task_group() as group:
            event = asyncio.Event()

            async def fail():
                await event.wait()
                raise LookupError("the child")

            group.start_soon(fail)
            yield value, event
            raise AssertionError("unreachable: the group is cancelled")


async def test_crew_fails(crew):
    value, event = crew
    with used("crew-fails", value):
        event.set()
        await asyncio.sleep(0.05)


async def test_crew_is_gone(crew, monkeypatch):
    """Runs alone, after the others."""


@pytest.fixture(scope="module")
async def cut_off(anyio_backend):
    asyncio.current_task().cancel()
    await asyncio.sleep(1)


async def test_cut_off(cut_off):
    raise AssertionError


async def test_cut_off_again(cut_off):
    raise AssertionError


@pytest.fixture(scope="module")
async def scoped(anyio_backend):
    """A cancel scope over the yield must be left in the task that entered it."""
    with held("scoped") as value, anyio.CancelScope():
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0)
            yield value


@pytest.mark.parametrize("number", range(3))
async def test_scoped(scoped, number):
    with used(f"scoped-{number}", scoped):
        await asyncio.sleep(0.01 * number)


async def test_unmarked_neighbour():
    await asyncio.sleep(0)


@pytest.fixture
async def cancels_its_end(anyio_backend):
    yield
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


def test_sync_whose_fixture_cancels_itself(cancels_its_end):
    pass


async def test_whose_fixture_cancels_itself(cancels_its_end):
    pass


@pytest.fixture
def pytests_own():
    with held("pytests_own") as value:
        yield value


def test_sync_ends_all_after_one_cancels_itself(pytests_own, cancels_its_end):
    pass
