"""A logical database for each test: the manual.

Each test leases a logical database of the server and finds it empty; what it leaves is flushed when it ends. ``redis``
is a client of it (bytes in, bytes out, as redis-py's own default), ``redis_url`` its URL for applications that make
their own client; both in one test are the same database.

    async def test_is_cached(redis, redis_url):
        await App(redis_url).get("/users/1")
        assert await redis.exists("user:1")

A database is leased by locking a file of this user, so several runs and workers on one machine share a server. The
lock is held as long as the process lives; between tests the database is kept for the next one. Where all are leased, a
test waits for another to end.

On a server of others (a URL that was given) database 0 is never touched, and neither is one that holds data which was
not left by a run of ours that died. Locks are this machine's: two machines must not share one server.

What it does not isolate
========================

- **Pub/sub channels** cross databases: give each test channels of its own.
- **Scripts and functions, CONFIG, ACL, CLIENT** belong to the whole server.
- **SELECT, MOVE to, SWAPDB, RESET, SHUTDOWN** leave the test's database: the client ``redis`` refuses them, an
  application's own client is not watched. The same goes for **FLUSHALL**, which the client ``redis`` turns into
  FLUSHDB.
- **Keyspace notifications** name the database in their channel, so they are told apart, but everyone can read them.

FAQ
===

"has no logical database left for tests"
    Start the server with more: ``--databases 256``. A server that this kit starts has as many. Or lower
    ``--concurrency``, or end the other runs on that server.

"a test that has ended"
    Something that the test started goes on after it. Await it, or stop it in a fixture's tear-down.

A test gets another one's messages
    They share a channel: see above.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.redis_client import HINT, LeasePool, connection_class
from asynctest_kit.isolation.redis_layout import connected, listener, options_of, read_layout
from asynctest_kit.isolation.redis_locks import Locks
from asynctest_kit.isolation.redis_names import KeyNames, Names
from asynctest_kit.isolation.redis_users import Leftovers, Login, Users
from asynctest_kit.isolation.slots import Slots, SlotsExhausted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asynctest_kit.isolation.redis_layout import Layout, Room
    from asynctest_kit.isolation.redis_names import Commands
    from asynctest_kit.provision.service import Endpoint

__all__ = ["RedisLease", "RedisSlots", "open_slots"]

#: A failure is shown where the code under test called us; our own frames say nothing about it.
__tracebackhide__ = True

#: How long a run that has no database waits for another run to give one back, and how often it looks.
_PATIENCE = 60.0
_LOOK_AGAIN = 0.2


@asynccontextmanager
async def open_slots(endpoint: Endpoint, *, limit: int = 64, patience: float = _PATIENCE) -> AsyncIterator[RedisSlots]:
    """Logical databases of a server, each with a held connection, bound to the running loop.

    Args:
        endpoint: The server; its own database number is not used.
        limit: Most databases at once.
        patience: Seconds that the first one is waited for, where other runs hold all.
    """
    layout = await read_layout(endpoint)
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(connected(node)) for node in layout.nodes]
        slots = RedisSlots(endpoint, layout, nodes, limit=limit, patience=patience)
        await stack.enter_async_context(slots.locks)
        stack.push_async_callback(slots.sweep)
        await stack.enter_async_context(slots.held)
        yield slots


class RedisSlots:
    """Logical databases that this process holds; each lease is one test's."""

    def __init__(
        self, endpoint: Endpoint, layout: Layout, nodes: Sequence[Redis], *, limit: int, patience: float
    ) -> None:
        self._endpoint = endpoint
        self._external = endpoint.provider == "external"
        self._layout = layout
        self._server = nodes[0]
        self._patience = patience
        self._taken: set[str] = set()
        self._foreign: set[str] = set()
        self._users = Users(nodes)
        self.held: Slots[_Database] = Slots(self._take_one, close=self._close, usable=self._is_held, limit=limit)
        self.locks = Locks(listener(layout.nodes[0]), nodes[0], wanted=self.held.spare)

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[RedisLease]:
        """One test's database, flushed at the end.

        Raises:
            IsolationError: At the end, what the test left at work, and what its applications were refused.
        """
        database = await self.held.take()
        lease = RedisLease(database)
        problems: tuple[str, ...] = ()
        clean = False
        try:
            yield lease
        finally:
            try:
                problems = await lease.end()
                clean = True
            finally:
                if clean and self._is_held(database):
                    self.held.give_back(database)
                else:
                    await self._forget(database)
                    self.held.discard()
        if problems:
            raise IsolationError(f"The test is at fault in its Redis database: {'; '.join(problems)}. {HINT}")

    @property
    def shortcoming(self) -> str:
        """What tests don't have on this server, and others have; empty if nothing."""
        if self._users.refusal:
            return (
                f"{self._endpoint.safe_url} makes no users for tests, so nothing keeps an application inside its "
                f"database: {self._users.refusal}."
            )
        return self._layout.shortcoming

    async def sweep(self) -> None:
        """Empty what runs that died have left, and remove their users."""
        with suppress(RedisError, OSError, IsolationError):
            for name in await self._users.marked() & self._layout.rooms.keys():
                database = await self._taken_now(name)
                if database is not None:
                    await self._close(database)

    async def _take_one(self) -> _Database:
        """Hold the first free database, see that it is empty, and a connection to it."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._patience
        while (database := await self._first_free()) is None:
            others = len(self._layout.rooms) - len(self._foreign) - len(self._taken)
            if self._taken or not others or loop.time() >= end:
                raise SlotsExhausted(self._exhausted(others))

            await self.locks.ask()
            await asyncio.sleep(_LOOK_AGAIN)
        return database

    async def _first_free(self) -> _Database | None:
        marked = await self._users.marked()
        names = [name for name in self._layout.rooms if name not in self._taken | self._foreign]
        free = await self.locks.free(names) if names else []
        random.shuffle(free)  # two runs that start at once would meet at each
        for name in sorted(free, key=marked.__contains__, reverse=True):
            if name not in self._taken and (database := await self._taken_now(name)) is not None:
                return database
        return None

    async def _taken_now(self, name: str) -> _Database | None:
        """Hold a database; None if another run was first, or if it holds data of others."""
        self._taken.add(name)
        try:
            if await self.locks.take(name):
                life = self.locks.life
                room = self._layout.rooms[name]
                if not self._external or await self._is_ours(room):
                    return await self._open(room, life)

                self._foreign.add(name)
                await self.locks.leave(name, life)
        except BaseException:
            self._taken.discard(name)
            raise

        self._taken.discard(name)
        return None

    async def _is_ours(self, room: Room) -> bool:
        """Whether it is empty, or what it holds was left by a run of ours."""
        if room.keys or room.name in await self._users.marked():
            return True

        pipeline = self._server.pipeline(transaction=False)
        pipeline.execute_command("SELECT", room.database)
        pipeline.execute_command("DBSIZE")
        _, size = await pipeline.execute()
        return not size

    async def _open(self, room: Room, life: int) -> _Database:
        logins = await self._users.make(room)
        database = _Database(room, self._layout.commands, self._users, logins, life)
        try:
            await database.flush()
        except BaseException:
            await self.locks.leave(room.name, life)
            raise

        return database

    def _is_held(self, database: _Database) -> bool:
        return database.life == self.locks.life

    async def _close(self, database: _Database) -> None:
        """Let go of an empty database, unless it isn't held any more or the server is gone."""
        if self._is_held(database):
            with suppress(RedisError, OSError):
                await self._users.drop(database.room)
        await self._forget(database)

    async def _forget(self, database: _Database) -> None:
        """Let go of a database; its users, if they are still there, say that what it holds is ours."""
        self._taken.discard(database.room.name)
        await database.connection.disconnect(nowait=True)
        with suppress(RedisError, OSError, IsolationError):
            await self.locks.leave(database.room.name, database.life)

    def _exhausted(self, others: int) -> str:
        foreign = f", {len(self._foreign)} hold data that isn't ours" if self._foreign else ""
        never = ", and 0 is never used on a server that was given by URL" if self._external else ""
        return (
            f"{self._endpoint.safe_url} has no logical database left for tests: {others} are leased by other runs"
            f"{foreign}{never}. Start the server with more (--databases 256), lower --concurrency, or end the other "
            "runs."
        )


