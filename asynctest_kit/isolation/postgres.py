"""A transaction for each test: the manual.

Each test leases a held connection. The first statement opens a transaction, and when the test ends it is rolled back,
so tests that run at once on one migrated database see only their own rows. ``pg`` is that connection, ``pg_pool`` a
pool for the code under test, ``pg_engine`` SQLAlchemy's engine for it; all share the one transaction, so the test sees
what the code wrote.

    async def test_order_is_stored(pg, pg_pool):
        await place_order(pg_pool, sku="A-1")
        assert await pg.fetchval("SELECT count(*) FROM orders") == 1

Code under test may acquire connections, run statements, begin, commit, roll back and nest. A COMMIT keeps its work for
the rest of the test, a ROLLBACK drops it, a failed statement outside a transaction harms nothing else. Deferred
constraints are checked where code commits, and for ``pg``'s own statements at the end of the test.

What it does not isolate
========================

- **Sequences** don't roll back: don't expect ``id == 1``, compare with what the INSERT returned.
- **now()** is frozen at the test's first statement: two transactions of one test get the same time;
  ``clock_timestamp()`` goes on.
- **LISTEN** is refused and **NOTIFY** goes nowhere: notifications are sent on COMMIT. A test that fails says so.
- **VACUUM, CREATE INDEX CONCURRENTLY, REINDEX CONCURRENTLY, DISCARD ALL** are refused: they can't run inside a
  transaction. So are **CREATE DATABASE, TABLESPACE, SUBSCRIPTION and ALTER SYSTEM**, which are the whole server's.
- **Two-phase commit**, and making later transactions read-only, are refused.
- **Session advisory locks** are seen by other tests, and freed at the test's end. **Roles** are rolled back, so nobody
  can log in as one.
- **SET LOCAL** holds until the test's end, not until the code's COMMIT.
- **DDL** is rolled back too, but blocks other tests on the same table until then.

For these there is ``@pytest.mark.atk(isolation="database")``, a clone of the migrated database for one test, and
``isolation="server"``; a refusal says which.

FAQ
===

"Two transactions at once in one test"
    Two connections had a transaction open at the same time: ``asyncio.gather`` over two calls, or a call inside another
    one's transaction that acquires a connection of its own. They can't be independent inside one transaction, and if
    one waited the two might wait for each other. Use ``isolation="database"``. Sessions of SQLAlchemy that only read
    are no transactions: commit or close those that write.

My test hangs, or is slow, only beside others
    Two tests write the same unique key: the second waits until the first has ended. The report names both, under "lock
    waits". Give each test keys of its own, for example ``f"user-{uuid4()}@example.com"``.

"deadlock detected"
    Two tests write the same two rows in different order. The victim is run again, alone. Use rows of the test's own, as
    above.

"it left a deferred constraint violated"
    A COMMIT would have failed: the test, or code under test, wrote a row whose partner never came.

"it ended while a statement was running", "it left a transaction open"
    Something that the test started goes on after it. Await it, or stop it in a fixture's tear-down.

My JSON columns come as text
    The application sets codecs in its pool's ``init``. Override the fixture ``pg_init`` to return that function.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import asyncpg

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.codecs import HeldConnection
from asynctest_kit.isolation.functions import FUNCTIONS, effects_of
from asynctest_kit.isolation.room import Room
from asynctest_kit.isolation.sandbox import Sandbox, Schema
from asynctest_kit.isolation.slots import Slots

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from asynctest_kit.provision.service import Endpoint

__all__ = [
    "PostgresSlots",
    "close",
    "connect",
    "connect_arguments",
    "counted_with",
    "is_open",
    "open_slots",
]

#: A failure is shown where the code under test called us; our own frames say nothing about it.
__tracebackhide__ = True

_CONNECT_SECONDS = 10.0
_NO_SCHEMA = Schema()

_END_BACKEND = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND datname = current_database()
"""

#: One row of :class:`Schema`, but for the effects.
#: Left out of ``deferred``: a constraint whose namesake could not be deferred with it.
_SCHEMA = """
    SELECT
        ARRAY(
            SELECT format('%I.%I', nspname, conname)
            FROM pg_constraint JOIN pg_namespace ON pg_namespace.oid = connamespace
            GROUP BY nspname, conname HAVING bool_or(condeferred) AND bool_and(condeferrable)
            ORDER BY 1
        ),
        EXISTS (SELECT FROM pg_constraint WHERE condeferrable),
        EXISTS (
            SELECT FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
            WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND prosrc LIKE '%advisory%'
        )
"""


async def connect(
    endpoint: Endpoint,
    *,
    database: str | None = None,
    name: str = "atk",
    connection_class: type[asyncpg.Connection] = asyncpg.Connection,
) -> Any:
    """Connect to an endpoint's database, or to another one of its server, as the application ``name``."""
    return await asyncpg.connect(
        **connect_arguments(endpoint),
        database=database or endpoint.database,
        timeout=_CONNECT_SECONDS,
        server_settings={"application_name": name},
        connection_class=connection_class,
    )


