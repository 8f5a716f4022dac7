"""Who waits for whose locks: what the watch finds out on a real server."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import msgspec
import pytest

from asynctest_kit.isolation.connection import SandboxConnection
from asynctest_kit.isolation.lock_waits import LockWatch, watched
from asynctest_kit.isolation.postgres import connect, open_slots

UNIQUE = "the unique key notes_text_key of notes, text ="

pytestmark = pytest.mark.anyio


class Told:
    """What a watch has told last, and whoever waits for something of it."""

    def __init__(self):
        self.waits = ()
        self.problems = []
        self._changed = asyncio.Event()

    def tell(self, waits):
        self.waits = tuple(waits)
        self._changed.set()

    async def until(self, holds):
        while not holds(self.waits):
            self._changed.clear()
            await self._changed.wait()
        return self.waits


@pytest.fixture
async def seeded(database):
    connection = await connect(database)
    await connection.execute("INSERT INTO notes (text) VALUES ('seed')")
    await connection.close()
    return database


@asynccontextmanager
async def watching(endpoint, told):
    async with open_slots(endpoint, limit=8) as slots:
        watch = LockWatch(endpoint, others=dict, tell=told.tell, fail=told.problems.append)
        with watch.watching(slots.leases):
            async with watched(watch):
                yield slots


async def lease(stack, slots, owner):
    sandbox = await stack.enter_async_context(slots.lease())
    slots.leases[sandbox] = owner
    return SandboxConnection(sandbox, commits=False)


async def wait_between(endpoint, before, *statement):
    """What is told when the second test's statement waits for what the first has done."""
    told = Told()
    async with watching(endpoint, told) as slots, AsyncExitStack() as stack:
        holder, waiter = await lease(stack, slots, "a::one"), await lease(stack, slots, "b::two")
        await holder.execute(before)
        waiting = asyncio.create_task(waiter.execute(*statement))
        (found,) = await told.until(len)
        await holder.execute("ROLLBACK") if holder.is_in_transaction() else None
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert told.waits == ()
    assert not told.problems
    return found


async def test_a_row_is_named_by_its_primary_key(seeded):
    update = "UPDATE notes SET text = 'other' WHERE text = 'seed'"
    found = await wait_between(seeded, update, update)
    assert (found.waiter.name, found.holder.name) == ("b::two", "a::one")
    assert found.what == "the row of notes with id = 1"
    assert found.holder.statement == found.waiter.statement == update
    assert found.waiter.is_test
    assert found.holder.is_test
    assert found.seconds > 0


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        (("INSERT INTO notes (text) VALUES ('it''s, one')",), f"{UNIQUE} 'it''s, one'"),
        (("INSERT INTO notes (text) VALUES ($1)", "it's, one"), f'{UNIQUE} "it\'s, one"'),
        (("INSERT INTO notes SELECT 9, $1", "it's, one"), "a unique key of notes"),
    ],
)
async def test_a_unique_key_is_named_with_its_value(database, statement, what):
    found = await wait_between(database, "INSERT INTO notes (text) VALUES ('it''s, one')", *statement)
    assert found.what == what


async def test_a_table_and_an_advisory_lock_are_named(database):
    found = await wait_between(database, "ALTER TABLE notes ADD COLUMN more int", "SELECT count(*) FROM notes")
    assert found.what == "the table notes (AccessShareLock)"
    found = await wait_between(database, "SELECT pg_advisory_xact_lock(-7)", "SELECT pg_advisory_xact_lock(-7)")
    assert found.what == "the advisory lock -7"
    found = await wait_between(database, "SELECT pg_advisory_xact_lock(1, 2)", "SELECT pg_advisory_xact_lock(1, 2)")
    assert found.what == "the advisory lock (1, 2)"


async def test_who_is_no_test_is_described(seeded):
    told = Told()
    other = await asyncpg.connect(seeded.url, server_settings={"application_name": "the app"})
    async with watching(seeded, told) as slots, AsyncExitStack() as stack:
        waiter = await lease(stack, slots, "b::two")
        outer = other.transaction()
        await outer.start()
        await other.execute("DELETE FROM notes")
        waiting = asyncio.create_task(waiter.execute("DELETE FROM notes"))
        (found,) = await told.until(len)
        await outer.rollback()
        await waiting
    await other.close()
    assert not found.holder.is_test
    assert found.holder.name.startswith('a session that is no test\'s (application "the app", process ')
    assert "idle in transaction for " in found.holder.name
    assert found.holder.statement == "DELETE FROM notes"


async def test_what_is_not_a_wait_is_not_told(database):
    """A slow statement is asked about, and holds nobody up."""
    told = Told()
    async with watching(database, told) as slots, AsyncExitStack() as stack:
        one = await lease(stack, slots, "a::one")
        await one.execute("SELECT pg_sleep(0.8)")
    assert told.waits == ()


async def test_many_waiters_are_all_told(seeded):
    told = Told()
    async with watching(seeded, told) as slots, AsyncExitStack() as stack:
        holder = await lease(stack, slots, "a::holder")
        await holder.execute("LOCK TABLE notes")
        waiters = [await lease(stack, slots, f"b::{number}") for number in range(6)]
        waiting = [asyncio.create_task(one.fetchval("SELECT count(*) FROM notes")) for one in waiters]
        found = await told.until(lambda waits: len({one.waiter.name for one in waits}) == len(waiters))
        assert {one.holder.name for one in found} == {"a::holder"}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_watch_whose_connection_is_cut_goes_on(seeded):
    told = Told()
    async with watching(seeded, told) as slots, AsyncExitStack() as stack:
        holder, waiter = await lease(stack, slots, "a::one"), await lease(stack, slots, "b::two")
        await holder.execute("DELETE FROM notes")
        waiting = asyncio.create_task(waiter.execute("DELETE FROM notes"))
        await told.until(len)
        await holder.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'atk lock watch'"
        )
        told.tell(())
        await told.until(len)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert not told.problems


async def test_a_server_that_can_not_be_asked_is_told_once(database):
    nowhere, told = msgspec.structs.replace(database, port=1, socket=None), Told()
    watch = LockWatch(nowhere, others=lambda: {1: "a::one"}, tell=told.tell, fail=told.problems.append)
    await watch.run()  # it gives up by itself
    (problem,) = told.problems
    assert problem.startswith(f"{nowhere.safe_url} can't be asked who waits for whom: ")


async def test_a_tests_own_connection_is_a_party_too(seeded):
    told = Told()
    own = await asyncpg.connect(seeded.url)
    watch = LockWatch(
        seeded, others=lambda: {own.get_server_pid(): "b::own"}, tell=told.tell, fail=told.problems.append
    )
    async with open_slots(seeded, limit=2) as slots, AsyncExitStack() as stack:
        stack.enter_context(watch.watching(slots.leases))
        await stack.enter_async_context(watched(watch))
        holder = await lease(stack, slots, "a::one")
        await holder.execute("DELETE FROM notes")
        waiting = asyncio.create_task(own.execute("DELETE FROM notes"))
        (found,) = await told.until(len)
        own.terminate()
        await asyncio.gather(waiting, return_exceptions=True)
    assert (found.waiter.name, found.holder.name) == ("b::own", "a::one")
    assert (found.waiter.is_test, found.what) == (True, "the row of notes with id = 1")
