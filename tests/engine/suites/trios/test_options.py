"""The backend as a parameter of single tests."""

import asyncio

import pytest

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "anyio_backend",
    [
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("trio", {"strict_exception_groups": True}), id="trio"),
    ],
)
async def test_options(anyio_backend_name, anyio_backend_options):
    import sniffio

    assert sniffio.current_async_library() == anyio_backend_name
    assert anyio_backend_options


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncio_only(anyio_backend):
    assert asyncio.get_running_loop()
