import pytest
from trail import held


@pytest.fixture(scope="package")
async def box(async_package, anyio_backend):
    with held("box", async_package) as value:
        yield value


@pytest.fixture
def colour(colour):
    return f"boxed {colour}"
