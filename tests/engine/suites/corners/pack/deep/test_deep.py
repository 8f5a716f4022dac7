import pytest
from trail import used

pytestmark = pytest.mark.anyio


async def test_package(of_package, own_package, package_param):
    with used(f"deep-{package_param}", of_package[0], own_package, package_param):
        assert of_package[1] == ""


def test_sync(of_package):
    pass
