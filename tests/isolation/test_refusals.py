"""What a transaction can't give is refused by all ways in, with a message that names the rung that gives it."""

from __future__ import annotations

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.connection import SandboxConnection
from asynctest_kit.isolation.pool import SandboxPool
from asynctest_kit.isolation.refusals import remark
from asynctest_kit.isolation.sqlalchemy import SandboxEngines

pytestmark = pytest.mark.anyio

DATABASE = 'Give this test a database of its own: @pytest.mark.atk(isolation="database"), or the fixture pg_database.'
SERVER = 'Give this test a server of its own: @pytest.mark.atk(isolation="server").'
ONE = "It can't run inside a transaction, and all statements of this test run in one:"
LISTEN = "LISTEN would wait for ever: a notification is sent on COMMIT, and a test's transaction never commits."
TWO_PHASE = "Two-phase commit would outlive the test:"
MIDDLE = "A transaction is begun or ended in the middle of a text:"
ALONE = (
    "The test's own transaction is around it. Execute BEGIN, COMMIT and ROLLBACK as statements of their own, or use "
    "connection.transaction(). Otherwise:"
)
READ_ONLY = "Later transactions can't be made read-only, for all of a test's are parts of one:"
ITSELF = "It commits or rolls back by itself, and the test's own transaction is around it:"

REFUSED = {
    "VACUUM": f"{ONE} VACUUM. {DATABASE}",
    "vacuum (analyze)\n  notes": f"{ONE} vacuum (analyze) notes. {DATABASE}",
    "/* now */ -- here\nVACUUM notes": f"{ONE} /* now */ -- here VACUUM notes. {DATABASE}",
    "CREATE INDEX CONCURRENTLY found ON notes (text)": (
        f"{ONE} CREATE INDEX CONCURRENTLY found ON notes (text). {DATABASE}"
    ),
    "DROP INDEX CONCURRENTLY notes_text_key": f"{ONE} DROP INDEX CONCURRENTLY notes_text_key. {DATABASE}",
    "REINDEX TABLE CONCURRENTLY notes": f"{ONE} REINDEX TABLE CONCURRENTLY notes. {DATABASE}",
    "REINDEX DATABASE": f"{ONE} REINDEX DATABASE. {DATABASE}",
    "DISCARD ALL": f"{ONE} DISCARD ALL. {DATABASE}",
    "CREATE DATABASE other": f"{ONE} CREATE DATABASE other. {SERVER}",
    "drop database other": f"{ONE} drop database other. {SERVER}",
    "ALTER SYSTEM SET work_mem = '1MB'": f"{ONE} ALTER SYSTEM SET work_mem = '1MB'. {SERVER}",
    "CREATE TABLESPACE fast LOCATION '/fast'": f"{ONE} CREATE TABLESPACE fast LOCATION '/fast'. {SERVER}",
    "CREATE SUBSCRIPTION s CONNECTION 'dbname=x' PUBLICATION p": (
        f"{ONE} CREATE SUBSCRIPTION s CONNECTION 'dbname=x' PUBLICATION p. {SERVER}"
    ),
    "LISTEN channel": f"{LISTEN} {DATABASE}",
    "SELECT 1; listen channel": f"{LISTEN} {DATABASE}",
    "PREPARE TRANSACTION 'x'": f"{TWO_PHASE} PREPARE TRANSACTION 'x'. {DATABASE}",
    "COMMIT PREPARED 'x'": f"{TWO_PHASE} COMMIT PREPARED 'x'. {DATABASE}",
    "rollback prepared 'x'": f"{TWO_PHASE} rollback prepared 'x'. {DATABASE}",
    "BEGIN; SELECT 1; COMMIT": f"{MIDDLE} BEGIN; SELECT 1; COMMIT. {ALONE} {DATABASE}",
    "WITH a AS (SELECT 1) SELECT * FROM a; /* so */ commit": (
        f"{MIDDLE} WITH a AS (SELECT 1) SELECT * FROM a; /* so */ commit. {ALONE} {DATABASE}"
    ),
    "INSERT INTO notes (text) VALUES ('a'); ROLLBACK": (
        f"{MIDDLE} INSERT INTO notes (text) VALUES ('a'); ROLLBACK. {ALONE} {DATABASE}"
    ),
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": (
        f"{READ_ONLY} SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY. {DATABASE}"
    ),
    "set default_transaction_read_only to on": (f"{READ_ONLY} set default_transaction_read_only to on. {DATABASE}"),
    "DO 'BEGIN COMMIT; END'": f"{ITSELF} DO 'BEGIN COMMIT; END'. {DATABASE}",
}
#: Those that can't be sent as a prepared statement.
TEXTS = {query for query in REFUSED if ";" in query and not query.startswith("DO")}


