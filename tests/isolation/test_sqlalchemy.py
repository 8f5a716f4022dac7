"""SQLAlchemy's async engine in a sandbox: what applications do with it, and what it leaves on the connection."""

from __future__ import annotations

import asyncio
import enum
import json
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import Enum, ForeignKey, bindparam, event, func, insert, select, text
from sqlalchemy.dialects.postgresql import ARRAY, INET, JSONB
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.connection import SandboxConnection
from asynctest_kit.isolation.pool import SandboxPool
from asynctest_kit.isolation.postgres import open_slots
from asynctest_kit.isolation.sqlalchemy import SandboxEngines

pytestmark = pytest.mark.anyio


class Base(DeclarativeBase):
    pass


class Mood(enum.Enum):
    GLAD = "glad"
    SAD = "sad"


class User(Base):
    __tablename__ = "user"  # a name that SQLAlchemy quotes
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    mood: Mapped[Mood] = mapped_column(Enum(Mood, name="mood"), default=Mood.GLAD)
    extra: Mapped[dict] = mapped_column(JSONB, default=dict)
    tags: Mapped[list] = mapped_column(ARRAY(JSONB), default=list)
    orders: Mapped[list[Order]] = relationship(back_populates="user", cascade="all, delete-orphan")


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"))
    user: Mapped[User] = relationship(back_populates="orders")


EMAILS = 'SELECT email FROM "user" ORDER BY email'


async def emails(pg):
    return [email for (email,) in await pg.fetch(EMAILS)]


@pytest.fixture(scope="module")
def engines():
    return SandboxEngines({})


@pytest.fixture
async def tables(database, anyio_backend):
    """The tables of the models, as migrations would have made them."""
    connection = await asyncpg.connect(database.url)
    async with open_slots(database, limit=1) as slots, slots.lease() as sandbox:
        made = []
        engine = await SandboxEngines({}).open(sandbox)
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *call: made.append(call[2]))
        async with engine.begin() as scratch:
            await scratch.run_sync(Base.metadata.create_all)
        assert await scratch_is_seen(sandbox)
    for statement in made:
        if statement.lstrip().startswith("CREATE"):
            await connection.execute(statement)
    await connection.close()


async def scratch_is_seen(sandbox):
    return await SandboxConnection(sandbox, commits=False).fetchval("SELECT to_regclass('orders') IS NOT NULL")


@pytest.fixture
def opened(slots, engines, tables):
    """What the fixtures pg and pg_engine give a test."""

    @asynccontextmanager
    async def opened(**options):
        async with slots.lease() as sandbox:
            chosen = SandboxEngines(options) if options else engines
            yield SandboxConnection(sandbox, commits=False), await chosen.open(sandbox)

    return opened


async def test_nothing_outlives_the_lease(opened):
    for _ in range(2):
        async with opened() as (pg, engine):
            async with AsyncSession(engine) as session:
                session.add(User(email="a", orders=[Order(), Order()]))
                await session.commit()
            assert await emails(pg) == ["a"]
            assert await pg.fetchval("SELECT count(*) FROM orders") == 2


async def test_concurrent_leases_see_only_their_own_rows(opened):
    async def case(number):
        async with opened() as (pg, engine):
            maker = async_sessionmaker(engine)
            async with maker.begin() as session:
                session.add(User(email=f"session {number}"))
            async with engine.begin() as connection:
                await connection.execute(insert(User).values(email=f"core {number}"))
            async with maker() as session:
                assert await session.scalar(select(func.count()).select_from(User)) == 2
            return await emails(pg)

    seen = await asyncio.gather(*(case(number) for number in range(24)))
    assert seen == [[f"core {number}", f"session {number}"] for number in range(24)]


async def test_rollbacks_savepoints_and_failures(opened):
    async with opened() as (pg, engine), AsyncSession(engine) as session:
        session.add(User(email="kept"))
        await session.commit()
        session.add(User(email="dropped"))
        await session.flush()
        await session.rollback()
        async with session.begin_nested():
            session.add(User(email="nested"))
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                session.add(User(email="kept"))
        session.add(User(email="after"))
        await session.commit()
        assert await emails(pg) == ["after", "kept", "nested"]

        session.add(User(email="kept"))
        with pytest.raises(IntegrityError):
            await session.flush()
        with pytest.raises(PendingRollbackError):
            await session.scalar(select(User.id))
        await session.rollback()
        assert len((await session.scalars(select(User))).all()) == 3


