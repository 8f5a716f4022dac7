"""Bodies of tests that do their worst to what they were given, drawn at random.

Whatever they do, only their own transaction and logical database may be the worse for it. What is documented as not
isolated they leave alone: ``setval`` of a sequence that others use, CONFIG, locks that two tests take on one key.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
from hypothesis import strategies as st
from redis.exceptions import RedisError

from asynctest_kit.errors import IsolationError

ADD = "INSERT INTO notes (text) VALUES ($1)"
_SLEEP = "SELECT pg_sleep(3)"  # not for ever: a cancellation that comes before its statement is lost

#: What may come of such a deed; anything else is a fault of the kit.
EXPECTED = (
    asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, IsolationError, RedisError, OSError,
    TimeoutError,
)  # fmt: skip


class Outrage(Exception):  # noqa: N818  # what a body raises
    """A body ends by it."""


@dataclass
class Given:
    """What a test has.

    Attributes:
        number: No other test that runs has it.
        pg: As the fixture.
        pool: As the fixture ``pg_pool``.
        redis: As the fixture.
        kill: Ends a backend from another connection.
    """

    number: int
    pg: Any
    pool: Any
    redis: Any
    kill: Callable[[int], Any]

    @property
    def text(self) -> str:
        return f"adversary {self.number}"


@dataclass(frozen=True, slots=True)
class Adversary:
    """A body: its deeds in order, and how it ends."""

    deeds: tuple[str, ...]
    end: str


async def misbehave(adversary: Adversary, given: Given) -> None:
    """Do all its deeds; what a server or the kit refuses stops none of the others.

    Raises:
        Outrage: It ends so.
    """
    for name in adversary.deeds:
        with suppress(*EXPECTED):
            await DEEDS[name](given)
    with suppress(*EXPECTED):
        await ENDS[adversary.end](given)


def _statements(*queries: str) -> Callable:
    """A deed of statements; one that fails stops none that follow."""

    async def deed(given: Given) -> None:
        for query in queries:
            with suppress(*EXPECTED):
                await given.pg.execute(query.format(n=given.number))

    return deed


def _transaction(*queries: str) -> Callable:
    """A deed of statements in the code's own transaction, which commits."""

    async def deed(given: Given) -> None:
        async with given.pool.acquire() as connection, connection.transaction():
            for query in queries:
                await connection.execute(query.format(n=given.number))

    return deed


async def _commit(given):
    async with given.pool.acquire() as connection, connection.transaction():
        await connection.execute(ADD, given.text)


async def _roll_back(given):
    async with given.pool.acquire() as connection:
        await connection.execute("BEGIN")
        await connection.execute(ADD, given.text)
        await connection.execute("ROLLBACK")


async def _nest(given):
    async with given.pool.acquire() as connection, connection.transaction():
        await connection.execute("INSERT INTO parents VALUES ($1)", given.number)
        with suppress(Outrage):
            async with connection.transaction():
                await connection.execute(ADD, given.text)
                raise Outrage
        async with connection.transaction(), connection.transaction():
            await connection.execute(ADD, given.text)


async def _overlap(given):
    async with given.pool.acquire() as one, given.pool.acquire() as other, one.transaction():
        await one.execute(ADD, given.text)
        with suppress(*EXPECTED):
            async with other.transaction():
                await other.execute("DELETE FROM notes")
        with suppress(*EXPECTED):
            await other.execute(ADD, given.text)


async def _gather(given):
    async def work(number):
        async with given.pool.acquire() as connection, connection.transaction():
            await connection.execute(ADD, f"{given.text} {number}")

    await asyncio.gather(*(work(number) for number in range(5)), return_exceptions=True)


async def _fail_inside(given):
    async with given.pool.acquire() as connection, connection.transaction():
        for query in ("SELEC", "SELECT 1 / 0", "SELECT * FROM nowhere", "DELETE FROM notes"):
            with suppress(*EXPECTED):
                await connection.fetch(query)


async def _cancel(given):
    async with asyncio.timeout(0.005):
        await given.pool.fetch(_SLEEP)


async def _cancel_at_once(given):
    for steps in range(5):
        task = asyncio.ensure_future(_nest(given))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])


async def _time_out(given):
    with suppress(*EXPECTED):
        await given.pg.execute(_SLEEP, timeout=0.005)
    async with given.pg.transaction():
        await given.pg.execute("SET LOCAL statement_timeout = 5")
        await given.pg.execute(_SLEEP)


