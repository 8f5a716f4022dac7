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

import fcntl
import os
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import RedisError, ResponseError

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.slots import Slots, SlotsExhausted
from asynctest_kit.provision.runtime import base_directory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from asynctest_kit.provision.service import Endpoint

__all__ = ["RedisLease", "RedisSlots", "open_slots"]

#: A failure is shown where the code under test called us; our own frames say nothing about it.
__tracebackhide__ = True

#: What a server has unless it says otherwise.
_DATABASES = 16
_MARK_SIZE = 64
_CONNECT_SECONDS = 10.0
_FLUSH = b"*1\r\n$7\r\nFLUSHDB\r\n"
_LEAVES = frozenset({"SELECT", "SWAPDB", "MOVE", "RESET", "SHUTDOWN"})


@asynccontextmanager
async def open_slots(endpoint: Endpoint, *, limit: int = 64) -> AsyncIterator[RedisSlots]:
    """Logical databases of a server, each with a held connection, bound to the running loop.

    Args:
        endpoint: The server; its own database number is not used.
        limit: Most databases at once.
    """
    slots = RedisSlots(endpoint, limit=limit)
    async with slots.held:
        yield slots


class RedisSlots:
    """Logical databases that are locked for this process; each lease is one test's."""

    def __init__(self, endpoint: Endpoint, *, limit: int) -> None:
        self._endpoint = endpoint
        self._external = endpoint.provider == "external"
        self._tried: set[int] = set()
        self.held: Slots[_Database] = Slots(self._lock_one, close=_Database.close, usable=lambda _: True, limit=limit)

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[RedisLease]:
        """One test's database, flushed at the end."""
        database = await self.held.take()
        lease = RedisLease(database)
        clean = False
        try:
            yield lease
        finally:
            try:
                await lease.end()
                clean = True
            finally:
                if clean:
                    self.held.give_back(database)
                else:
                    self._forget(database)

    def _forget(self, database: _Database) -> None:
        """Let go of a database that could not be flushed; its lock file keeps the mark, so the next one flushes it."""
        database.unlock()
        self._tried.discard(database.number)
        self.held.discard()

    async def _lock_one(self) -> _Database:
        """Lock the first free database, see that it is empty, and hold a connection to it."""
        async with _server(self._endpoint) as server:
            count = await _database_count(server)
            mark = await _mark_of(server) if self._external else b""
            taken, foreign = 0, 0
            for number in range(1 if self._external else 0, count):
                if number in self._tried:
                    continue

                database = _Database.lock(self._endpoint, number)
                if database is None:
                    taken += 1
                    continue

                self._tried.add(number)
                if await self._prepare(database, mark):
                    return database

                foreign += 1
        raise SlotsExhausted(
            f"{self._endpoint.safe_url} has no logical database left for tests: of its {count}, {taken} are leased by "
            f"other processes{_external_count(foreign) if self._external else ''}. Start the server with more "
            "(--databases 256), lower --concurrency, or end the other runs."
        )

    async def _prepare(self, database: _Database, mark: bytes) -> bool:
        """Empty the database if what it holds is ours; False if it holds data of others."""
        try:
            if self._external:
                if database.mark != mark and await database.size():
                    await database.close()
                    return False

                database.write_mark(mark)
            await database.flush()
        except BaseException:
            self._tried.discard(database.number)
            database.unlock()
            raise

        return True


class RedisLease:
    """One test's database: its URL, and a client for it."""

    def __init__(self, database: _Database) -> None:
        self._database = database
        self._pool = _LeasePool(database)
        self._client: Redis | None = None
        self._shown = False

    @property
    def url(self) -> str:
        """Where an application's own client finds the database, password included."""
        self._shown = True
        return self._database.endpoint.url

    @property
    def client(self) -> Redis:
        """A client that is good until the test ends; no need to close it."""
        if self._client is None:
            self._client = Redis(connection_pool=self._pool)
        return self._client

    async def end(self) -> None:
        """Flush, unless nobody can have written; close what the test left open."""
        used = self._shown or self._pool.is_used
        await self._pool.end()
        if used:
            await self._database.flush()


