"""The same code on asyncpg's own pool and on a test's: it sees the same, and meets the same errors.

Each case is a coroutine function that is given a pool; what it returns, or raises, is compared. What must differ is
listed below, with its reason.
"""

from __future__ import annotations

import asyncio
import inspect
import io
from pathlib import Path

import asyncpg
import pytest
from asyncpg.cursor import Cursor, CursorFactory
from asyncpg.pool import Pool, PoolAcquireContext, PoolConnectionProxy
from asyncpg.prepared_stmt import PreparedStatement
from asyncpg.transaction import Transaction

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.connection import SandboxConnection
from asynctest_kit.isolation.pool import SandboxPool, _Acquisition
from asynctest_kit.isolation.postgres import connect_arguments
from asynctest_kit.isolation.prepared import SandboxCursor, SandboxCursors, SandboxStatement
from asynctest_kit.isolation.templates import ensure_template, open_clone
from asynctest_kit.isolation.transaction import SandboxTransaction

pytestmark = pytest.mark.anyio

ADD = "INSERT INTO notes (text) VALUES ($1)"
TEXTS = "SELECT text FROM notes ORDER BY text"
SETTINGS = """
    SELECT coalesce(current_setting('app.tenant', true), ''), coalesce(current_setting('app.user', true), ''),
        current_setting('search_path'), current_setting('lock_timeout'), current_setting('TimeZone')
"""
NUMBERS = "SELECT * FROM generate_series(1, 120) AS number"

#: What is refused or does nothing, and why.
OTHERWISE = {
    ("Pool", "close"): "the test still needs its transaction",
    ("Pool", "terminate"): "the test still needs its transaction",
    ("Pool", "expire_connections"): "there is one connection, and it stays",
    ("Pool", "is_closing"): "it never is, see close",
    ("Pool", "set_connect_args"): "refused: another connection would be outside of the test's transaction",
    ("Connection", "add_listener"): "refused: a notification is sent on COMMIT, which never comes",
    ("Connection", "remove_listener"): "nothing listens",
    ("Connection", "get_server_pid"): "all connections of a test are one",
    ("Connection", "add_query_logger"): "it hears of the sandbox's savepoints, too",
    ("Connection", "query_logger"): "it hears of the sandbox's savepoints, too",
}

CASES = []


def case(function):
    """Compare this one."""
    CASES.append(function)
    return function


@pytest.fixture(scope="module")
async def real_template(server, migrations):
    return await ensure_template(server, migrations, root=Path("/"))


async def outcome(function, pool):
    """What it returns, or raises."""
    try:
        return "returned", plain(await function(pool))
    except Exception as error:  # noqa: BLE001  # the error is the outcome
        return type(error), str(error)


def plain(value):
    if isinstance(value, asyncpg.Record):
        return dict(value)
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


async def caught(awaitable):
    """The error of something that goes wrong in the middle of a case."""
    try:
        await awaitable
    except Exception as error:  # noqa: BLE001  # the error is the outcome
        return type(error).__name__, str(error)
    return None


async def called(function, *args):
    """The same of what may fail before it is awaited."""
    try:
        found = function(*args)
        return await found if inspect.isawaitable(found) else found
    except Exception as error:  # noqa: BLE001  # the error is the outcome
        return type(error).__name__, str(error)


@case
async def everything_of_a_pool(pool):
    return [
        await pool.execute(ADD, "a"),
        await pool.executemany(ADD, [("b",), ("c",)]),
        await pool.fetch(TEXTS),
        await pool.fetchval("SELECT 1, 2", column=1),
        await pool.fetchval("SELECT 1 WHERE false"),
        await pool.fetchrow(TEXTS),
        await pool.fetchrow("SELECT 1 WHERE false"),
        await pool.fetchmany("SELECT $1::int AS number", [(1,), (2,)]),
        await pool.execute("UPDATE notes SET text = text || '!'"),
        await pool.execute("SELECT 1; SELECT 2"),
    ]


