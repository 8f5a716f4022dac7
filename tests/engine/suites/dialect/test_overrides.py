import pytest
from trail import held, used

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bottom(bottom):
    return [*bottom, "module"]


@pytest.fixture
def colour(request):
    return "green"


@pytest.fixture(scope="module")
async def async_module(async_module, anyio_backend):
    with held("own_module", async_module) as value:
        yield value


@pytest.fixture
async def by_another_name(bottom):
    return bottom


async def test_bottom(bottom):
    assert bottom == ["conftest", "module"]


async def test_deep(deep):
    assert deep == "deep green"


async def test_by_another_name(by_another_name):
    assert by_another_name == ["conftest", "module"]


async def test_overridden_module(async_module, async_local):
    with used("test_overridden_module", async_module, async_local):
        assert async_module.startswith("own_module")


class TestThirdLevel:
    @pytest.fixture
    async def bottom(self, bottom):
        return [*bottom, "class"]

    async def test_bottom(self, bottom):
        assert bottom == ["conftest", "module", "class"]


@pytest.fixture(name="renamed")
async def whatever():
    return "renamed"


async def test_renamed(renamed):
    assert renamed == "renamed"
