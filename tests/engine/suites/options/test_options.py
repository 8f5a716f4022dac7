import asyncio
import warnings

import pytest
from trail import held, used

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
async def server(anyio_backend):
    with held("server") as value:
        yield value


@pytest.fixture
async def own(server):
    with held("own", server) as value:
        yield value


@pytest.mark.colour
async def test_red(own):
    with used("red", own):
        assert 1 == 2  # noqa: PLR0133


@pytest.mark.colour
async def test_green(own):
    with used("green", own):
        await asyncio.sleep(0)


async def test_broken(own):
    raise ValueError("<broken> & more")


async def test_skipped():
    pytest.skip("today")


@pytest.mark.xfail(reason="known")
async def test_expected():
    raise AssertionError


async def test_printing():
    print("printed")


async def test_slow(own):
    with used("slow", own):
        await asyncio.sleep(0.2)


async def test_property(record_property):
    record_property("colour", "blue")


async def test_warns_error():
    warnings.warn("an error by the ini file", stacklevel=1)


async def test_warns_harmless():
    warnings.warn("harmless", stacklevel=1)


@pytest.mark.filterwarnings("ignore:tolerated")
async def test_warns_tolerated():
    warnings.warn("tolerated by a mark", stacklevel=1)


async def test_pytest_warns():
    with pytest.warns(UserWarning, match="expected"):
        warnings.warn("expected", stacklevel=1)


async def test_pytest_warns_not():
    with pytest.warns(UserWarning):
        pass


def test_sync_fails(server):
    with used("sync", server):
        assert not server