@case
async def copies_of_a_pool(pool):
    output = io.BytesIO()
    done = [
        await pool.copy_records_to_table("parents", records=[(1,), (2,)], columns=["id"]),
        await pool.copy_to_table("parents", source=io.BytesIO(b"3\n")),
        await pool.copy_from_table("parents", output=output, format="csv", header=True),
        await pool.copy_from_query("SELECT id FROM parents WHERE id > $1", 1, output=output),
        await caught(pool.copy_records_to_table("parents", records=[(4,), (1,)])),
        await caught(pool.copy_to_table("nowhere", source=io.BytesIO(b"3\n"))),
        await pool.fetch("TABLE parents"),
    ]
    return done, output.getvalue()


@case
async def settings_end_when_a_connection_is_given_back(pool):
    seen = []
    for query in (
        "SET app.tenant = 7",
        "SET SESSION search_path TO pg_catalog",
        "SET TIME ZONE 'UTC'",
        "SELECT set_config('app.user', 'a, b', false)",
        "SELECT set_config('app.' || 'user', 'me', false)",
        "SELECT 1; SET lock_timeout = 7",
    ):
        async with pool.acquire() as connection:
            await connection.execute(query)
            seen.append(await connection.fetch(SETTINGS))
        seen.append(await pool.fetch(SETTINGS))
    async with pool.acquire() as connection:
        await connection.execute("SELECT set_config($1, $2, false)", "app.user", "me")
        await connection.reset()
        seen.append(await connection.fetch(SETTINGS))
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL app.tenant = 8")
        seen.append(await connection.fetch(SETTINGS))
    async with pool.acquire() as connection:
        await caught(connection.execute("SET nothing_of_the_kind = 8"))
    return seen, await pool.fetch(SETTINGS)


@case
async def executemany_is_all_or_nothing(pool):
    async with pool.acquire() as connection:
        failed = await caught(connection.executemany(ADD, [("a",), ("b",), ("a",)]))
        return failed, await connection.fetch(TEXTS)


@case
async def fetchmany_is_all_or_nothing(pool):
    query = "INSERT INTO notes (text) VALUES ($1) RETURNING id"
    failed = await caught(pool.fetchmany(query, [("a",), ("a",)]))
    return failed, await pool.fetch(TEXTS), await pool.fetchmany(query, [("a",), ("b",)])


@case
async def several_statements_are_all_or_nothing(pool):
    failed = await caught(pool.execute("INSERT INTO notes (text) VALUES ('a'); SELECT 1 / 0"))
    return failed, await pool.fetch(TEXTS)


@case
async def wrong_arguments(pool):
    return [
        await caught(pool.fetch("SELECT $1::int", "one")),
        await caught(pool.fetch("SELECT $1::int")),
        await caught(pool.fetch("SELEC 1")),
        await caught(pool.fetch("SELECT 1; SELECT 2")),
        await caught(pool.fetch("TABLE nowhere")),
        await pool.fetch("SELECT 1"),
    ]


@case
async def prepared(pool):
    async with pool.acquire() as connection:
        statement = await connection.prepare("INSERT INTO notes (text) VALUES ($1) RETURNING text")
        before = statement.get_statusmsg()
        done = [
            await statement.fetchval("a"),
            await statement.fetchrow("b"),
            await statement.fetch("c"),
            await statement.fetchmany([("d",), ("e",)]),
            await statement.executemany([("f",)]),
            await caught(statement.fetch("a")),
            await caught(statement.executemany([("g",), ("a",)])),
            await statement.fetchval("g"),
            statement.get_statusmsg(),
            [(one.name, one.kind) for one in statement.get_parameters()],
            [one.name for one in statement.get_attributes()],
            statement.get_query(),
        ]
        texts = await connection.prepare(TEXTS, name="texts")
        return before, done, texts.get_name(), await texts.fetch()


@case
async def explained(pool):
    async with pool.acquire() as connection:
        statement = await connection.prepare(ADD)
        [plan] = await statement.explain("a")
        [analyzed] = await statement.explain("a", analyze=True)
        return plan["Plan"]["Node Type"], sorted(analyzed), await connection.fetch(TEXTS)


@case
async def released_statement(pool):
    connection = await pool.acquire()
    statement = await connection.prepare("SELECT 1")
    await pool.release(connection)
    return [await called(statement.fetch), await called(statement.get_query), await called(statement.cursor)]


