"""Parameters at every scope: each is set up once for its scope."""

import asyncio

import pytest
from trail import used

pytestmark = pytest.mark.anyio


async def test_session(session_param, request):
    with used(f"s-{request.node.name}", session_param):
        await asyncio.sleep(0.001)


async def test_module(module_param, session_param, request):
    with used(f"m-{request.node.name}", module_param, session_param):
        await asyncio.sleep(0.001)


def test_sync_module(module_param, request):
    with used(f"sm-{request.node.name}", module_param):
        pass


async def test_package(package_param, request):
    with used(f"p-{request.node.name}", package_param):
        await asyncio.sleep(0.001)


class TestClass:
    async def test_one(self, class_param, session_param, request):
        with used(f"c1-{request.node.name}", class_param, session_param):
            await asyncio.sleep(0.001)

    async def test_two(self, class_param, request):
        with used(f"c2-{request.node.name}", class_param):
            await asyncio.sleep(0.001)

    def test_sync(self, class_param, request):
        with used(f"c3-{request.node.name}", class_param):
            pass


@pytest.mark.parametrize("session_param", [7, 8], indirect=True, scope="session")
class TestIndirect:
    async def test_first(self, session_param, request):
        with used(f"i1-{request.node.name}", session_param):
            await asyncio.sleep(0.001)

    async def test_second(self, session_param, request):
        with used(f"i2-{request.node.name}", session_param):
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(("session_param", "plain"), [(9, "z")], indirect=["session_param"])
async def test_partly_indirect(session_param, plain):
    assert session_param.startswith("session_param-9")
    assert plain == "z"


@pytest.mark.parametrize("word", ["k", "l"], scope="module")
async def test_scoped_parameter(word, of_word):
    assert of_word == word * 2


@pytest.fixture(scope="module")
async def of_word(word, anyio_backend):
    return word * 2


@pytest.mark.parametrize("one", [1, 2])
@pytest.mark.parametrize("two", ["a", "b"])
async def test_product(one, two):
    assert one
    assert two


async def test_plugin_param(plugin_param):
    assert plugin_param in {"x", "y"}


@pytest.mark.parametrize("nothing", [])
async def test_no_parameters(nothing):
    raise AssertionError


@pytest.mark.parametrize("marked", [pytest.param(1, marks=pytest.mark.skip(reason="skipped")), 2])
async def test_marked_parameters(marked):
    assert marked == 2


@pytest.mark.parametrize("value", [[1], [1, 2], {"a": 1}, None, float("nan")], ids=str)
async def test_unhashable(value, over_value):
    assert over_value is value


@pytest.fixture
async def over_value(value):
    return value