class _Guard:
    """Keeps a connection inside its database, and a test that has ended out of the next one's."""

    leased = True

    async def connect(self) -> None:
        if not self.leased:
            raise IsolationError(_ENDED)

        try:
            await super().connect()  # type: ignore[misc]  # of the connection mixed in
        except AttributeError:
            # redis-py loses its stream when it is disconnected while it connects.
            if self.leased:
                raise
        if not self.leased:
            # The test ended meanwhile, and what closed its connections found this one not yet open.
            await self.disconnect(nowait=True)
            raise IsolationError(_ENDED)

    def pack_command(self, *args: Any) -> Any:
        return super().pack_command(*self._guarded(args))  # type: ignore[misc]  # of the connection mixed in

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> Any:
        return super().pack_commands(self._guarded(tuple(command)) for command in commands)  # type: ignore[misc]

    def _guarded(self, command: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self.leased:
            raise IsolationError(_ENDED)

        name = _name(command)
        if name == "FLUSHALL":
            return ("FLUSHDB", *command[1:])

        if name in _LEAVES and tuple(command[1:]) != (self.db,):  # type: ignore[attr-defined]
            raise IsolationError(
                f"{name} would leave this test's logical database. Each test has one of its own: use the clients "
                "and URLs that the fixtures redis and redis_url give."
            )

        return command


def _name(command: tuple[Any, ...]) -> str:
    name = command[0]
    text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    return text.partition(" ")[0].upper()


class _GuardedConnection(_Guard, Connection):
    pass


class _GuardedSocketConnection(_Guard, UnixDomainSocketConnection):
    pass


class _GuardedSSLConnection(_Guard, SSLConnection):
    pass


_ENDED = (
    "A Redis client of a test that has ended was used: something that the test started goes on after it. "
    "Stop it in the test, or in the tear-down of the fixture that started it."
)


class _LeasePool(ConnectionPool):  # type: ignore[type-arg, unused-ignore]  # generic in the stubs of some versions
    """One test's connections, of which the first is the database's held one."""

    def __init__(self, database: _Database) -> None:
        super().__init__(connection_class=database.connection_class, **database.options)
        self._database = database
        self._made: list[Any] = []
        self._lent: set[Any] = set()
        self._ended = False

    @property
    def is_used(self) -> bool:
        """Whether a command can have been sent."""
        return bool(self._made)

    def make_connection(self) -> Any:
        connection = self._database.make_connection() if self._made else self._database.connection
        self._made.append(connection)
        return connection

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        if self._ended:
            raise IsolationError(_ENDED)

        connection = await super().get_connection(*args, **options)  # type: ignore[no-untyped-call, unused-ignore]
        self._lent.add(connection)
        return connection

    async def release(self, connection: Any) -> None:
        self._lent.discard(connection)
        await super().release(connection)

    async def end(self) -> None:
        """Close all connections but the held one, and that too if the test never gave it back."""
        self._ended = True
        held = self._database.connection
        if held in self._lent:
            self._database.connection = self._database.make_connection()
        for connection in self._made:
            if connection is not held or held in self._lent:
                connection.leased = False
                await connection.disconnect(nowait=True)


class _Database:
    """A logical database that this process has locked, with a connection to it that outlives each lease."""

    def __init__(self, endpoint: Endpoint, number: int, path: Path, file: int) -> None:
        self.number = number
        self.endpoint = msgspec.structs.replace(endpoint, database=str(number))
        self.connection_class: Any = _connection_class(endpoint)
        self._path = path
        self._file = file
        self.mark = os.pread(file, _MARK_SIZE, 0)
        self.connection: Any = self.make_connection()

    @classmethod
    def lock(cls, endpoint: Endpoint, number: int) -> _Database | None:
        """Lock a database for this process; None if another has it."""
        path = _lock_file(endpoint, number)
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(path, file):
                    return cls(endpoint, number, path, file)
            except BlockingIOError:
                os.close(file)
                return None
            except BaseException:
                os.close(file)
                raise
            # Its last owner removed the file between our opening and our locking it.
            os.close(file)

    @property
    def options(self) -> dict[str, Any]:
        """What redis-py's connection takes."""
        return {
            **_whereabouts(self.endpoint),
            "username": self.endpoint.username,
            "password": self.endpoint.password,
            "db": self.number,
            "socket_connect_timeout": _CONNECT_SECONDS,
        }

    def make_connection(self) -> Any:
        return self.connection_class(**self.options)

    def write_mark(self, mark: bytes) -> None:
        """Note in the lock file that what the database holds from now on is ours, should we die."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, mark, 0)

    async def size(self) -> int:
        await self.connection.connect()
        await self.connection.send_command("DBSIZE")
        return int(await self.connection.read_response())

    async def flush(self) -> None:
        """Empty it; one round trip on the held connection, or a new one where the server has closed that."""
        try:
            await self._flush()
        except (RedisError, OSError):
            await self.connection.disconnect(nowait=True)
            self.connection = self.make_connection()
            await self._flush()

    async def _flush(self) -> None:
        await self.connection.send_packed_command(_FLUSH, check_health=False)
        answer = await self.connection.read_response()
        if answer not in {b"OK", "OK"}:
            # The test left the connection in a state of its own: inside a MULTI it would only queue what follows.
            raise RedisError(f"FLUSHDB was answered by {answer!r}")

    async def close(self) -> None:
        """Let go of a database that holds nothing of ours."""
        await self.connection.disconnect()
        self.remove_lock()

    def remove_lock(self) -> None:
        """Unlock, and leave no file; no-op if that was done."""
        if self._file >= 0:
            self._path.unlink(missing_ok=True)
            self.unlock()

    def unlock(self) -> None:
        """Unlock, and leave the file with its mark."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _lock_file(endpoint: Endpoint, number: int) -> Path:
    folder = base_directory() / "redis"
    folder.mkdir(mode=0o700, exist_ok=True)
    host = "127.0.0.1" if endpoint.host in {"localhost", "::1"} else endpoint.host
    return folder / f"{host.replace(':', '_')}-{endpoint.port}-{number}.lock"


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))  # noqa: PTH116  # beside fstat
    except FileNotFoundError:
        return False


