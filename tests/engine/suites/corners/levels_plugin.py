"""A plugin of the suite's: the outermost definition of a fixture that every level overrides."""

import pytest
from trail import held, note


@pytest.fixture
async def level():
    return ["plugin"]


@pytest.fixture(scope="session")
async def from_ini(anyio_backend):
    with held("from_ini") as value:
        yield value


@pytest.fixture(autouse=True, scope="session")
def plugin_autouse():
    with held("plugin_autouse") as value:
        yield value


@pytest.fixture(params=["x", "y"])
async def plugin_param(request):
    return request.param


def pytest_itemcollected(item):
    note("collected", item.name.replace(" ", ""))
