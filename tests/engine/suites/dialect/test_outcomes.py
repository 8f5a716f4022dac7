# ruff: noqa: B011, PLR0133, TRY301  # what fails here fails on purpose
import asyncio
import unittest

import pytest

pytestmark = pytest.mark.anyio


async def test_passes():
    pass


async def test_fails():
    left = {"x": 1, "y": [1, 2, 3]}
    assert left == {"x": 1, "y": [1, 2, 4]}


async def test_fails_long():
    assert list(range(100)) == list(range(1, 101)), "the message"


async def test_fails_percent():
    assert "100%\n%s" == "100%\n%d"


async def test_fails_not_in():
    assert "needle" not in "hay needle hay"


async def test_fails_deeper():
    await _deeper(3)


async def _deeper(depth):
    await asyncio.sleep(0)
    if depth:
        await _deeper(depth - 1)
    else:
        raise LookupError("deep down")


async def test_raises():
    raise ValueError("no")


async def test_raises_chain():
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError("outer") from error


async def test_raises_group():
    async with asyncio.TaskGroup() as group:
        group.create_task(_deeper(1))


async def test_group_of_failures():
    raise ExceptionGroup("two", [ValueError(1), KeyError(2)])


async def test_pytest_fail():
    pytest.fail("on purpose")


async def test_pytest_fail_without_trace():
    pytest.fail("on purpose", pytrace=False)


async def test_pytest_raises_misses():
    with pytest.raises(ValueError, match="x"):
        await asyncio.sleep(0)


async def test_pytest_skip():
    pytest.skip("not today")


async def test_pytest_xfail():
    pytest.xfail("known")


async def test_importorskip():
    pytest.importorskip("no_such_module_at_all")


async def test_unittest_skip():
    raise unittest.SkipTest("the other way")


@pytest.mark.skip
async def test_skip():
    raise AssertionError


@pytest.mark.skip(reason="because")
async def test_skip_reason():
    raise AssertionError


@pytest.mark.skipif(True, reason="it holds")
async def test_skipif(async_session):
    raise AssertionError


@pytest.mark.skipif("sys.version_info > (3,)", reason="a string")
async def test_skipif_string():
    raise AssertionError


@pytest.mark.skipif("1/0", reason="bad condition")
async def test_skipif_bad():
    pass


@pytest.mark.skipif(False, reason="it does not hold")
async def test_skipif_false():
    pass


@pytest.mark.xfail
async def test_xfail():
    assert False


@pytest.mark.xfail
async def test_xpass():
    pass


@pytest.mark.xfail(strict=True, reason="must fail")
async def test_xpass_strict():
    pass


@pytest.mark.xfail(raises=ValueError)
async def test_xfail_raises():
    raise ValueError


@pytest.mark.xfail(raises=ValueError)
async def test_xfail_raises_other():
    raise KeyError


@pytest.mark.xfail(run=False, reason="would hang")
async def test_xfail_no_run():
    await asyncio.sleep(1000)


@pytest.mark.xfail(False, reason="not now")
async def test_xfail_false():
    pass


@pytest.mark.xfail
async def test_xfail_set_up(broken):
    pass


@pytest.mark.xfail(strict=True)
async def test_xfail_tear_down(torn):
    pass


async def test_late_skip():
    raise AssertionError


@pytest.mark.skip_by_conftest("a reason")
async def test_skipped_by_hook(async_session):
    raise AssertionError


@pytest.fixture
async def broken():
    raise RuntimeError("broken set-up")


@pytest.fixture
async def torn():
    yield
    raise RuntimeError("broken tear-down")


@pytest.fixture
def torn_sync():
    yield
    raise RuntimeError("broken sync tear-down")


@pytest.fixture
async def skipping():
    pytest.skip("by a fixture")


@pytest.fixture
async def xfailing():
    pytest.xfail("by a fixture")


@pytest.fixture
def failing():
    pytest.fail("by a fixture")


@pytest.fixture
async def yields_twice():
    yield 1
    yield 2


@pytest.fixture
def yields_twice_sync():
    yield 1
    yield 2


@pytest.fixture
async def never_yields():
    if False:
        yield


@pytest.fixture
def never_yields_sync():
    if False:
        yield


@pytest.fixture(scope="module")
async def broken_module(anyio_backend):
    raise RuntimeError("broken module")


@pytest.fixture(scope="module")
async def over_broken(broken_module, anyio_backend):
    raise AssertionError


@pytest.fixture(scope="module")
async def skipping_module(anyio_backend):
    pytest.skip("whole module")


@pytest.fixture
async def over_local(broken):
    raise AssertionError


async def test_broken(broken):
    raise AssertionError


async def test_torn(torn):
    pass


async def test_torn_sync(torn_sync):
    pass


async def test_torn_and_fails(torn):
    assert 1 == 2


async def test_torn_both(torn, torn_sync):
    pass


async def test_broken_after_torn(torn, broken):
    pass


async def test_skipping(skipping):
    pass


async def test_xfailing(xfailing):
    pass


async def test_failing(failing):
    pass


async def test_yields_twice_sync(yields_twice_sync):
    pass


async def test_never_yields_sync(never_yields_sync):
    pass


async def test_broken_module_one(broken_module):
    pass


async def test_broken_module_two(over_broken):
    pass


async def test_broken_module_three(over_broken):
    pass


async def test_skipping_module_one(skipping_module):
    pass


async def test_skipping_module_two(skipping_module):
    pass


async def test_over_local(over_local):
    pass


async def test_missing_fixture(nowhere):
    pass


@pytest.fixture
def over_missing(nowhere):
    pass


async def test_missing_deeper(over_missing):
    pass


@pytest.fixture(scope="module")
def too_wide(colour):
    pass


async def test_scope_mismatch(too_wide):
    pass


@pytest.fixture(scope="session")
async def too_wide_async(async_module, anyio_backend):
    pass


async def test_scope_mismatch_async(too_wide_async):
    pass


def test_sync_scope_mismatch(too_wide_async):
    pass


def test_sync_missing(nowhere):
    pass


def test_sync_broken(broken, anyio_backend):
    pass


def test_sync_broken_module(broken_module):
    pass


def test_sync_over_broken_module(over_broken):
    pass


def test_sync_skipping_module(skipping_module):
    pass


def test_sync_torn(torn, anyio_backend):
    pass


def test_sync_fails(async_session):
    assert len(async_session) == 1
