import pytest
from trail import used

pytestmark = pytest.mark.anyio


async def test_package(of_package, package_param):
    with used(f"other-{package_param}", of_package[0], package_param):
        assert of_package[1] == ""
