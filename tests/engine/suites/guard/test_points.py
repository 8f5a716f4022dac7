"""Each point, reached in a way that reading the test doesn't show, with a neighbour that watches."""

import asyncio

import pytest
from guard_points import HERE, POINTS
from trail import note

pytestmark = pytest.mark.anyio

tried = set()


async def test_neighbour():
    """Runs as long as there is a point that nobody has tried."""
    before = {point: POINTS[point].seen() for point in HERE}
    while len(tried) < len(HERE):
        await asyncio.sleep(0)
        for point in HERE:
            assert POINTS[point].seen() == before[point], f"{point}, {len(tried)} tried"
    note("neighbour", len(tried))


@pytest.mark.parametrize("point", HERE, ids=":".join)
async def test_touches(point):
    tried.add(point)
    undo = POINTS[point].touch()
    note("touched", *point)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    undo()
