import pytest
from trail import held, note


def pytest_runtest_setup(item):
    note("hook", "setup", item.name)
    if item.get_closest_marker("hooked"):
        pytest.skip("by the hook")


def pytest_runtest_call(item):
    note("hook", "call", item.name)


def pytest_runtest_teardown(item):
    note("hook", "teardown", item.name)


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
async def never(anyio_backend):
    """Only skipped tests ask for it."""
    with held("never") as value:
        yield value


@pytest.fixture(scope="session")
async def server(anyio_backend):
    with held("server") as value:
        yield value
