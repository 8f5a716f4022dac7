import pytest
from trail import used

pytestmark = pytest.mark.anyio


async def test_level(level):
    assert level == ["plugin", "conftest", "package"]


async def test_package(of_package, own_package, pack_autouse):
    with used("pack-1", of_package[0], own_package, pack_autouse):
        assert of_package[1] == ""


def test_sync_package(of_package, own_package):
    with used("pack-2", of_package[0], own_package):
        pass
