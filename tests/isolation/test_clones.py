"""Databases of single tests: made before they are asked for, never too many, dropped behind the tests' backs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from asynctest_kit.errors import IsolationError, MigrationError
from asynctest_kit.isolation.clones import Clones
from asynctest_kit.isolation.postgres import connect
from asynctest_kit.isolation.templates import Template, ensure_template, open_run_database
from asynctest_kit.provision.service import Endpoint

pytestmark = pytest.mark.anyio

NOWHERE = Endpoint(
    service="postgres", kind="postgres", provider="embedded", scheme="postgresql", host="127.0.0.1", port=1, detail=""
)


class Log:
    """What was measured so far; others wait for it."""

    def __init__(self):
        self.seen = {"clone": 0, "drop": 0}
        self._changed = asyncio.Event()

    def __call__(self, what, start, end):
        assert start < end
        self.seen[what] += 1
        self._changed.set()

    async def until(self, **wanted):
        async with asyncio.timeout(60):
            while any(self.seen[what] < count for what, count in wanted.items()):
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
async def template(server, migrations):
    return await ensure_template(server, migrations, root=Path("/"))


@pytest.fixture
async def admin(server):
    connection = await connect(server)
    yield connection
    await connection.close()


async def names(admin, clones):
    return await admin.fetchval(
        "SELECT array_agg(datname ORDER BY datname) FROM pg_database WHERE starts_with(datname, $1)", clones._name
    )


async def sessions(admin, clones):
    return await admin.fetch("SELECT pid, datname FROM pg_stat_activity WHERE application_name = $1", clones._name)


class Timed(Clones):
    """Clones on no server: each takes so many seconds of a clock that goes on from lease to lease only."""

    def __init__(self, cost, expected):
        super().__init__(Template(NOWHERE, "template"), expected=expected, clock=self.now)
        self.cost = cost
        self.time = self.making = 0.0
        self.stock = 0

    def now(self):
        making, self.making = self.making, 0.0
        return self.time + making

    async def _trying(self, operation):
        if operation != self._clone:
            return ()
        self.making = self.cost
        self._made += 1
        self.stock += 1
        return f"{self._name}_{self._made}"

    async def _warm(self, name):
        pass

    async def leased(self, count, *, every):
        for _ in range(count):
            self.time += every
            async with self.lease():
                self.stock -= 1

    async def settled(self, stock):
        """When so many are in stock, and not one more is wanted."""
        async with asyncio.timeout(60):
            while self.stock < stock or self._slots.making:  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.001)
        self._slots.grow()
        assert (self.stock, self._slots.making) == (stock, 0)


@pytest.mark.parametrize(
    ("cost", "every", "stock"), [(0.1, 10.0, 2), (0.1, 0.05, 4), (0.02, 0.05, 2), (0.3, 0.05, 8), (9.0, 0.01, 8)]
)
async def test_in_stock_is_what_is_asked_for_while_one_is_made_and_one_more(cost, every, stock):
    async with Timed(cost, expected=1000) as clones:
        await clones.settled(8)  # nothing is known yet
        await clones.leased(20, every=every)
        await clones.settled(stock)


async def test_the_stock_follows_what_was_measured_last():
    async with Timed(0.1, expected=1000) as clones:
        await clones.settled(8)
        await clones.leased(20, every=1.0)
        await clones.settled(2)
        await clones.leased(30, every=0.025)
        await clones.settled(6)
        clones.cost = 0.01
        await clones.leased(30, every=0.025)
        await clones.settled(2)


async def test_in_stock_are_never_more_than_tests_are_to_come():
    async with Timed(9.0, expected=5) as clones:
        await clones.settled(5)
        await clones.leased(3, every=0.01)
        await clones.settled(2)
        await clones.leased(2, every=0.01)
        await clones.settled(0)
        assert clones._made == 5
        await clones.leased(1, every=0.01)  # one that nobody knew of has its own
        await clones.settled(0)
        assert clones._made == 6


async def test_they_are_ready_before_they_are_asked_for(template, admin):
    log = Log()
    async with Clones(template, expected=2, measured=log) as clones:
        await log.until(clone=2)
        ready = await names(admin, clones)
        assert len(ready) == 2
        async with clones.lease() as first, clones.lease() as second:
            assert sorted([first.database, second.database]) == ready
            for endpoint in (first, second):
                connection = await connect(endpoint)
                await connection.execute("INSERT INTO notes (text) VALUES ('same')")
                await connection.close()
        await log.until(drop=2)
        assert log.seen["clone"] == 2, "more than there were tests"
        assert await names(admin, clones) is None


async def test_nothing_is_made_for_nobody(template, admin):
    async with Clones(template) as clones:
        assert not clones._sessions.size
        async with clones.lease() as endpoint:
            assert await names(admin, clones) == [endpoint.database]
    assert await names(admin, clones) is None


async def test_many_at_once_are_apart(template, admin):
    async with Clones(template, expected=20) as clones:
        together = asyncio.Barrier(20)

        async def one():
            async with clones.lease() as endpoint:
                await together.wait()
                return endpoint.database

        found = await asyncio.gather(*(one() for _ in range(20)))
        assert len(set(found)) == 20
    assert await names(admin, clones) is None


async def test_one_that_is_cancelled_while_it_waits_leaves_its_clone_to_the_next(template):
    log = Log()
    async with Clones(template, measured=log) as clones:

        async def lease():
            async with clones.lease() as endpoint:
                return endpoint.database

        first, second = asyncio.create_task(lease()), asyncio.create_task(lease())
        await asyncio.sleep(0)
        first.cancel()
        assert await second
        with pytest.raises(asyncio.CancelledError):
            await first
        assert log.seen["clone"] <= 2


async def test_no_session_is_in_the_template(template, admin):
    log = Log()
    async with Clones(template, expected=3, measured=log) as clones:
        await log.until(clone=1)
        databases = {row["datname"] for row in await sessions(admin, clones)}
        assert template.server.database in databases
        assert template.name not in databases


async def test_tests_may_end_the_sessions(template, admin):
    log = Log()
    async with Clones(template, expected=1, measured=log) as clones:
        await log.until(clone=1)
        for pid, _ in await sessions(admin, clones):
            await admin.execute("SELECT pg_terminate_backend($1)", pid)
        async with clones.lease() as one, clones.lease() as other:
            assert {one.database, other.database} <= set(await names(admin, clones))
        await log.until(clone=2, drop=2)
    assert await names(admin, clones) is None


async def test_one_that_stays_is_told_at_the_end(template, admin):
    with pytest.raises(IsolationError, match=r"_1 \(cannot drop a template database\)") as raised:
        async with Clones(template) as clones:
            async with clones.lease() as endpoint:
                await admin.execute(f'ALTER DATABASE "{endpoint.database}" IS_TEMPLATE true')
            async with clones.lease():
                pass
    assert template.server.safe_url in str(raised.value)
    assert await names(admin, clones) == [endpoint.database], "the other one is dropped"
    await admin.execute(f'ALTER DATABASE "{endpoint.database}" IS_TEMPLATE false')
    await admin.execute(f'DROP DATABASE "{endpoint.database}"')


async def test_a_run_that_was_killed_leaves_them_to_the_next_which_leaves_those_in_use(template, admin):
    log = Log()
    dead = Clones(template)
    await admin.execute(f'CREATE DATABASE "{dead._name}_1"')
    async with Clones(template, expected=2, measured=log) as alive:
        await log.until(clone=2)
        async with open_run_database(template):
            while await names(admin, dead) is not None:  # noqa: ASYNC110 (behind the run's back)
                await asyncio.sleep(0.05)
            assert len(await names(admin, alive)) == 2


async def test_who_may_make_none_is_told_so(template, admin):
    await admin.execute("CREATE ROLE no_maker LOGIN PASSWORD 'word'")
    try:
        server = msgspec.structs.replace(template.server, username="no_maker", password="word")
        async with Clones(replace(template, server=server), expected=1) as clones:
            with pytest.raises(MigrationError, match='ALTER ROLE "no_maker" CREATEDB'):
                async with clones.lease():
                    pass
    finally:
        await admin.execute("DROP ROLE no_maker")


async def test_a_transaction_that_was_left_prepared_is_rolled_back_and_told(two_phased, migrations):
    """No force drops a database that has one."""
    told = []
    template = await ensure_template(two_phased, migrations, root=Path("/"))
    async with Clones(template, told=lambda *words: told.append(words)) as clones:
        async with clones.lease("test_it"):
            pass
        async with clones.lease("test_them") as endpoint:
            connection = await connect(endpoint)
            await connection.execute("BEGIN; INSERT INTO parents VALUES (1); PREPARE TRANSACTION 'it''s left'")
            await connection.close()
    ((owner, text),) = told
    assert owner == "test_them"
    assert text.startswith("left prepared transactions in its own database (it's left), which were rolled back")
    admin = await connect(two_phased)
    assert await names(admin, clones) is None
    await admin.close()
