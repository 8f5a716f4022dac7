"""A logical database for each test: the manual.

Each test leases a logical database of the server and finds it empty; what it leaves is flushed when it ends. ``redis``
is a client of it (bytes in, bytes out, as redis-py's own default), ``redis_url`` its URL for applications that make
their own client; both in one test are the same database.

    async def test_is_cached(redis, redis_url):
        await App(redis_url).get("/users/1")
        assert await redis.exists("user:1")

Tests log in as users that were made for their database: they have all commands and keys, but none that reaches beyond
it. The one in ``redis_url`` has another password for each test, so an application that outlives its test is out.

What is leased is told by the server itself, by subscriptions (``PUBSUB CHANNELS atk:lock:*``). So runs, workers and
users of several machines may share one, and a run that is killed holds nothing any more: the next one empties what it
left and removes its users. Where all databases are leased a test waits for another to end, and a run that has none
asks the others for one and waits a minute.

On a server of others (a URL that was given) database 0 is never touched, and neither is one that holds data which was
not left by a run of ours. The user of the URL needs all commands (ACL SETUSER and CLIENT KILL among them), and the
channels ``atk:*``. If the server makes no users, tests log in as the given one, and nothing keeps an application inside
its database.

A command of ``redis`` that the test gave up (a time-out, a task that it left) may still be on its way when the test
ends. The server ends its connection before the database is flushed.

Channels
========

Pub/sub channels cross databases, so each lease has its own. The client ``redis`` puts ``redis_prefix`` before each on
its way and takes it off what comes back: tests stay as they are. Nobody stands between an application's own client and
the server: what it publishes or subscribes to must begin with ``redis_prefix``, else the server refuses it, and the
test is charged. Of patterns it may subscribe to ``redis_prefix`` with a ``*``. ``__keyspace@3__:...`` and
``__keyevent@3__:...`` name their database and stay as they are.

Servers without databases
=========================

A Redis Cluster, or a server of others with ``databases 1``, has none to lease. There keys have the prefix, too:
``redis`` adds it and takes it off, an application's own client must add it. All keys of a test are in one slot of a
Cluster, so commands with several keys work, and what would fail in production for keys in several slots doesn't here.
``redis`` turns FLUSHDB, FLUSHALL, DBSIZE, RANDOMKEY, KEYS and SCAN into what
concerns the test's keys; an application's FLUSHDB is refused, its KEYS, SCAN, RANDOMKEY and DBSIZE see all keys.

What it does not isolate
========================

- **CONFIG SET, SHUTDOWN, DEBUG, ACL, REPLICAOF, MONITOR, CLIENT KILL and PAUSE, SCRIPT and FUNCTION FLUSH, SWAPDB,
  MOVE, SELECT of another database** are refused, and **FLUSHALL** too, which the client ``redis`` turns into FLUSHDB.
- **Database 0** can be read and written by a client that selects none, and **COPY ... DB** reaches any database: Redis
  can't refuse that, Valkey 9.1 does. The client ``redis`` refuses it. Of an application, keys that come to database 0
  are told; a copy into another test's database is not seen.
- **Scripts** are the whole server's, which harms nobody; **functions** too: two tests that load different ones of one
  name get each other's.
- **PUBLISH in a script** has no prefix put before it.
- **CONFIG GET, INFO, CLIENT LIST, SLOWLOG** tell of the whole server.

With ``@pytest.mark.atk(isolation="server")`` a test has a server of its own, on which all of it works.

FAQ
===

"has no logical database left for tests"
    Start the server with more: ``--databases 256``. A server that this kit starts has as many. Or lower
    ``--concurrency``, or end the other runs on that server.

"a test that has ended"
    Something that the test started goes on after it. Await it, or stop it in a fixture's tear-down.

"its application was refused", "has no permissions to"
    It asked for what isn't its own database's: see above. For a channel, have it put ``redis_prefix`` first.

"its application left a connection waiting", "it ended while BLPOP was waiting"
    A worker goes on after the test. Stop it in the test or in the tear-down of the fixture that started it.

"it left a MULTI open"
    A transaction was begun by hand and neither executed nor discarded.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.redis_client import HINT, LeasePool, client_like, connection_class
from asynctest_kit.isolation.redis_layout import connected, listener, options_of, read_layout
from asynctest_kit.isolation.redis_locks import Locks
from asynctest_kit.isolation.redis_names import KeyNames, Names
from asynctest_kit.isolation.redis_users import Leftovers, Login, Users
from asynctest_kit.isolation.slots import Slots, SlotsExhausted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from asynctest_kit.isolation.redis_layout import Layout, Room
    from asynctest_kit.isolation.redis_names import Commands
    from asynctest_kit.provision.service import Endpoint

__all__ = ["RedisLease", "RedisSlots", "open_slots"]

#: A failure is shown where the code under test called us; our own frames say nothing about it.
__tracebackhide__ = True

_END_IT = "end it in the tear-down of the fixture that started it"

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
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(connected(endpoint))
        layout = await read_layout(endpoint, server)
        nodes = [
            server if node == endpoint else await stack.enter_async_context(connected(node)) for node in layout.nodes
        ]
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
        #: Of those, the ones into which a connection that nobody can end may still write.
        self._lost: set[str] = set()
        self._foreign: set[str] = set()
        self._free: list[str] = []
        self._left: set[str] = set()
        self._users = Users(nodes)
        self._strays = _Strays(layout.strays, has_others=self._external)
        self.held: Slots[_Database] = Slots(self._take_one, close=self._close, usable=self._is_held, limit=limit)
        self.locks = Locks(listener(layout.nodes[0]), nodes[0], wanted=self.held.spare)

    @asynccontextmanager
    async def lease(self, owner: str = "") -> AsyncIterator[RedisLease]:
        """One test's database, flushed at the end.

        Args:
            owner: Whose it is, for those who tell of it: a node id.

        Raises:
            IsolationError: At the end, what the test left at work, and what its applications were refused.
        """
        database = await self.held.take()
        lease = RedisLease(database, owner, self._strays)
        self._strays.leases.add(lease)
        problems: tuple[str, ...] = ()
        clean = False
        try:
            yield lease
        finally:
            try:
                problems = await lease.end()
                clean = True
            finally:
                self._strays.leases.discard(lease)
                if clean and not lease.loss and self._is_held(database):
                    self.held.give_back(database)
                else:
                    try:
                        await self._forget(database, for_good=not (database.has_users or (clean and not lease.loss)))
                    finally:
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
        """Empty what runs that had died had left, and remove their users."""
        with suppress(RedisError, OSError, IsolationError):
            for name in frozenset(self._left):
                database = await self._taken_now(name)
                if database is not None:
                    await self._close(database)

    async def _take_one(self) -> _Database:
        """Hold the first free database, see that it is empty, and a connection to it."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._patience
        while (database := await self._first_free()) is None:
            others = len(self._layout.rooms) - len(self._foreign) - len(self._taken)
            if self._taken - self._lost or not others or loop.time() >= end:
                raise SlotsExhausted(self._exhausted(others))

            await self.locks.ask()
            await asyncio.sleep(_LOOK_AGAIN)
        return database

    async def _first_free(self) -> _Database | None:
        """Hold the first of those that were free at the last look, or at another one, that still is."""
        has_looked = False
        while self._free or not has_looked:
            if not self._free:
                has_looked = True
                await self._look()
                continue
            name = self._free.pop()
            if name not in self._taken and (database := await self._taken_now(name)) is not None:
                return database
        return None

    async def _look(self) -> None:
        """See which are free, those of runs that have died last, which is where they are taken from."""
        marked = await self._users.marked()
        self._left = (marked & self._layout.rooms.keys()) - self._taken
        free = [*self._layout.rooms.keys() - await self.locks.held() - self._taken - self._foreign]
        random.shuffle(free)  # two runs that start at once would meet at each
        self._free = sorted(free, key=marked.__contains__)

    async def _taken_now(self, name: str) -> _Database | None:
        """Hold a database; None if another run was first, or if it holds data of others."""
        self._taken.add(name)
        self._left.discard(name)
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

    async def _forget(self, database: _Database, *, for_good: bool = False) -> None:
        """Let go of a database; its users, if they are still there, say that what it holds is ours.

        ``for_good``: what was sent to it may come yet, and there is no user to end it by; others don't get it either.
        """
        name = database.room.name
        (self._lost.add if for_good else self._taken.discard)(name)
        await database.connection.disconnect(nowait=True)
        if for_good:
            return

        with suppress(RedisError, OSError, IsolationError):
            await self.locks.leave(name, database.life)

    def _exhausted(self, others: int) -> str:
        foreign = f", {len(self._foreign)} hold data that isn't ours" if self._foreign else ""
        lost = (
            f", into {len(self._lost)} a test that has ended may still write, for it gave up a command"
            if self._lost
            else ""
        )
        never = ", and 0 is never used on a server that was given by URL" if self._external else ""
        return (
            f"{self._endpoint.safe_url} has no logical database left for tests: {others} are leased by other runs"
            f"{foreign}{lost}{never}. Start the server with more (--databases 256), lower --concurrency, or end the "
            "other runs."
        )


