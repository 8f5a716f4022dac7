"""Both backends: fixtures that depend on the backend, and shared ones that don't."""

import pytest
from trail import held, used

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="session")
def settings():
    with held("settings") as value:
        yield value


@pytest.fixture(scope="module")
async def server(anyio_backend, settings):
    import sniffio

    assert sniffio.current_async_library() == anyio_backend
    with held(f"server-{anyio_backend}", settings) as value:
        yield value


@pytest.fixture
async def row(server):
    import anyio.lowlevel

    await anyio.lowlevel.checkpoint()
    with held("row", server) as value:
        yield value


@pytest.fixture
def sync_over(row):
    with held("sync_over", row) as value:
        yield value


async def test_row(row, server, anyio_backend, anyio_backend_name):
    import anyio.lowlevel

    with used(f"row-{anyio_backend}", row, server):
        await anyio.sleep(0.001)
        assert anyio_backend_name in server


async def test_sync_over(sync_over):
    with used(f"sync-{sync_over}", sync_over):
        pass


def test_sync(row, settings):
    with used(f"plain-{row}", row, settings):
        pass


def test_settings(settings):
    with used("settings-test", settings):
        pass


async def test_fails(row, anyio_backend):
    assert anyio_backend == "neither"


async def test_chosen(request, anyio_backend):
    assert request.getfixturevalue("settings")


class TestMethods:
    @pytest.fixture
    async def mine(self, row):
        self.kept = row
        yield row

    async def test_method(self, mine):
        assert self.kept is mine