async def by_execute(sandbox, query):
    await SandboxConnection(sandbox, commits=False).execute(query)


async def by_pool(sandbox, query):
    await SandboxPool(sandbox).fetch(query)


async def by_many(sandbox, query):
    await SandboxPool(sandbox).executemany(query, [()])


async def by_statement(sandbox, query):
    statement = await SandboxConnection(sandbox, commits=False).prepare(query)
    await statement.fetch()


async def by_guest(sandbox, query):
    """While another connection has a transaction open."""
    async with SandboxConnection(sandbox, commits=True).transaction():
        await by_execute(sandbox, query)


async def by_engine(sandbox, query):
    engine = await ENGINES.open(sandbox)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.exec_driver_sql(query)


ENGINES = SandboxEngines({})
WAYS = (by_execute, by_pool, by_many, by_statement, by_guest, by_engine)


@pytest.mark.parametrize("query", REFUSED)
async def test_what_one_transaction_cant_give_is_refused(slots, query):
    for way in WAYS:
        if query in TEXTS and way is not by_execute:
            continue
        async with slots.lease() as sandbox:
            with pytest.raises(IsolationError) as caught:
                await way(sandbox, query)
            assert str(caught.value) == REFUSED[query], way
            assert await SandboxPool(sandbox).fetch("SELECT text FROM notes") == []


async def test_listeners_are_refused(lease):
    async with lease() as (pg, _):
        with pytest.raises(IsolationError) as caught:
            await pg.add_listener("channel", print)
        assert str(caught.value) == f"{LISTEN} {DATABASE}"
        await pg.remove_listener("channel", print)


async def test_a_new_value_of_an_enum_can_be_used_only_after_a_commit(database, lease):
    connection = await asyncpg.connect(database.url)
    await connection.execute("CREATE TYPE mood AS ENUM ('glad')")
    await connection.close()
    async with lease() as (_, pool):
        await pool.execute("ALTER TYPE mood ADD VALUE 'calm'")
        with pytest.raises(IsolationError) as caught:
            await pool.fetchval("SELECT 'calm'::mood")
        assert str(caught.value) == (
            "A new value of an enum can be used after COMMIT only, and a test's transaction never commits: "
            f"SELECT 'calm'::mood. {DATABASE}"
        )


@pytest.mark.parametrize("query", ["VACUUM", "CREATE DATABASE other", "DISCARD ALL"])
async def test_what_fails_everywhere_fails_as_everywhere(slots, lease, query):
    async with lease() as (pg, pool):
        for text_of_many in (f"SELECT 1; {query}", f"{query}; SELECT 1"):
            with pytest.raises(asyncpg.ActiveSQLTransactionError):
                await pg.execute(text_of_many)
        with pytest.raises(asyncpg.ActiveSQLTransactionError):
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute(query)
    async with slots.lease() as sandbox:
        engine = await ENGINES.open(sandbox)
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError, match="cannot run inside a transaction block"):
                await connection.execute(text(query))


ALLOWED = (
    "LOCK TABLE notes",
    "TRUNCATE notes",
    "ANALYZE notes",
    "CLUSTER notes USING notes_pkey",
    "REINDEX TABLE notes",
    "CREATE INDEX found ON notes (text)",
    "DISCARD TEMP",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET default_transaction_read_only = 'off'",
    "SET application_name = 'READ-ONLY'",
    "CREATE ROLE atk_rolled_back",
    "CREATE PUBLICATION everything",
    "UNLISTEN *",
    "NOTIFY channel, 'word'",
    "SELECT pg_notify('channel', 'word')",
    "SELECT pg_advisory_lock(4711)",
    "SELECT setval('notes_id_seq', 1000)",
    "DO $$ BEGIN EXECUTE 'SELECT 1'; END $$",
)


@pytest.mark.parametrize("query", ALLOWED)
async def test_what_works_is_not_refused(lease, query):
    for _ in range(2):  # it's undone, or it could not be done again
        async with lease() as (pg, pool):
            await pg.execute(query)
            await pool.execute("INSERT INTO notes (text) VALUES ('after')")


@pytest.mark.parametrize(
    ("query", "is_remarked"),
    [
        ("notify channel", True),
        ("SELECT 1; NOTIFY channel, 'word'", True),
        ("WITH a AS (SELECT pg_notify('channel', 'word')) TABLE a", True),
        ("SELECT 'pg_notify(1)', notify FROM notes -- pg_notify(1)", False),
    ],
)
def test_a_notification_that_goes_nowhere_is_remarked_on(query, is_remarked):
    assert remark(query) == (
        "A notification went nowhere: it is sent on COMMIT, and a test's transaction never commits. Does this test, or "
        f"something that it runs, wait for it? {DATABASE}"
        if is_remarked
        else ""
    )