class _Strays:
    """Keys that applications have written to database 0, because they didn't select the one of their URL.

    Args:
        known: How many there were before the first test.
        has_others: Whether others write to it, too.

    Attributes:
        leases: Those that are open.
    """

    def __init__(self, known: int, *, has_others: bool) -> None:
        self._known = known
        self._has_others = has_others
        self.leases: set[RedisLease] = set()

    def told(self, count: int, by: RedisLease) -> tuple[str, ...]:
        """What is to be told at the end of a lease, if there are so many now."""
        more, self._known = count - self._known, count
        if more <= 0 or self._has_others:
            return ()
        others = sorted(lease.owner for lease in self.leases if lease.is_shown and lease is not by)
        which = f"; or it was one of {', '.join(others)}" if others else ""
        which += "; or whoever writes by the server's own URL, redis_server.url, which no lease keeps in"
        text = (
            f"left {more} key{'' if more == 1 else 's'} in database 0, where all tests see them: an application does "
            f"not select the database that redis_url names, its last part{which}"
        )
        return (text,)


class RedisLease:
    """One test's database: its URL, and a client for it.

    Attributes:
        owner: Whose it is.
        findings: When it has ended, what is to be told of it that harmed nobody.
        leftovers: When it has ended, what was left of its URL's clients.
        loss: When it has ended, why its database is not for others; empty if it is.
    """

    def __init__(self, database: _Database, owner: str, strays: _Strays) -> None:
        self.owner = owner
        self.findings: tuple[str, ...] = ()
        self._database = database
        self._strays = strays
        self._pool = database.pool()
        self._client: Redis | None = None
        self.is_shown = False
        self.leftovers = Leftovers()
        self.loss = ""

    def tell_tasks(self, whereabouts: Callable[[asyncio.Task[Any]], str]) -> None:
        """Have it say of a task that is left in a command where it is, as a part of a sentence."""
        self._pool.whereabouts = whereabouts

    @property
    def url(self) -> str:
        """Where an application's own client finds the database, password included."""
        self.is_shown = True
        return self._database.endpoint.url

    @property
    def prefix(self) -> str:
        """How the channels begin that an application's own client may use; without databases, its keys, too."""
        return self._database.room.channels

    @property
    def client(self) -> Redis:
        """A client that is good until the test ends; no need to close it."""
        if self._client is None:
            self._client = self._database.client(self._pool)
        return self._client

    async def end(self) -> tuple[str, ...]:
        """Flush, unless nobody can have written; close what the test left open.

        Returns:
            What the test is to be charged with.
        """
        problems = self._pool.at_work
        await self._pool.end()
        if self.is_shown:
            problems += await self._shut_out()
        if self._pool.given_up:
            await self._cut()
        if (self.is_shown or self._pool.is_used) and not await self._database.flush(self._pool):
            problems += ("it left a MULTI open: EXEC or DISCARD it",)
        return problems

    async def _cut(self) -> None:
        try:
            await self._database.cut(self._pool)
        except ResponseError as error:
            if self._database.has_users:
                raise
            self.loss = (
                "gave up a command on its Redis database before the answer came, so the database is not used again in "
                f"this run: await the command, or let the user of the server's URL do CLIENT KILL ({error})"
            )
            self.findings += (self.loss,)

    async def _shut_out(self) -> tuple[str, ...]:
        self.leftovers = left = await self._database.shut_out()
        self.findings += tuple(
            f"left {what} to its Redis database open, which was cut: close the application's client in the test or its "
            "fixture"
            for what in left.connections
            if what not in left.at_work
        )
        problems = [f"its application left {what}: {_END_IT}" for what in left.at_work]
        problems += [f"its application was refused {what}" for what in left.refused]
        self.findings += self._strays.told(left.strays, self)
        return tuple(problems)


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
        self.has_users = logins is not None
        self._users = users
        self._names = KeyNames(room.keys, commands) if commands else Names(room.channels)
        self._options = options_of(_as(room, client))
        self._class = connection_class(room.place)
        self._client: Redis | None = None
        self.connection: Any = self.make_connection()
        self._flushing = b"".join(self.make_connection().pack_command("FLUSHDB"))

    def make_connection(self) -> Any:
        connection = self._class(**self._options)
        connection.names = self._names
        connection.asks_number = not self.has_users
        return connection

    def pool(self) -> LeasePool:
        """The connections of the next lease."""
        return LeasePool(self.connection, self.make_connection, self._options)

    def client(self, pool: LeasePool) -> Redis:
        """The client of a lease."""
        if self._client is None:
            self._client = Redis(connection_pool=pool)
        return client_like(self._client, pool)

    async def shut_out(self) -> Leftovers:
        """End what clients of its URL have open, and give it another password."""
        if not self.has_users:
            return Leftovers()

        login, leftovers = await self._users.shut_out(self.room)
        self.endpoint = _as(self.room, login)
        return leftovers

    async def cut(self, pool: LeasePool) -> None:
        """Have the server end what a lease closed before all answers came, before it runs more of what was sent.

        Raises:
            ResponseError: The server refuses that.
        """
        if self.has_users:
            await self._users.cut(self.room)
            return

        killer = self.make_connection()
        try:
            await killer.connect()
            for number in filter(None, pool.given_up):
                await killer.send_command("CLIENT", "KILL", "ID", number)
                await killer.read_response()
        finally:
            await killer.disconnect(nowait=True)

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
        if not self.connection.is_connected:
            await self.connection.connect()
        await self.connection.send_packed_command(self._flushing, check_health=False)
        return await self.connection.read_response()


def _as(room: Room, login: Login) -> Endpoint:
    return msgspec.structs.replace(
        room.place, username=login.username, password=login.password, database=str(room.database)
    )
