import asyncio

import pytest
from trail import note

pytestmark = pytest.mark.anyio


@pytest.fixture
async def value(anyio_backend):
    await asyncio.sleep(0)
    yield "value"
    note("torn", "value")


@pytest.fixture(scope="module")
async def shared(anyio_backend):
    yield "shared"
    note("torn", "shared")


@pytest.fixture
async def broken(anyio_backend):
    raise LookupError("on purpose")


@pytest.fixture
async def swallowed(anyio_backend):
    raise LookupError("swallowed by a hook")


@pytest.fixture
def sync(request):
    request.addfinalizer(lambda: note("torn", "sync"))
    return "sync"


@pytest.fixture
async def replaced(anyio_backend):
    return "replaced"


@pytest.fixture
async def given(anyio_backend):
    raise AssertionError("a hook answers")


@pytest.fixture(params=["lazy:sync", "lazy:shared", "lazy:value", "plain"])
async def lazy(request, shared, anyio_backend):
    return request.param


async def test_value(value, shared):
    assert (value, shared) == ("value", "shared")


async def test_broken(broken):
    pass


async def test_swallowed(swallowed):
    assert swallowed is None


async def test_sync(sync):
    assert sync == "sync"


async def test_replaced(replaced):
    assert replaced == "replaced by a hook"


async def test_given(given):
    assert given == "given by a hook"


async def test_lazy(lazy):
    assert lazy in {"sync", "shared", "value", "plain"}


def test_in_pytests_lane(value, sync, shared, replaced, given):
    assert (value, replaced, given) == ("value", "replaced by a hook", "given by a hook")


async def test_refused(value):
    """The hook that refuses it counts elsewhere."""