class RedisLease:
    """One test's database: its URL, and a client for it.

    Attributes:
        leftovers: When it has ended, what was left of its URL's clients.
    """

    def __init__(self, database: _Database) -> None:
        self._database = database
        self._pool = database.pool()
        self._client: Redis | None = None
        self._shown = False
        self.leftovers = Leftovers()

    @property
    def url(self) -> str:
        """Where an application's own client finds the database, password included."""
        self._shown = True
        return self._database.endpoint.url

    @property
    def prefix(self) -> str:
        """How the channels begin that an application's own client may use; without databases, its keys, too."""
        return self._database.room.channels

    @property
    def client(self) -> Redis:
        """A client that is good until the test ends; no need to close it."""
        if self._client is None:
            self._client = Redis(connection_pool=self._pool)
        return self._client

    async def end(self) -> tuple[str, ...]:
        """Flush, unless nobody can have written; close what the test left open.

        Returns:
            What the test is to be charged with.
        """
        problems = self._pool.at_work
        await self._pool.end()
        if self._shown:
            self.leftovers = await self._database.shut_out()
            problems += tuple(f"its application left {what}" for what in self.leftovers.at_work)
            problems += tuple(f"its application was refused {what}" for what in self.leftovers.refused)
        if (self._shown or self._pool.is_used) and not await self._database.flush(self._pool):
            problems += ("it left a MULTI open",)
        return problems


