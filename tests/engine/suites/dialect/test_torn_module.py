"""The last test of a module gets what its fixtures raise at their end."""

import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def torn_module(anyio_backend):
    yield
    raise RuntimeError("tear-down of the module")


@pytest.fixture(scope="class")
async def torn_class(anyio_backend):
    yield
    raise RuntimeError("tear-down of the class")


class TestClass:
    async def test_only(self, torn_class):
        pass


async def test_only(torn_module):
    pass
