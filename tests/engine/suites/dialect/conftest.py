import pytest
from trail import held, note


def pytest_addoption(parser):
    parser.addoption("--shade", default="dark")
    parser.addini("tone", "a setting", default="warm")


def pytest_configure(config):
    config.shade = config.getoption("--shade")


def pytest_collection_modifyitems(items):
    for item in items:
        if "late_skip" in item.name:
            item.add_marker(pytest.mark.skip(reason="added by the conftest"))


def pytest_runtest_setup(item):
    mark = item.get_closest_marker("skip_by_conftest")
    if mark is not None:
        pytest.skip(f"by a hook: {mark.args[0]}")


def pytest_generate_tests(metafunc):
    if "generated" in metafunc.fixturenames:
        metafunc.parametrize("generated", ["g1", "g2"])


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def sync_session():
    with held("sync_session") as value:
        yield value


@pytest.fixture(scope="session")
async def async_session(anyio_backend, sync_session):
    with held("async_session", sync_session) as value:
        yield value


@pytest.fixture(scope="session")
def over_async(async_session):
    with held("over_async", async_session) as value:
        yield value


@pytest.fixture(scope="package")
async def async_package(async_session, anyio_backend):
    with held("async_package", async_session) as value:
        yield value


@pytest.fixture(scope="module")
async def async_module(async_session, anyio_backend):
    with held("async_module", async_session) as value:
        yield value


@pytest.fixture(scope="module")
def sync_module(sync_session):
    with held("sync_module", sync_session) as value:
        yield value


@pytest.fixture(scope="class")
async def async_class(async_module, anyio_backend):
    with held("async_class", async_module) as value:
        yield value


@pytest.fixture
async def async_local(async_module, sync_module):
    with held("async_local", async_module, sync_module) as value:
        yield value


@pytest.fixture
def sync_local(sync_module):
    with held("sync_local", sync_module) as value:
        yield value


@pytest.fixture(scope="session", params=["a", "b"])
async def each_session(request, async_session, anyio_backend):
    with held(f"each_session-{request.param}", async_session) as value:
        yield value


@pytest.fixture(scope="module", params=[1, 2], ids=["one", "two"])
def each_module(request, sync_session):
    with held(f"each_module-{request.param}", sync_session) as value:
        yield value


@pytest.fixture(scope="module")
async def over_each(each_module, each_session, anyio_backend):
    with held(f"over_each-{each_module}-{each_session}", each_module, each_session) as value:
        yield value


@pytest.fixture
def colour():
    return "red"


@pytest.fixture
async def deep(colour):
    return f"deep {colour}"


@pytest.fixture(scope="session")
def plain_only(sync_session):
    with held("plain_only", sync_session) as value:
        yield value


@pytest.fixture
async def bottom():
    return ["conftest"]


@pytest.fixture(scope=lambda fixture_name, config: "module" if config.shade == "dark" else "function")
async def dynamic(anyio_backend):
    with held("dynamic") as value:
        yield value


@pytest.fixture(autouse=True)
def everywhere(request):
    note("everywhere", request.node.nodeid)