class _Database:
    """A logical database that this process holds, with a connection to it that outlives each lease."""

    def __init__(
        self, room: Room, commands: Commands | None, users: Users, logins: tuple[Login, Login] | None, life: int
    ) -> None:
        own = Login(room.place.username, room.place.password)
        client, url = logins or (own, own)
        self.room = room
        self.life = life
        self.endpoint = _as(room, url)
        self._has_users = logins is not None
        self._users = users
        self._names = KeyNames(room.keys, commands) if commands else Names(room.channels)
        self._options = options_of(_as(room, client))
        self._class = connection_class(room.place)
        self.connection: Any = self.make_connection()
        self._flushing = b"".join(self.connection.pack_command("FLUSHDB"))

    def make_connection(self) -> Any:
        connection = self._class(**self._options)
        connection.names = self._names
        return connection

    def pool(self) -> LeasePool:
        """The connections of the next lease."""
        return LeasePool(self.connection, self.make_connection, self._options)

    async def shut_out(self) -> Leftovers:
        """End what clients of its URL have open, and give it another password."""
        if not self._has_users:
            return Leftovers()

        login, leftovers = await self._users.shut_out(self.room)
        self.endpoint = _as(self.room, login)
        return leftovers

    async def flush(self, pool: LeasePool | None = None) -> bool:
        """Empty it: one round trip on the held connection, or a new one where that is gone.

        Returns:
            Whether the connection was as it should be, not inside a MULTI.
        """
        if pool is not None and pool.is_broken:
            self.connection = self.make_connection()
        try:
            answer = await self._flush()
        except (RedisError, OSError):
            answer = b"closed"
        if answer in {b"OK", "OK"}:
            self.connection.tells_names = False
            return True

        await self.connection.disconnect(nowait=True)
        self.connection = self.make_connection()
        await self._flush()
        return answer not in {b"QUEUED", "QUEUED"}

    async def _flush(self) -> Any:
        await self.connection.send_packed_command(self._flushing, check_health=False)
        return await self.connection.read_response()


def _as(room: Room, login: Login) -> Endpoint:
    return msgspec.structs.replace(
        room.place, username=login.username, password=login.password, database=str(room.database)
    )
