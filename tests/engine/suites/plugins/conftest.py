import asyncio

import pytest


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture
def drawn(record_property):
    """Draw a few values, slowly enough for others to draw between them, and report them."""

    async def draw(provide):
        values = []
        for _ in range(6):
            values.append(provide())
            await asyncio.sleep(0.01)
        record_property("drawn", values)
        return values

    return draw
