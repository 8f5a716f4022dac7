import asyncio

import pytest
import pytest_asyncio
from trail import held, used


@pytest.mark.asyncio
async def test_marked(row, each, renamed, sync_over):
    with used(f"marked-{each}", row, each):
        await asyncio.sleep(0.01)
        assert renamed is row
        assert sync_over == f"over {row}"


@pytest.mark.asyncio(loop_scope="session")
async def test_on_the_sessions_loop(server):
    value, loop = server
    assert asyncio.get_running_loop() is loop
    with used("on-session", value):
        await asyncio.sleep(0.01)


@pytest.mark.asyncio(loop_scope="module")
class TestModuleScope:
    kept = None

    async def test_first(self, table):
        TestModuleScope.kept = asyncio.get_running_loop()

    async def test_shared(self, table):
        with used("shared", table):
            await asyncio.sleep(0)


@pytest.mark.asyncio(loop_scope="class")
class TestClassScope:
    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    async def of_class(self):
        with held("of_class") as value:
            yield value

    async def test_one(self, of_class):
        with used("one", of_class):
            pass

    async def test_two(self, of_class):
        with used("two", of_class):
            pass


def test_sync(row, table):
    with used("sync", row, table):
        pass


def test_sync_over(sync_over):
    assert sync_over.startswith("over row")


@pytest.mark.asyncio
async def test_skipped_at_run_time(row):
    pytest.skip("here")


@pytest.mark.asyncio
@pytest.mark.xfail(raises=LookupError, strict=True)
async def test_xfails(row):
    raise LookupError


@pytest_asyncio.fixture
async def broken():
    raise LookupError("on purpose")


@pytest.mark.asyncio
async def test_broken(broken):
    pass


@pytest_asyncio.fixture
async def torn():
    yield 1
    raise LookupError("on purpose")


@pytest.mark.asyncio
async def test_torn(torn):
    pass


@pytest_asyncio.fixture
async def twice():
    yield 1
    yield 2


@pytest.mark.asyncio
async def test_twice(twice):
    pass