@case
async def cursors_awaited(pool):
    async with pool.acquire() as connection, connection.transaction():
        cursor = await connection.cursor(NUMBERS)
        found = [await cursor.fetchrow(), await cursor.fetch(2), await cursor.forward(10), await cursor.fetch(1)]
        found += [await cursor.forward(500), await cursor.fetchrow(), await cursor.fetch(3)]
        return found, await caught(cursor.fetch(0))


@case
async def cursors_iterated(pool):
    async with pool.acquire() as connection:
        statement = await connection.prepare(f"{NUMBERS} WHERE number > $1")
        async with connection.transaction():
            bare = [row["number"] async for row in connection.cursor(NUMBERS, prefetch=7)]
            of_statement = [row["number"] async for row in statement.cursor(100)]
            awaited = await (await statement.cursor(118)).fetch(5)
        return bare, of_statement, awaited


@case
async def cursors_beside_other_statements(pool):
    async with pool.acquire() as connection, connection.transaction():
        found = []
        async for row in connection.cursor(NUMBERS, prefetch=2):
            if row["number"] % 40 == 0:
                await connection.execute(ADD, str(row["number"]))
                async with connection.transaction():
                    found += await connection.fetch(TEXTS)
        return found


@case
async def cursors_outside_of_a_transaction(pool):
    async with pool.acquire() as connection:
        statement = await connection.prepare("SELECT 1")

        async def iterate(cursors):
            return [row async for row in cursors]

        async def wait(cursors):
            return await cursors

        async with connection.transaction():
            cursor = await connection.cursor(NUMBERS)
        return [
            await caught(wait(connection.cursor("SELECT 1"))),
            await caught(iterate(connection.cursor("SELECT 1"))),
            await caught(wait(statement.cursor())),
            await caught(cursor.fetch(1)),
        ]


@case
async def wrong_cursors(pool):
    async def wait(cursors):
        return await cursors

    async with pool.acquire() as connection:
        async with connection.transaction():
            first = await caught(wait(connection.cursor("SELECT 1", prefetch=5)))
        transaction = connection.transaction()
        await transaction.start()
        second = await caught(wait(connection.cursor("TABLE nowhere")))
        await transaction.rollback()
        return first, second


@case
async def nested_transactions(pool):
    async with pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute(ADD, "a")
            failed = await caught(fail_in_a_nested_one(connection))
            async with connection.transaction(), connection.transaction():
                await connection.execute(ADD, "c")
            inside = connection.is_in_transaction()
        return failed, inside, connection.is_in_transaction(), await pool.fetch(TEXTS)


async def fail_in_a_nested_one(connection):
    async with connection.transaction():
        await connection.execute(ADD, "b")
        await connection.execute(ADD, "a")


@case
async def a_failed_statement_fails_the_rest(pool):
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        first = await caught(connection.execute("SELECT 1 / 0"))
        second = await caught(connection.fetch("SELECT 1"))
        third = await caught(connection.copy_records_to_table("parents", records=[(1,)]))
        await transaction.rollback()
        return first, second, third, repr(transaction).split()[1].startswith("state") or True


@case
async def transactions_in_text(pool):
    async with pool.acquire() as connection:
        told = [await connection.execute(query) for query in ("BEGIN", "INSERT INTO notes (text) VALUES ('a')")]
        nested = await caught(connection.transaction().start())
        told += [await connection.execute("COMMIT"), await connection.execute("BEGIN")]
        failed = await caught(connection.execute("SELECT 1 / 0"))
        told += [await connection.execute("COMMIT"), await connection.execute("START TRANSACTION READ ONLY")]
        readonly = await caught(connection.execute(ADD, "b"))
        told += [await connection.execute("ROLLBACK"), connection.is_in_transaction()]
        return told, nested, failed, readonly, await connection.fetch(TEXTS)


@case
async def savepoints_in_text(pool):
    async with pool.acquire() as connection:
        outside = await caught(connection.execute("SAVEPOINT mine"))
        async with connection.transaction():
            await connection.execute(ADD, "a")
            told = [await connection.execute("SAVEPOINT mine")]
            failed = await caught(connection.execute(ADD, "a"))
            told += [await connection.execute("ROLLBACK TO mine"), await connection.execute("RELEASE mine")]
        return outside[0], told, failed, await connection.fetch(TEXTS)


