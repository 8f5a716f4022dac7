import asyncio

import pytest


@pytest.fixture
async def loop_kind():
    return type(asyncio.get_running_loop()).__name__


@pytest.mark.two_loops
async def test_kind(loop_kind, request):
    assert ("own" in request.node.name) == (loop_kind == "Loop")


async def test_plain(loop_kind):
    assert loop_kind != "Loop"
