import pytest
from trail import used

pytestmark = pytest.mark.anyio


async def test_box(box, async_package):
    with used("inner-test_box", box, async_package):
        pass
