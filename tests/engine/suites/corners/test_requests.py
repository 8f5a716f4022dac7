import pytest
from trail import note

pytestmark = pytest.mark.anyio


@pytest.fixture
async def everything(request):
    assert request.instance is not None or request.cls is None
    assert request.keywords is request.node.keywords
    assert request.fspath == request.node.fspath if hasattr(request, "fspath") else True
    assert request.path == request.node.path
    assert request.session.config is request.config
    assert request.function.__name__ == request.node.function.__name__
    assert "everything" in request.fixturenames
    assert repr(request).startswith("<SubRequest 'everything' for <")
    assert request.scope == "function"
    with pytest.raises(AttributeError):
        request.param  # noqa: B018
    request.addfinalizer(lambda: note("finalized", "by-fixture"))
    yield request
    note("finalized", "after-yield")


@pytest.fixture
async def awaiting_finalizer(request):
    def finalize():
        note("finalized", "sync")

    request.addfinalizer(finalize)
    return request


@pytest.fixture(scope="module")
async def of_module(request, anyio_backend):
    assert request.module.__name__ == "test_requests"
    assert isinstance(request.node, pytest.Module)
    request.node.user_mark = 1
    return request.node


@pytest.fixture(scope="class")
async def of_class(request, anyio_backend):
    assert isinstance(request.node, pytest.Class)
    assert request.cls is not None
    with pytest.raises(AttributeError):
        request.function  # noqa: B018
    request.cls.given = "by fixture"


@pytest.fixture
async def raises_error(request):
    request.raiseerror("there is nothing to be had")


async def test_everything(everything, request):
    assert everything.node is request.node
    assert repr(request).startswith("<FixtureRequest for <")


class TestThings:
    async def test_everything(self, everything, of_class):
        assert everything.instance is self
        assert self.given == "by fixture"


async def test_finalizer(awaiting_finalizer):
    pass


async def test_module(of_module, request):
    assert of_module is request.node.parent
    assert of_module.user_mark == 1


async def test_raises_error(raises_error):
    pass


@pytest.fixture
async def marks_late(request):
    request.applymarker(pytest.mark.xfail(reason="late", strict=True))


async def test_marked_late(marks_late):
    raise AssertionError


async def test_marked_late_and_passes(marks_late):
    pass


@pytest.fixture
async def skips_late(request):
    request.node.add_marker(pytest.mark.skip(reason="too late to count"))


async def test_skips_late(skips_late):
    pass


@pytest.mark.level("here")
async def test_marks(request):
    assert request.node.get_closest_marker("level").args == ("here",)
    assert {mark.name for mark in request.node.iter_markers()} == {"level", "anyio", "usefixtures"}


@pytest.fixture
def by_mark(request):
    return request.node.get_closest_marker("level").args[0]


@pytest.mark.level("given")
async def test_by_mark(by_mark):
    assert by_mark == "given"


@pytest.fixture
def factory(request):
    made = []

    def make(number):
        request.addfinalizer(lambda: note("unmade", number))
        made.append(number)
        return number

    return make


async def test_factory(factory):
    assert [factory(number) for number in range(3)] == [0, 1, 2]


@pytest.fixture
async def async_factory(request):
    async def make(number):
        request.addfinalizer(lambda: note("unmade-async", number))
        return number

    return make


async def test_async_factory(async_factory):
    assert await async_factory(1) == 1


async def test_config(pytestconfig, request):
    assert pytestconfig is request.config
    assert pytestconfig.getini("xfail_strict") is True