async def test_core_as_applications_use_it(opened):
    async with opened() as (pg, engine):
        async with engine.begin() as connection:
            made = await connection.execute(insert(User).returning(User.id), [{"email": f"{n:03}"} for n in range(150)])
            assert len(made.all()) == 150
            await connection.execute(text("UPDATE orders SET id = id WHERE id = :id"), [{"id": 1}, {"id": 2}])
            result = await connection.execute(text('DELETE FROM "user" WHERE email < :email'), {"email": "010"})
            assert result.rowcount == 10
        async with engine.connect() as connection:
            rows = []
            async with connection.stream(select(User.email).order_by(User.email)) as streamed:
                async for partition in streamed.scalars().partitions(60):
                    assert await pg.fetchval("SELECT 1") == 1
                    rows += partition
            assert rows == await emails(pg)
        async with engine.connect() as connection:
            await connection.execute(text('DELETE FROM "user"'))
        assert len(await emails(pg)) == 140


async def test_relationships_and_streamed_objects(opened):
    async with opened() as (_, engine), AsyncSession(engine, expire_on_commit=False) as session:
        session.add_all(User(email=str(number), orders=[Order()]) for number in range(3))
        await session.commit()
        session.expunge_all()
        query = select(User).options(selectinload(User.orders)).order_by(User.email)
        assert [len(user.orders) for user in await session.scalars(query)] == [1, 1, 1]
        streamed = await session.stream_scalars(select(User).order_by(User.email))
        assert [user.email async for user in streamed] == ["0", "1", "2"]
        await session.delete(await session.get_one(User, 1))
        await session.commit()


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE"])
async def test_isolation_levels(opened, level):
    async with opened(isolation_level=level) as (pg, engine):
        async with engine.connect() as connection:
            await connection.execute(insert(User).values(email="a"))
        assert await emails(pg) == (["a"] if level == "AUTOCOMMIT" else [])
    async with opened() as (pg, engine), engine.connect() as connection:
        await connection.execution_options(isolation_level=level)
        await connection.execute(insert(User).values(email="a"))
        await connection.rollback()
        assert await emails(pg) == (["a"] if level == "AUTOCOMMIT" else [])


async def test_sessions_that_read_don_t_stand_in_each_others_way(opened):
    async with opened() as (pg, engine), AsyncSession(engine) as reader, AsyncSession(engine) as writer:
        assert await reader.scalar(select(func.count(User.id))) == 0
        writer.add(User(email="a"))
        await writer.flush()
        assert await reader.scalar(select(User.email)) == "a"  # one transaction: see "What is not isolated"
        await writer.commit()
        user = await reader.scalar(select(User))
        user.email = "b"
        await reader.commit()
        assert await emails(pg) == ["b"]


async def test_sessions_that_both_write_are_refused(opened):
    async with opened() as (pg, engine), AsyncSession(engine) as first, AsyncSession(engine) as second:
        first.add(User(email="a"))
        await first.flush()
        with pytest.raises(IsolationError, match="Two transactions at once in one test"):
            await second.scalar(select(User).with_for_update())
        await second.rollback()
        await first.commit()
        second.add(User(email="b"))
        await second.commit()
        assert await emails(pg) == ["a", "b"]


async def test_a_failed_read_fails_its_transaction(opened):
    async with opened() as (_, engine), engine.connect() as connection:
        with pytest.raises(DBAPIError, match="division by zero"):
            await connection.execute(text("SELECT 1 / 0"))
        with pytest.raises(DBAPIError, match="current transaction is aborted"):
            await connection.execute(text("SELECT 1"))
        await connection.rollback()
        assert await connection.scalar(text("SELECT 1")) == 1