def _connection_class(endpoint: Endpoint) -> type[_Guard]:
    if endpoint.socket:
        return _GuardedSocketConnection
    return _GuardedSSLConnection if endpoint.scheme == "rediss" else _GuardedConnection


def _whereabouts(endpoint: Endpoint) -> dict[str, Any]:
    return {"path": endpoint.socket} if endpoint.socket else {"host": endpoint.host, "port": endpoint.port}


@asynccontextmanager
async def _server(endpoint: Endpoint) -> AsyncIterator[Redis]:
    async with AsyncExitStack() as stack:
        client = Redis.from_url(
            msgspec.structs.replace(endpoint, database=None).url, socket_connect_timeout=_CONNECT_SECONDS
        )
        stack.push_async_callback(client.aclose)
        yield client


async def _mark_of(server: Redis) -> bytes:
    """What tells this server's life from others: after a restart, what a database holds is not known to be ours."""
    run: str = (await server.info("server"))["run_id"]
    return run.encode()[:_MARK_SIZE]


async def _database_count(server: Redis) -> int:
    try:
        answer = await server.config_get("databases")
    except ResponseError:
        # Managed servers refuse CONFIG.
        return _DATABASES

    values = {_name((key,)): value for key, value in answer.items()}
    return int(values.get("DATABASES") or _DATABASES)


def _external_count(foreign: int) -> str:
    return f", {foreign} hold data that isn't ours, and 0 is never used on a server that was given by URL"