async def _exhaust(given):
    connections = [await given.pool.acquire() for _ in range(200)]
    try:
        await asyncio.gather(*(connection.execute("SELECT 1") for connection in connections[:20]))
    finally:
        for connection in connections:
            await given.pool.release(connection)


async def _cut_cursor(given):
    async with given.pg.transaction():
        async for _ in given.pg.cursor("SELECT generate_series(1, 1000)", prefetch=5):
            break
        cursor = await given.pg.cursor("SELECT generate_series(1, 1000)")
        await cursor.fetch(3)


async def _prepare(given):
    statement = await given.pg.prepare("SELECT text FROM attacked WHERE id = $1")
    await given.pg.execute("ALTER TABLE attacked ALTER text TYPE varchar(5)")
    await statement.fetch(1)


async def _copy(given):
    async def records():
        yield (given.number + 1,)
        raise Outrage

    with suppress(Outrage, *EXPECTED):
        await given.pg.copy_records_to_table("parents", records=records())
    await given.pg.copy_to_table("parents", source=io.BytesIO(b"1\nnonsense\n"))


async def _codec(given):
    await given.pg.set_type_codec("text", schema="pg_catalog", encoder=str, decoder=lambda _: "mine")
    await given.pg.execute(ADD, given.text)


async def _watch(given):
    given.pg.add_log_listener(print)
    given.pg.add_termination_listener(lambda _: None)


async def _violate(given):
    async with given.pool.acquire() as connection, connection.transaction():
        await connection.execute("INSERT INTO children VALUES ($1, $1)", given.number)


async def _kill(given):
    if not given.pg.is_closed():
        await given.kill(given.pg.get_server_pid())


async def _kill_self(given):
    await given.pg.execute("SELECT pg_terminate_backend(pg_backend_pid())")


async def _kill_from_outside(given):
    await given.pg.execute(ADD, given.text)
    await _kill(given)
    await given.pg.execute(ADD, given.text)


async def _kill_mid_statement(given):
    sleeping = asyncio.ensure_future(given.pool.fetch(_SLEEP))
    await asyncio.sleep(0.005)
    await _kill(given)
    await asyncio.wait([sleeping])
    sleeping.exception()


async def _cut_beneath(given):
    given.pg._sandbox.connection.terminate()


async def _cancel_self(given):
    await given.pg.execute("SELECT pg_cancel_backend(pg_backend_pid())")


#: A table that nobody else writes. Who waits for it long gives up, or two of these might wait for each other.
_PATIENCE = "SET LOCAL lock_timeout = '100ms'"

