import pytest

pytestmark = pytest.mark.anyio


async def test_default_backends(anyio_backend_name):
    assert anyio_backend_name in {"asyncio", "trio"}