async def test_a_view_that_writes_is_no_read(opened, database):
    outside = await asyncpg.connect(database.url)
    await outside.execute(
        "CREATE FUNCTION sign_up() RETURNS int LANGUAGE sql "
        "AS $$ INSERT INTO \"user\" (email, mood, extra, tags) VALUES ('v', 'GLAD', '{}', '{}') RETURNING id $$;"
        "CREATE VIEW signing_up AS SELECT sign_up() AS id"
    )
    await outside.close()
    async with opened() as (pg, engine), AsyncSession(engine) as session:
        await session.execute(text("SELECT id FROM signing_up"))
        await session.rollback()
        assert await emails(pg) == []


async def test_json_is_the_dialects_for_the_engine_and_the_connections_for_pg(opened):
    query = "SELECT '[1]'::json, '[2]'::jsonb, ARRAY['[3]'::jsonb]"
    user = {"email": "a", "extra": {"one": 1}, "tags": [{"two": 2}]}
    async with opened() as (pg, engine):
        pid = pg.get_server_pid()
        for _ in range(2):
            assert tuple(await pg.fetchrow(query)) == ("[1]", "[2]", ["[3]"])
            async with engine.begin() as connection:
                assert tuple((await connection.execute(text(query))).one()) == ([1], [2], [[3]])
                assert tuple(await (await connection.get_raw_connection()).driver_connection.fetchrow(query)) == (
                    [1], [2], [[3]],
                )  # fmt: skip
        async with engine.begin() as connection:
            await connection.execute(insert(User), [user, user | {"email": "b"}])
        assert await pg.fetchval("SELECT extra FROM \"user\" WHERE email = 'b'") == '{"one": 1}'
        async with AsyncSession(engine) as session:
            found = (await session.scalars(select(User).order_by(User.email))).all()
            assert [(one.extra, one.tags, one.mood) for one in found] == [({"one": 1}, [{"two": 2}], Mood.GLAD)] * 2
    async with opened() as (pg, _):
        assert pg.get_server_pid() == pid  # the connection is as good as before
        assert tuple(await pg.fetchrow(query)) == ("[1]", "[2]", ["[3]"])


async def test_codecs_of_the_application_and_of_the_engine(database, tables):
    async def init(connection):
        await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)

    engines = SandboxEngines({"json_deserializer": lambda text: ("own", json.loads(text)), "native_inet_types": False})
    async with open_slots(database, limit=1, init=init) as slots, slots.lease() as sandbox:
        pool, engine = SandboxPool(sandbox), await engines.open(sandbox)
        for _ in range(2):
            await pool.execute("SELECT $1::jsonb", {"a": 1})
            assert await pool.fetchval("SELECT $1::jsonb", {"a": 1}) == {"a": 1}
            async with engine.connect() as connection:
                query = select(bindparam("value", type_=JSONB), bindparam("net", type_=INET))
                found = await connection.execute(query, {"value": {"a": 1}, "net": "10.0.0.1"})
                assert tuple(found.one()) == (("own", {"a": 1}), "10.0.0.1")


async def test_a_codec_that_the_application_sets_ends_with_the_test(opened):
    def loud(dbapi_connection, _):
        codec = {"encoder": json.dumps, "decoder": lambda text: f"<{text}>"}
        dbapi_connection.run_async(lambda driver: driver.set_type_codec("jsonb", schema="pg_catalog", **codec))

    async with opened() as (pg, engine):
        event.listen(engine.sync_engine, "connect", loud)
        for _ in range(2):
            async with engine.connect() as connection:
                assert await connection.scalar(text("SELECT '[]'::jsonb")) == "<[]>"
            assert await pg.fetchval("SELECT '[]'::jsonb") == "<[]>"
    async with opened() as (pg, engine):
        assert await pg.fetchval("SELECT '[]'::jsonb") == "[]"
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT '[]'::jsonb")) == []


async def test_what_all_engines_share_is_not_seen_by_tests(opened):
    async with opened() as (_, engine):
        seen = []
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *call: seen.append(call[2]))
        event.listen(engine.sync_engine, "connect", lambda *_: seen.append("connect"))
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        assert seen == ["connect", "SELECT 1"]
    async with opened() as (_, engine):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 2"))
        assert seen == ["connect", "SELECT 1"]