DEEDS: dict[str, Callable] = {
    "commit": _commit,
    "roll back": _roll_back,
    "nest": _nest,
    "overlap": _overlap,
    "gather": _gather,
    "fail": _statements("SELEC", "SELECT 1 / 0", "INSERT INTO notes (text) VALUES ('seed 1')"),
    "fail inside": _fail_inside,
    "cancel": _cancel,
    "cancel at once": _cancel_at_once,
    "time out": _time_out,
    "exhaust the pool": _exhaust,
    "cut a cursor": _cut_cursor,
    "leave a cursor": _transaction("DECLARE own{n} CURSOR WITH HOLD FOR TABLE notes"),
    "prepare and alter": _prepare,
    "prepare by hand": _statements("PREPARE own AS SELECT 1", "DEALLOCATE ALL", "PREPARE own AS SELECT 2"),
    "break a copy": _copy,
    "set a codec": _codec,
    "listen to logs": _watch,
    "violate": _violate,
    "end transactions in texts": _statements(
        "INSERT INTO notes (text) VALUES ('{n}'); COMMIT",
        "COMMIT; DROP TABLE notes",
        "DO $$ BEGIN DELETE FROM notes; COMMIT; END $$",
        "CREATE PROCEDURE end{n}() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$",
        "CALL end{n}()",
        "SELECT 1 AS a$$; COMMIT; SELECT 2 AS b$$",
        "/* /* */ ' */ COMMIT; /* ' */",
    ),
    "two phases": _statements("PREPARE TRANSACTION 'own{n}'", "COMMIT PREPARED 'own{n}'"),
    "alter": _statements(_PATIENCE, "ALTER TABLE notes ADD own{n} int DEFAULT 7", "ALTER TABLE attacked DROP text"),
    "drop": _statements(_PATIENCE, "DROP TABLE attacked CASCADE", "CREATE TABLE attacked (other int)"),
    "truncate": _statements(_PATIENCE, "TRUNCATE attacked, notes CASCADE"),
    "index": _statements(_PATIENCE, "CREATE INDEX ON notes (version)", "REINDEX TABLE notes"),
    "lock": _statements(_PATIENCE, "LOCK TABLE attacked IN ACCESS EXCLUSIVE MODE"),
    "create": _statements(
        "CREATE TABLE own{n} (id serial PRIMARY KEY)",
        "CREATE SCHEMA own{n}",
        "CREATE TYPE own{n}.mood AS ENUM ('glum')",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE VIEW view{n} AS TABLE notes",
        "CREATE EXTENSION IF NOT EXISTS plpgsql",
        "COMMENT ON TABLE parents IS 'mine {n}'",
    ),
    "hide a table": _statements("CREATE TEMP TABLE notes (mine int)", "INSERT INTO notes VALUES (1)"),
    "make roles": _statements(
        "CREATE ROLE adversary{n} SUPERUSER",
        "GRANT ALL ON notes TO adversary{n}",
        "SET ROLE adversary{n}",
        "SET SESSION AUTHORIZATION adversary{n}",
    ),
    "set": _statements(
        "SET search_path TO nowhere",
        "SET TIME ZONE 'Pacific/Apia'",
        "SET DateStyle = 'SQL'",
        "SET default_transaction_read_only = on",
        "SET session_replication_role = replica",
        "SET statement_timeout = 60000",
        "SELECT set_config('own.name', '{n}', false)",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    ),
    "set for the server": _statements(
        _PATIENCE,
        "ALTER SYSTEM SET work_mem = '1MB'",
        "ALTER ROLE CURRENT_USER SET work_mem = '1MB'",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 64', current_database()); END $$",
    ),
    "set local": _transaction("SET LOCAL search_path TO nowhere", "SET CONSTRAINTS ALL IMMEDIATE"),
    "advise": _statements("SELECT pg_advisory_lock({n})", "SELECT pg_advisory_xact_lock(-{n})"),
    "advise inside": _transaction("SELECT pg_advisory_lock_shared({n})", "SELECT 1 / 0"),
    "notify": _statements("NOTIFY channel, '{n}'", "LISTEN channel", "SELECT pg_notify('channel', '{n}')"),
    "maintain": _statements("VACUUM", "CREATE DATABASE own{n}", "CREATE INDEX CONCURRENTLY ON notes (version)"),
    "make a large object": _statements("SELECT lo_create({n})", "SELECT lo_put({n}, 0, 'mine')"),
    "draw numbers": _statements("SELECT nextval('tickets')", "SELECT setval('tickets', 1000)", "SELECT setseed(0.5)"),
    "discard": _statements("DISCARD ALL", "DISCARD PLANS", "DISCARD TEMP", "RESET ALL", "CLOSE ALL", "UNLISTEN *"),
    "take rows": _statements(_PATIENCE, "SELECT * FROM attacked FOR UPDATE", "DELETE FROM attacked"),
    "kill itself": _kill_self,
    "be killed": _kill_from_outside,
    "be killed in mid-statement": _kill_mid_statement,
    "cut the connection": _cut_beneath,
    "cancel itself": _cancel_self,
}  # fmt: skip


async def _fill(given):
    await given.redis.mset({"key": given.number, "counter": given.number, f"own {given.number}": 1})


async def _leave_multi(given):
    await given.redis.execute_command("MULTI")
    await given.redis.execute_command("SET", "key", "queued")


async def _watch_key(given):
    pipeline = given.redis.pipeline()
    await pipeline.watch("key")
    await given.redis.set("key", "changed")
    pipeline.multi()
    pipeline.get("key")
    await pipeline.execute()


async def _subscribe(given):
    subscriber = given.redis.pubsub()
    await subscriber.subscribe(f"channel {given.number}")
    await given.redis.publish(f"channel {given.number}", "word")
    await subscriber.get_message(timeout=0.01)


async def _block(given):
    async with asyncio.timeout(0.005):
        await given.redis.blpop("queue", timeout=60)