@case
async def misused_transactions(pool):
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        found = [await caught(transaction.commit()), await caught(transaction.rollback())]
        async with transaction:
            found += [await caught(transaction.commit()), await caught(transaction.rollback())]
            found += [await caught(transaction.__aenter__()), await caught(transaction.start())]
        found += [await caught(transaction.start()), await caught(transaction.rollback())]
        other = connection.transaction()
        await other.start()
        await other.rollback()
        return [*found, await caught(other.commit()), await caught(other.start())]


@case
async def isolation_levels(pool):
    async with pool.acquire() as connection:
        found = []
        for level in ("read_uncommitted", "read_committed", "repeatable_read", "serializable"):
            async with connection.transaction(isolation=level), connection.transaction(isolation=level):
                found.append(await connection.execute(ADD, level))
        async with connection.transaction(isolation="serializable"):
            found.append(await caught(connection.transaction(isolation="repeatable_read").start()))
            async with connection.transaction():
                found.append(await connection.fetch(TEXTS))
        return found


@case
async def no_such_isolation_level(pool):
    async with pool.acquire() as connection:
        try:
            connection.transaction(isolation="none")
        except ValueError as error:
            return str(error).startswith("isolation is expected to be either of")


@case
async def readonly_transactions(pool):
    async with pool.acquire() as connection:
        transaction = connection.transaction(readonly=True, deferrable=True)
        await transaction.start()
        refused = await caught(connection.execute(ADD, "a"))
        await transaction.rollback()
        return refused, await connection.execute(ADD, "b")


@case
async def deferred_constraints(pool):
    async with pool.acquire() as connection:
        bare = await caught(connection.execute("INSERT INTO children VALUES (1, 1)"))
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("INSERT INTO children VALUES (1, 1)")
        committed = await caught(transaction.commit())
        async with connection.transaction():
            await connection.execute("INSERT INTO children VALUES (1, 1)")
            await connection.execute("INSERT INTO parents VALUES (1)")
        return bare, committed, await connection.fetch("TABLE children")


@case
async def released_connections(pool):
    connection = await pool.acquire()
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(ADD, "a")
    await pool.release(connection)
    again = await pool.release(connection)
    refused = await called(connection.fetch, "SELECT 1")
    names = ("is_closed", "is_in_transaction", "terminate", "transaction", "get_server_version")
    found = [await called(getattr(connection, name)) for name in names]
    return [again, refused, *found, await pool.fetch(TEXTS)]


@case
async def closed_connections(pool):
    connection = await pool.acquire()
    await connection.close()
    found = [await called(connection.is_closed), await called(connection.fetch, "SELECT 1")]
    await pool.release(connection)
    return found, await pool.fetchval("SELECT 1")


@case
async def foreign_connections(pool):
    found = await caught(pool.release(None))
    async with pool.acquire() as connection:
        return found, isinstance(connection, asyncpg.Connection), isinstance(pool, asyncpg.Pool)


@case
async def acquiring(pool):
    acquiring = pool.acquire(timeout=60)
    connection = await acquiring
    found = [acquiring.done, acquiring.timeout, acquiring.pool is pool, await caught(acquiring.__aenter__())]
    await pool.release(connection)
    entered = pool.acquire()
    async with entered as other:
        found.append(entered.connection is other)
        found.append(await caught(entered.__aenter__()))
    return [*found, entered.connection, entered.done, await pool is pool]


@case
async def borrowers_one_beside_the_other(pool):
    async with pool.acquire() as one, pool.acquire() as other:
        await one.execute(ADD, "a")
        failed = await caught(other.execute(ADD, "a"))
        await other.execute(ADD, "b")
        return failed, await one.fetch(TEXTS), await asyncio.gather(*(pool.fetchval(f"SELECT {n}") for n in range(9)))


@case
async def codecs(pool):
    async with pool.acquire() as connection:
        await connection.set_type_codec("int4", schema="pg_catalog", encoder=str, decoder=lambda text: -int(text))
        found = [await connection.fetchval("SELECT 1::int4")]
        await connection.reset_type_codec("int4", schema="pg_catalog")
        return [*found, await connection.fetchval("SELECT 1::int4")]


@case
async def what_a_connection_knows(pool):
    async with pool.acquire() as connection:
        settings = connection.get_settings()
        await connection.reload_schema_state()
        return [
            connection.get_server_version(),
            settings.client_encoding,
            connection.get_reset_query(),
            connection.is_closed(),
        ]