async def test_the_engine_goes_on_after_the_application_has_disposed_of_it(opened):
    async with opened() as (pg, engine):
        await engine.dispose()
        async with engine.begin() as connection:
            await connection.execute(insert(User).values(email="a"))
        assert await emails(pg) == ["a"]


async def test_what_is_left_open_is_the_tests_failure(opened):
    with pytest.raises(IsolationError, match=r"left a transaction open.*never gave 1 connection\(s\) back"):
        async with opened() as (_, engine):
            connection = await engine.connect()
            await connection.execute(insert(User).values(email="a"))
    with pytest.raises(IsolationError, match="a test that has ended"):
        await connection.execute(text("SELECT 1"))
    await connection.invalidate()
    async with opened() as (pg, _):
        assert await emails(pg) == []


async def test_cancelled_transaction_is_rolled_back(opened):
    async with opened() as (pg, engine):
        async with engine.begin() as connection:
            await connection.execute(insert(User).values(email="kept"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), engine.begin() as connection:
                await connection.execute(insert(User).values(email="lost"))
                await connection.execute(text("SELECT pg_sleep(30)"))
        assert await emails(pg) == ["kept"]


async def test_cancelled_at_every_step(opened):
    """Wherever a cancellation hits, what was kept before is there, and the engine goes on."""

    async def work(engine):
        async with AsyncSession(engine) as session:
            await session.scalar(select(func.count(User.id)))
            session.add(User(email="maybe"))
            await session.commit()

    steps, is_done = 1, False
    while not is_done:
        async with opened() as (pg, engine):
            await pg.execute("""INSERT INTO "user" (email, mood, extra, tags) VALUES ('a', 'SAD', '{}', '{}')""")
            task = asyncio.ensure_future(work(engine))
            for _ in range(steps):
                await asyncio.sleep(0)
            is_done = task.done()
            task.cancel()
            await asyncio.wait([task])
            async with engine.begin() as connection:
                await connection.execute(insert(User).values(email="b"))
            assert {"a", "b"} <= set(await emails(pg)) <= {"a", "b", "maybe"}
        steps += 1 + steps // 6


async def test_asyncpgs_own_interface_below_the_engines(opened):
    async with opened() as (pg, engine), engine.begin() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        await connection.execute(text("SELECT 1"))
        with pytest.raises(ZeroDivisionError):
            async with driver.transaction():
                await driver.copy_records_to_table("user", records=[(7, "a", "SAD", "{}", [])])
                raise ZeroDivisionError
        await driver.execute("""INSERT INTO "user" (email, mood, extra, tags) VALUES ('b', 'SAD', '{}', '{}')""")
        assert await emails(pg) == ["b"]


async def test_a_commit_by_text_below_a_session_that_has_only_read_is_its_own(opened):
    async with opened() as (pg, engine), AsyncSession(engine) as writer:
        async with engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            await connection.execute(text("SELECT 1"))
            await driver.execute("COMMIT")
            writer.add(User(email="a"))
            await writer.flush()
            await driver.execute("COMMIT")
            await connection.invalidate()
        await writer.rollback()
        assert await emails(pg) == []


async def test_an_isolation_level_that_is_set_by_text(opened):
    async with opened() as (pg, engine), engine.begin() as connection:
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        await connection.execute(insert(User).values(email="a"))
        assert await emails(pg) == ["a"]


async def test_tables_made_in_a_test_are_its_own(opened):
    for kind, value in (("int", 1), ("text", "one")):
        async with opened() as (pg, engine):
            async with engine.begin() as connection:
                await connection.execute(text(f"CREATE TABLE things (thing {kind})"))
                await connection.execute(text("INSERT INTO things VALUES (:value)"), {"value": value})
            await pg.execute("ALTER TABLE things ADD other int")
            async with engine.connect() as connection:
                assert tuple((await connection.execute(text("SELECT * FROM things"))).one()) == (value, None)
