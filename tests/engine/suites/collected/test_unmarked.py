import pytest


async def test_unmarked(place):
    pass


async def test_unmarked_too(place):
    pass


@pytest.mark.anyio
async def test_marked(place):
    pass


@pytest.mark.anyio
async def test_marked_too(place):
    pass


@pytest.mark.asyncio
async def test_asyncio(place):
    pass


@pytest.mark.asyncio
async def test_asyncio_too(place):
    pass
