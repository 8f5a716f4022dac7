import asyncio

import pytest
from trail import held, used

pytestmark = pytest.mark.anyio


async def test_session(async_session):
    with used("test_session", async_session):
        await asyncio.sleep(0)


@pytest.mark.parametrize("number", range(4))
async def test_all_scopes(async_package, async_module, async_class, async_local, number):
    with used(f"test_all_scopes-{number}", async_package, async_module, async_class, async_local):
        await asyncio.sleep(0.01)


def test_sync_over_async(async_session, sync_session, over_async):
    with used("test_sync_over_async", async_session, sync_session, over_async):
        assert async_session != sync_session


def test_sync_of_own(plain_only):
    with used("test_sync_of_own", plain_only):
        pass


def test_sync_of_own_and_async(plain_only, async_session):
    with used("test_sync_of_own_and_async", plain_only, async_session):
        pass


def test_sync_with_async_local(async_local, sync_local):
    with used("test_sync_with_async_local", async_local, sync_local):
        pass


async def test_each_session(each_session):
    with used(f"test_each_session-{each_session}", each_session):
        await asyncio.sleep(0.01)


async def test_each_both(over_each, each_session, each_module):
    with used(f"test_each_both-{over_each}", over_each, each_session, each_module):
        assert each_session in over_each
        assert each_module in over_each
        await asyncio.sleep(0.01)


def test_sync_each(over_each, each_module):
    with used(f"test_sync_each-{over_each}", over_each, each_module):
        pass


@pytest.mark.parametrize("each_session", ["c"], indirect=True)
async def test_indirect(each_session):
    assert each_session.startswith("each_session-c")


@pytest.mark.parametrize("async_local", ["direct"])
async def test_direct_parameter_hides_fixture(async_local):
    assert async_local == "direct"


@pytest.mark.parametrize(("left", "right"), [(1, 2), pytest.param(3, 4, id="named", marks=pytest.mark.xfail)])
async def test_pairs(left, right):
    assert left + 1 == right
    assert left == 1


async def test_generated(generated):
    assert generated in {"g1", "g2"}


async def test_dynamic_scope(dynamic):
    with used("test_dynamic_scope", dynamic):
        pass


async def test_dynamic_scope_again(dynamic):
    with used("test_dynamic_scope_again", dynamic):
        pass


class TestInClass:
    @pytest.fixture(scope="class")
    async def of_class(self, async_class, anyio_backend):
        with held("of_class", async_class) as value:
            yield value

    @pytest.fixture(autouse=True)
    async def mine(self, of_class):
        self.mark = of_class
        with held("mine", of_class) as value:
            yield value

    @pytest.fixture
    def colour(self, colour):
        return f"dark {colour}"

    async def test_instance(self, mine, of_class):
        with used("test_instance", mine, of_class):
            assert self.mark == of_class
            self.only_here = True

    async def test_fresh_instance(self):
        assert not hasattr(self, "only_here")

    async def test_override(self, colour, deep):
        assert colour == "dark red"
        assert deep == "deep dark red"

    @staticmethod
    async def test_static(colour):
        assert colour == "dark red"

    @classmethod
    async def test_of_class_object(cls, colour):
        assert cls is TestInClass

    def test_sync_in_class(self, of_class):
        assert self.mark == of_class


class Shared:
    kind = "shared"

    @pytest.fixture
    async def subject(self):
        return self.kind

    async def test_inherited(self, subject):
        assert subject == self.kind


class TestFirstHeir(Shared):
    kind = "first"


class TestSecondHeir(Shared):
    kind = "second"

    @pytest.fixture
    async def subject(self):
        return self.kind.upper()

    async def test_inherited(self, subject):
        assert subject == "SECOND"


@pytest.mark.usefixtures("sync_local", "async_local")
class TestUseFixtures:
    async def test_used(self):
        pass

    def test_used_sync(self):
        pass


@pytest.mark.parametrize("side", ["l", "r"], scope="class")
class TestParametrizedClass:
    @pytest.fixture(scope="class")
    async def per_side(self, side, anyio_backend):
        with held(f"per_side-{side}") as value:
            yield value

    async def test_one(self, per_side, side):
        with used(f"one-{side}", per_side):
            assert per_side.startswith(f"per_side-{side}")

    async def test_two(self, per_side, side):
        with used(f"two-{side}", per_side):
            assert per_side.startswith(f"per_side-{side}")


class TestOuter:
    @pytest.fixture
    async def outer(self):
        return "outer"

    class TestInner:
        async def test_nested(self, outer):
            assert outer == "outer"
