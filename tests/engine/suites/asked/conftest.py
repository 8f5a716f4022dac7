"""Fixtures that ask for others while they are set up."""

import asyncio
from contextvars import ContextVar

import pytest
from trail import held

VARIABLE = ContextVar("VARIABLE", default="unset")


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
async def slow_session(anyio_backend):
    with held("slow_session") as value:
        await asyncio.sleep(0.05)
        yield value


@pytest.fixture(scope="module")
async def slow_module(anyio_backend, chosen_session):
    with held("slow_module", chosen_session) as value:
        await asyncio.sleep(0.02)
        yield value


@pytest.fixture
async def own(anyio_backend, chosen_session):
    with held("own", chosen_session) as value:
        await asyncio.sleep(0)
        yield value


@pytest.fixture
async def other(anyio_backend):
    with held("other") as value:
        yield value


@pytest.fixture
async def broken(anyio_backend):
    await asyncio.sleep(0)
    raise LookupError("broken on purpose")


@pytest.fixture
async def skipping(anyio_backend):
    pytest.skip("by an async fixture")


@pytest.fixture(scope="session")
def chosen_session(request):
    """Sync and shared, over an async one that it asks for."""
    base = request.getfixturevalue("slow_session")
    with held("chosen_session", base) as value:
        yield value


@pytest.fixture(scope="module")
def chosen_module(request):
    base = request.getfixturevalue("slow_module")
    with held("chosen_module", base) as value:
        yield value


@pytest.fixture(params=["own", "other", "slow_session", "slow_module"])
def chosen(request):
    base = request.getfixturevalue(request.param)
    with held("chosen", base) as value:
        yield value


@pytest.fixture
def marked(request):
    names = request.node.get_closest_marker("wants").args
    return [request.getfixturevalue(name) for name in names]


def ask(request, name):
    return request.getfixturevalue(name)


@pytest.fixture
def by_helper(request):
    return ask(request, "o" + "wn")


@pytest.fixture
def nested(request):
    return request.getfixturevalue("by_helper")


@pytest.fixture
async def over_nested(nested, anyio_backend):
    return nested


@pytest.fixture
def deep(request):
    return request.getfixturevalue("over_nested")


@pytest.fixture
def asks_broken(request):
    return request.getfixturevalue("broken")


@pytest.fixture
def survives_broken(request):
    try:
        return request.getfixturevalue("broken")
    except LookupError as error:
        return str(error)


@pytest.fixture
def asks_skipping(request):
    return request.getfixturevalue("skipping")


@pytest.fixture
def asks_nowhere(request):
    return request.getfixturevalue("nowhere")


@pytest.fixture
def with_variable(request):
    token = VARIABLE.set("set")
    yield request.getfixturevalue("own")
    VARIABLE.reset(token)


@pytest.fixture
def runs_a_loop(request):
    own = request.getfixturevalue("own")
    return own, asyncio.run(asyncio.sleep(0, "from a loop of its own"))


@pytest.fixture(scope="session")
def asks_narrower(request):
    return request.getfixturevalue("own")


@pytest.fixture
async def asks_async(request):
    return request.getfixturevalue("other")


@pytest.fixture(scope="module", autouse=True)
def maybe(request):
    if request.module.__name__ == "test_asked_sync":
        request.getfixturevalue("slow_module")
