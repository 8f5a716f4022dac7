import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
async def of_below(anyio_backend):
    return 1


async def test_here(of_below):
    pass


async def test_refused(of_below):
    raise AssertionError


def test_sync_here(of_below):
    pass
