import functools

import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.kind("deep")]


@pytest.fixture
def place(place):
    return f"{place}/module"


@pytest.mark.parametrize("value", [1, "two", None])
async def test_direct(value, place):
    pass


@pytest.mark.parametrize("value", [3])
async def test_direct_too(value, place):
    pass


@pytest.mark.parametrize("number", [7, 8], indirect=True)
async def test_indirect(number):
    pass


@pytest.mark.parametrize("place", [7, 8])
@pytest.mark.parametrize(("x", "y"), [(1, 2), pytest.param(3, 4, marks=pytest.mark.xfail)])
async def test_shadows(x, y, place):
    pass


@pytest.mark.parametrize("value", [])
async def test_none(value):
    pass


async def test_whole(number, place):
    pass


async def test_whole_too(number, place):
    pass


def decorated(function):
    @functools.wraps(function)
    async def called(*args, **kwargs):
        return await function(*args, **kwargs)

    return called


@decorated
async def test_decorated(place):
    pass


@decorated
async def test_decorated_too(number):
    pass


@pytest.mark.parametrize("letter", "ab")
class TestParametrized:
    async def test_of_class(self, letter):
        pass

    async def test_of_class_too(self, letter):
        pass
