import pytest
from trail import held


@pytest.fixture
async def level(level):
    return [*level, "package"]


@pytest.fixture(scope="package", autouse=True)
async def pack_autouse(anyio_backend):
    with held("pack_autouse") as value:
        yield value


@pytest.fixture(scope="package")
async def own_package(anyio_backend):
    with held("own_package") as value:
        yield value
