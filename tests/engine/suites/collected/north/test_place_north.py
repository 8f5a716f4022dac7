import pytest

pytestmark = pytest.mark.anyio


async def test_first(place):
    pass


async def test_second(place):
    pass


async def test_without():
    pass


@pytest.mark.usefixtures("number")
async def test_uses():
    pass


@pytest.mark.usefixtures("number")
async def test_uses_too():
    pass


@pytest.mark.usefixtures("dynamically_scoped")
async def test_uses_another():
    pass


@pytest.mark.skip(reason="not now")
async def test_skipped(place):
    pass


@pytest.mark.skip(reason="not now either")
async def test_skipped_too(place):
    pass


async def test_number(number, place):
    pass


async def test_number_too(number, place):
    pass


async def test_named(named_by_function):
    pass


async def test_named_too(named_by_function):
    pass


async def test_nothing(without_parameters):
    pass


async def test_nothing_too(without_parameters):
    pass


async def test_asks(request):
    request.getfixturevalue("number")


async def test_asks_too(request):
    request.getfixturevalue("place")


def test_sync(place):
    pass


def test_sync_too(place):
    pass


async def _inner(place):
    pass


test_alias = test_first
test_inner = _inner
test_bound = "no test".__str__
test_lambda = lambda place: None  # noqa: E731


async def test_default(place, more="default"):
    pass


async def test_default_too(place, more="default"):
    pass


async def test_keyword(*, place):
    pass


async def test_keyword_too(*, place):
    pass


async def test_any(*args, **kwargs):
    pass


async def test_any_too(*args, **kwargs):
    pass


async def test_generator(place):
    yield


async def test_missing(nobody_has_it):
    pass


async def test_missing_too(nobody_has_it):
    pass