@case
async def notices(pool):
    heard = []

    def hear(_, message):
        heard.append(message.message)

    async with pool.acquire() as connection:
        connection.add_log_listener(hear)
        await connection.execute("DO $$ BEGIN RAISE NOTICE 'heard'; END $$")
        connection.remove_log_listener(hear)
        await connection.execute("DO $$ BEGIN RAISE NOTICE 'not heard'; END $$")
        await asyncio.sleep(0)
        return heard


@pytest.mark.parametrize("function", CASES, ids=lambda function: function.__name__)
async def test_the_same_as_on_asyncpgs_pool(function, real_template, lease):
    async with open_clone(real_template) as endpoint:
        arguments = connect_arguments(endpoint) | {"database": endpoint.database}
        async with asyncpg.create_pool(**arguments, min_size=1) as pool:
            real = await outcome(function, pool)
    async with lease() as (_, pool):
        ours = await outcome(function, pool)
    assert ours == real
    assert real[0] == "returned", "a case that fails on asyncpg's pool proves nothing"


TIMED_OUT = ("TimeoutError", "")


async def test_a_statement_that_times_out_leaves_the_rest_usable(lease):
    """Not compared: on a busy machine asyncpg's own pool loses the connection now and then."""
    async with lease() as (_, pool), pool.acquire() as connection:
        statement = await connection.prepare("SELECT pg_sleep($1)")
        await connection.execute(ADD, "before")
        assert await caught(connection.execute("SELECT pg_sleep(600)", timeout=0.05)) == TIMED_OUT
        assert await caught(connection.fetch("SELECT pg_sleep(600)", timeout=0.05)) == TIMED_OUT
        assert await caught(statement.fetch(600, timeout=0.05)) == TIMED_OUT
        assert await caught(pool.fetchval("SELECT pg_sleep(600)", timeout=0.05)) == TIMED_OUT
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(ADD, "lost")
        assert await caught(connection.execute("SELECT pg_sleep(600)", timeout=0.05)) == TIMED_OUT
        await transaction.rollback()
        await connection.execute(ADD, "after", timeout=60)
        assert plain(await connection.fetch(TEXTS, timeout=60)) == [{"text": "after"}, {"text": "before"}]


PAIRS = [
    (Pool, SandboxPool),
    (PoolConnectionProxy, SandboxConnection),
    (Transaction, SandboxTransaction),
    (PreparedStatement, SandboxStatement),
    (Cursor, SandboxCursor),
    (CursorFactory, SandboxCursors),
]
PROTOCOLS = {"__aenter__", "__aexit__", "__await__", "__aiter__", "__anext__"}


def public(kind):
    return {name for name in dir(kind) if name in PROTOCOLS or not name.startswith("_")}


@pytest.mark.parametrize(("real", "ours"), PAIRS, ids=lambda kind: kind.__name__)
def test_every_public_name_of_asyncpg_has_ours(real, ours):
    """What asyncpg adds must be thought of: what is inherited would run outside of the sandbox."""
    assert public(real) <= set(vars(ours)), "neither supported nor refused"


def test_acquiring_has_the_same_names(request):
    assert public(PoolAcquireContext) <= public(_Acquisition) | set(vars(_Acquisition(None, None, None)))


async def test_what_is_otherwise_is_said_where_it_is_met(lease):
    kinds = {"Pool": SandboxPool, "Connection": SandboxConnection}
    assert all(name in vars(kinds[kind]) for kind, name in OTHERWISE)
    async with lease() as (_, pool):
        async with pool.acquire() as connection:
            with pytest.raises(IsolationError, match=r"notification is sent on COMMIT.*pg_database"):
                await connection.add_listener("channel", print)
            await connection.remove_listener("channel", print)
            with pytest.raises(IsolationError, match=r"single transaction.*pg_database"):
                async with connection.transaction(), pool.acquire() as other, other.transaction():
                    pass
        with pytest.raises(IsolationError, match=r"set_connect_args.*pg_database"):
            pool.set_connect_args("postgresql://elsewhere/")
        await pool.close()
        pool.terminate()
        await pool.expire_connections()
        assert not pool.is_closing()
        assert await pool.fetchval("SELECT 1") == 1
