import asyncio
import sys

import pytest
from trail import note

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["p"])
async def told(request):
    assert request.param == "p"
    assert request.param_index == 0
    assert request.fixturename == "told"
    assert request.scope == "function"
    assert request.node.name.startswith("test_")
    assert request.function.__name__ == request.node.originalname
    assert request.module is sys.modules[__name__]
    assert request.config.getini("tone") == "warm"
    assert request.config.getoption("--shade") == "dark"
    assert request.session is request.node.session
    assert request.path.name == "test_request.py"
    assert "told" in request.fixturenames
    assert "anyio" in request.keywords
    request.addfinalizer(lambda: note("finalized", request.node.name))
    return request.cls, request.instance


@pytest.fixture(scope="module")
async def of_module(request, anyio_backend):
    assert request.scope == "module"
    assert request.node is request.node.getparent(pytest.Module)
    with pytest.raises(AttributeError):
        request.cls  # noqa: B018
    with pytest.raises(AttributeError):
        request.function  # noqa: B018
    with pytest.raises(AttributeError):
        request.param  # noqa: B018
    request.addfinalizer(lambda: note("finalized", "of_module"))
    return request.getfixturevalue("sync_session")


@pytest.fixture(scope="module")
def of_module_late(request, sync_module):
    return request.getfixturevalue("sync_module"), request.getfixturevalue("sync_session")


@pytest.fixture
def lazy(tmp_path):
    yield tmp_path.name
    note("lazy", "torn-down")


@pytest.fixture
async def marks_its_test(request):
    request.applymarker(pytest.mark.xfail(reason="by its fixture"))


async def test_of_function(told):
    assert told == (None, None)


class TestIt:
    async def test_of_method(self, told):
        assert told == (TestIt, self)

    async def test_own_request(self, request):
        assert request.instance is self
        assert request.cls is TestIt
        assert request.scope == "function"
        assert request.fixturename is None


async def test_of_module(of_module, sync_session):
    assert of_module == sync_session


async def test_of_module_late(of_module_late, sync_module, sync_session):
    assert of_module_late == (sync_module, sync_session)


async def test_get_what_is_there(request, async_session, told):
    assert request.getfixturevalue("async_session") is async_session
    assert request.getfixturevalue("told") is told
    assert request.getfixturevalue("request") is request


async def test_get_sync(request):
    await asyncio.sleep(0)
    value = request.getfixturevalue("lazy")
    assert value.startswith("test_get_sync")
    assert request.getfixturevalue("lazy") == value


async def test_get_async(request):
    with pytest.raises(RuntimeError):
        request.getfixturevalue("deep")


async def test_get_missing(request):
    with pytest.raises(pytest.FixtureLookupError, match="nowhere"):
        request.getfixturevalue("nowhere")


async def test_get_missing_uncaught(request):
    request.getfixturevalue("nowhere")


async def test_finalizer(request):
    request.addfinalizer(lambda: note("finalized", "first"))
    request.addfinalizer(lambda: note("finalized", "second"))


async def test_property(record_property, record_testsuite_property):
    record_property("key", "value")


async def test_node(request):
    assert request.node.nodeid == "test_request.py::test_node[asyncio]" or request.node.nodeid.endswith("test_node")
    assert request.node.get_closest_marker("anyio")
    request.node.user_properties.append(("seen", 1))


@pytest.mark.usefixtures("marks_its_test")
async def test_marked_by_fixture():
    pytest.fail()


async def test_marks_itself(request):
    request.applymarker(pytest.mark.xfail(reason="by itself"))
    pytest.fail()


def test_sync_get_async(request, anyio_backend):
    assert request.getfixturevalue("deep") == "deep red"


def test_sync_get_shared(request, anyio_backend):
    assert request.getfixturevalue("async_session").startswith("async_session")


def test_sync_get_sync(request):
    assert request.getfixturevalue("lazy").startswith("test_sync_get_sync")


async def test_paths(tmp_path, tmp_path_factory, pytestconfig, cache):
    (tmp_path / "file").write_text("x")
    assert pytestconfig.rootpath


async def test_subtle_names(request, colour):
    request.getfixturevalue("colour")