async def _block_on(given):
    asyncio.ensure_future(given.redis.blpop("queue", timeout=60)).add_done_callback(lambda task: task.exception())
    await asyncio.sleep(0.005)


async def _script(given):
    await given.redis.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, "key", "scripted")
    digest = await given.redis.script_load("return 1")
    await given.redis.evalsha(digest, 0)
    await given.redis.eval("return redis.call('NONSENSE')", 0)


async def _break_off_a_pipeline(given):
    pipeline = given.redis.pipeline()
    for number in range(1000):
        pipeline.set(f"key {number}", "value" * 100)
    task = asyncio.ensure_future(pipeline.execute())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


async def _kill_client(given):
    await given.redis.client_kill_filter(_id=await given.redis.client_id(), skipme=False)


async def _take_many_clients(given):
    # All are awaited, whichever fails: the others would be left waiting.
    await asyncio.gather(*(given.redis.blpop("queue", timeout=0.01) for _ in range(10)), return_exceptions=True)


def _commands(*commands: str) -> Callable:
    """A deed of commands, each waited for a moment only: some are never answered."""

    async def deed(given: Given) -> None:
        for command in commands:
            with suppress(*EXPECTED):
                async with asyncio.timeout(0.05):
                    await given.redis.execute_command(*command.format(n=given.number).split())

    return deed


DEEDS |= {
    "fill": _fill,
    "flush": _commands("SET key mine", "FLUSHDB", "FLUSHALL", "SET key mine"),
    "select by hand": _commands("SELECT 0", "SWAPDB 0 1", "MOVE key 0", "SET key elsewhere"),
    "leave a MULTI": _leave_multi,
    "watch a key": _watch_key,
    "subscribe": _subscribe,
    "subscribe by hand": _commands("SUBSCRIBE channel{n}", "SET key subscribed"),
    "be blocked": _block,
    "stay blocked": _block_on,
    "script": _script,
    "break off a pipeline": _break_off_a_pipeline,
    "be killed in Redis": _kill_client,
    "take many clients": _take_many_clients,
    "change protocol": _commands("HELLO 3", "SET key three"),
    "name the client": _commands("CLIENT SETNAME mine{n}", "CLIENT NO-TOUCH ON", "CLIENT NO-EVICT ON"),
    "track": _commands("HELLO 3", "CLIENT TRACKING ON", "GET key", "SET key tracked"),
    "be silent": _commands("CLIENT REPLY OFF", "SET key silent", "CLIENT REPLY SKIP"),
    "monitor": _commands("MONITOR", "SET key monitored"),
    "quit": _commands("QUIT", "RESET", "SET key after"),
}


async def _return(given):
    await given.redis.set("left", "over")


async def _raise(given):
    raise Outrage


async def _hang(given):
    await asyncio.Event().wait()


async def _hang_in_a_statement(given):
    await given.pool.fetch(_SLEEP)


async def _hang_in_redis(given):
    await given.redis.blpop("queue", timeout=0)


async def _leave_transaction(given):
    await given.pg.transaction().start()
    await given.pg.execute(ADD, given.text)


async def _leave_connection(given):
    connection = await given.pool.acquire()
    await connection.execute("BEGIN")


async def _leave_violated(given):
    await given.pg.execute("INSERT INTO children VALUES ($1, $1)", given.number + 1)


async def _leave_statement(given):
    task = asyncio.ensure_future(given.pool.fetch(_SLEEP))
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    await asyncio.sleep(0.005)


async def _leave_failed(given):
    await given.pg.execute("BEGIN")
    await given.pg.execute("SELECT 1 / 0")


ENDS: dict[str, Callable] = {
    "return": _return,
    "raise": _raise,
    "hang": _hang,
    "hang in a statement": _hang_in_a_statement,
    "hang in Redis": _hang_in_redis,
    "leave a transaction": _leave_transaction,
    "leave a connection": _leave_connection,
    "leave a constraint violated": _leave_violated,
    "leave a statement": _leave_statement,
    "leave a failed transaction": _leave_failed,
}


def adversaries() -> st.SearchStrategy[Adversary]:
    """Adversaries of up to five deeds."""
    deeds = st.lists(st.sampled_from(sorted(DEEDS)), min_size=1, max_size=5).map(tuple)
    return st.builds(Adversary, deeds, st.sampled_from(sorted(ENDS)))
