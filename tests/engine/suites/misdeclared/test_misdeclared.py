import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def fine(anyio_backend):
    return "fine"


async def test_not_found(nowhere):
    pass


@pytest.fixture
async def over_nowhere(nowhere):
    pass


async def test_not_found_below(over_nowhere):
    pass


@pytest.fixture
async def ring(ring_two):
    pass


@pytest.fixture
async def ring_two(ring):
    pass


async def test_recursive(ring):
    pass


@pytest.fixture
async def itself(itself):
    pass


async def test_itself(itself):
    pass


@pytest.fixture(scope="module")
async def wide(fine):
    pass


async def test_scope_mismatch(wide):
    pass


@pytest.fixture(scope="module")
async def wide_asking(request, anyio_backend):
    return request.getfixturevalue("fine")


async def test_scope_mismatch_asked(wide_asking):
    pass


@pytest.fixture
async def no_yield(anyio_backend):
    if anyio_backend == "never":
        yield


async def test_no_yield(no_yield):
    pass


@pytest.fixture
def no_yield_sync(anyio_backend):
    if anyio_backend == "never":
        yield


async def test_no_yield_sync(no_yield_sync):
    pass


@pytest.fixture
async def two_yields(anyio_backend):
    yield 1
    yield 2


async def test_two_yields(two_yields):
    pass


@pytest.fixture
def two_yields_sync(anyio_backend):
    yield 1
    yield 2


async def test_two_yields_sync(two_yields_sync):
    pass


async def test_async_generator():
    yield 1


@pytest.fixture
async def no_param(request):
    return request.param


async def test_no_param(no_param):
    pass


@pytest.fixture(params=[1])
async def with_param(request):
    return request.param


async def test_asked_without_param(request):
    request.getfixturevalue("with_param")


async def test_direct_call():
    await fine("asyncio")


async def test_unknown_scope_asked(request):
    request.getfixturevalue("fine", "extra")


def test_returns_a_coroutine():
    async def body():
        pass

    coroutine = body()
    coroutine.close()
    return coroutine


async def test_default_argument(fine="default"):
    assert fine == "default"


async def test_keyword_only(*, fine):
    assert fine == "fine"


class TestStatic:
    @staticmethod
    async def test_static(fine):
        assert fine == "fine"

    async def test_without_self():
        pass


async def test_returns_a_value(fine):
    return fine


@pytest.mark.usefixtures("nowhere_used")
async def test_uses_nothing():
    pass


@pytest.mark.parametrize("never_used", [1])
@pytest.mark.skip(reason="its collection fails elsewhere")
async def test_parameter(never_used):
    pass
