import pytest
from trail import held, note, used

pytestmark = [pytest.mark.anyio, pytest.mark.level("module")]


@pytest.fixture
async def level(level):
    return [*level, "module"]


@pytest.fixture(autouse=True, scope="module")
async def module_autouse(conftest_autouse):
    with held("module_autouse", conftest_autouse) as value:
        yield value


class TestLevel:
    @pytest.fixture
    async def level(self, level):
        return [*level, "class"]

    @pytest.fixture(autouse=True)
    async def mine(self, level):
        self.seen = level

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    async def once(cls, anyio_backend):
        cls.by_once = True
        with held("once"):
            yield

    async def test_level(self, level):
        assert level == self.seen == ["plugin", "conftest", "module", "class"]
        assert self.by_once

    class TestInner:
        @pytest.fixture
        def level(self, level):
            return [*level, "inner"]

        async def test_level(self, level):
            assert level == ["plugin", "conftest", "module", "class", "inner"]


async def test_level(level):
    assert level == ["plugin", "conftest", "module"]


@pytest.fixture(params=["direct", "other"])
async def chained(request, level):
    return [*level, request.param]


async def test_chained(chained):
    assert chained[-1] in {"direct", "other"}


async def test_dynamic_scopes(wide_by_name, narrow_by_name, request):
    with used("dynamic", wide_by_name, narrow_by_name):
        pass


class TestXunit:
    order = []  # noqa: RUF012

    @classmethod
    def setup_class(cls):
        cls.order.append("class")

    def setup_method(self):
        self.order.append("method")

    def teardown_method(self):
        note("torn", "method")

    async def test_one(self):
        assert self.order[0] == "class"

    async def test_two(self):
        assert "method" in self.order


class TestAsyncXunit:
    """pytest calls these and awaits nothing."""

    ready = False

    async def setup_method(self):
        self.ready = True

    async def test_not_awaited(self):
        assert not self.ready


class Base:
    @pytest.fixture
    async def what(self):
        return self.word

    async def test_word(self, what):
        assert what == self.word

    @pytest.mark.xfail(condition="sys.version_info > (3,)", reason="a string", raises=(LookupError, KeyError))
    async def test_marked_in_base(self, what):
        raise KeyError


class TestHeir(Base):
    word = "heir"


class TestOverridingHeir(Base):
    word = "over"

    @pytest.fixture
    async def what(self, what):
        return what

    async def test_word(self, what):
        await super().test_word(what)