def connect_arguments(endpoint: Endpoint) -> dict[str, Any]:
    """As what and where to connect, for asyncpg: by the unix socket if there is one."""
    socket = Path(endpoint.socket) if endpoint.socket else None
    return {
        "host": str(socket.parent) if socket else endpoint.host,
        "port": int(socket.suffix[1:]) if socket else endpoint.port,
        "user": endpoint.username,
        "password": endpoint.password,
        # A server of ours is on this machine and speaks no TLS: asking costs a round trip.
        "ssl": None if endpoint.provider == "external" else False,
    }


def counted_with(endpoint: Endpoint) -> tuple[object, ...]:
    """What tells whose connections a server counts together."""
    return endpoint.host, endpoint.port, endpoint.username


@asynccontextmanager
async def open_slots(
    endpoint: Endpoint,
    *,
    limit: int = 64,
    init: Callable[[asyncpg.Connection], Awaitable[object]] | None = None,
    room: Room | None = None,
    is_shared: bool = False,
) -> AsyncIterator[PostgresSlots]:
    """Held connections to a migrated database, bound to the running loop.

    Args:
        endpoint: The database.
        limit: Most connections at once.
        init: Called once with each new connection, as ``init`` of :func:`asyncpg.create_pool`.
        room: The room on its server; none if nobody else wants any.
        is_shared: Whether tests have connections to other databases there, too. One that holds a connection of the one
            may wait for one of the other, so each has one from the start, and is given it by the others where the
            server has no more.
    """
    slots = PostgresSlots(endpoint, limit=limit, init=init, room=room)
    async with slots.held:
        slots.room.slots.add(slots.held)
        try:
            if is_shared:
                await slots.held.prepare()
            yield slots
        finally:
            slots.room.slots.discard(slots.held)


class PostgresSlots:
    """Connections that are held between tests; each lease is one test's sandbox.

    Attributes:
        endpoint: The database.
        room: The room on its server.
        leases: Whose the sandboxes are, as far as those who lease them tell: node ids.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        limit: int,
        init: Callable[[asyncpg.Connection], Awaitable[object]] | None,
        room: Room | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.room = Room() if room is None else room
        self.leases: dict[Sandbox, str] = {}
        self._init = init
        self._schema: Schema | None = None
        self._pids: WeakKeyDictionary[asyncpg.Connection, int] = WeakKeyDictionary()  # also of those that are closed
        self.held: Slots[Any] = Slots(self._connect, close=close, usable=is_open, limit=limit)

    def lease(self) -> AbstractAsyncContextManager[Sandbox]:
        """One test's transaction, rolled back at the end.

        Raises:
            IsolationError: At the end, what the test left behind: a violated constraint, an open transaction.
        """
        return _Lease(self)

    async def take(self) -> Sandbox:
        """A transaction that must be given back."""
        connection = await self.held.take()
        return Sandbox(connection, reconnect=self._connect, schema=self._schema or _NO_SCHEMA)

    async def give_back(self, sandbox: Sandbox) -> tuple[str, ...]:
        """Roll back, and keep the connection for the next; the test's faults are returned."""
        ended = False
        try:
            problems = await sandbox.end()
            ended = True
        finally:
            if ended and sandbox.reusable:
                self.held.give_back(sandbox.connection)
            else:
                self._discard(sandbox.connection, is_idle=ended and not sandbox.busy)
        return problems

    def _discard(self, connection: asyncpg.Connection, *, is_idle: bool) -> None:
        is_known = is_idle and not connection.is_closed()
        connection.terminate()
        self.held.discard(None if is_known else self._end_backend(self._pids[connection]))

    async def _end_backend(self, pid: int) -> None:
        """The server goes on with a statement whose client has gone, and its locks would keep other tests waiting."""
        with suppress(asyncpg.PostgresError, OSError, TimeoutError):
            connection = await connect(self.endpoint)
            try:
                await connection.execute(_END_BACKEND, pid)
            finally:
                connection.terminate()

    async def _connect(self) -> HeldConnection:
        open_one = partial(connect, self.endpoint, connection_class=HeldConnection)
        connection: HeldConnection = await self.room.connect_held(open_one, self.held, self.endpoint.safe_url)

        self._pids[connection] = connection.get_server_pid()
        try:
            if self._schema is None:
                deferred, deferrable, locks = await connection.fetchrow(_SCHEMA)
                effects = effects_of(await connection.fetch(FUNCTIONS))
                self._schema = Schema(tuple(deferred), deferrable, locks, effects)
            if self._init is not None:
                await self._init(connection)
            connection.share()
        except BaseException:
            connection.terminate()
            raise

        return connection


class _Lease:
    """A generator would cost as much as the rest of a lease."""

    __slots__ = ("_sandbox", "_slots")

    def __init__(self, slots: PostgresSlots) -> None:
        self._slots = slots

    async def __aenter__(self) -> Sandbox:
        self._sandbox = await self._slots.take()
        return self._sandbox

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        problems = await self._slots.give_back(self._sandbox)
        if problems and kind is None:
            raise IsolationError(f"The test is at fault in its database: {'; '.join(problems)}")


async def close(connection: asyncpg.Connection) -> None:
    """Close one that is held."""
    await connection.close(timeout=2)


def is_open(connection: asyncpg.Connection) -> bool:
    """Whether it may be used."""
    return not connection.is_closed()
