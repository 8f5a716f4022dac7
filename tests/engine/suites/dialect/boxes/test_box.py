import pytest
from trail import used

pytestmark = pytest.mark.anyio


async def test_box(box, async_package):
    with used("test_box", box, async_package):
        pass


async def test_deep(deep):
    assert deep == "deep boxed red"


def test_sync_box(box):
    with used("test_sync_box", box):
        pass
