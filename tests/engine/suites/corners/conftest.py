import asyncio

import pytest
from trail import held


@pytest.fixture(scope="session", autouse=True)
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def level(level):
    return [*level, "conftest"]


@pytest.fixture(scope="package")
async def of_package(anyio_backend, request):
    with held("of_package") as value:
        yield value, request.node.name


@pytest.fixture(scope="package", params=["p", "q"])
async def package_param(request, anyio_backend):
    with held(f"package_param-{request.param}") as value:
        yield value


@pytest.fixture(scope="session", params=[1, 2, 3])
async def session_param(request, anyio_backend):
    with held(f"session_param-{request.param}") as value:
        await asyncio.sleep(0.001)
        yield value


@pytest.fixture(scope="module", params=["a", "b"])
def module_param(request, session_param):
    with held(f"module_param-{request.param}", session_param) as value:
        yield value


@pytest.fixture(scope="class", params=["i", "j"])
async def class_param(request, anyio_backend):
    with held(f"class_param-{request.param}") as value:
        yield value


def scope_of(fixture_name, config):
    return {"wide_by_name": "session", "narrow_by_name": "function"}[fixture_name]


@pytest.fixture(scope=scope_of)
async def wide_by_name(anyio_backend):
    with held("wide_by_name") as value:
        yield value


@pytest.fixture(scope=scope_of)
async def narrow_by_name(wide_by_name):
    with held("narrow_by_name", wide_by_name) as value:
        yield value


@pytest.fixture(scope="module", autouse=True)
async def conftest_autouse(anyio_backend):
    with held("conftest_autouse") as value:
        yield value
