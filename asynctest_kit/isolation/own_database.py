"""A database of a test's own, with a connection and a pool: the rung for what one transaction can't do.

Several transactions at once, VACUUM, NOTIFY, a deferred constraint at commit: all of it works, and none of it is seen
by another test. It costs a clone of the template for each test, and connections: where the server has no more of them,
tests wait for each other's, see :mod:`asynctest_kit.isolation.room`.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from asynctest_kit.isolation.advisory import session_locks
from asynctest_kit.isolation.postgres import connect_arguments
from asynctest_kit.isolation.room import Room

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from asynctest_kit.provision.service import Endpoint

__all__ = ["OwnDatabase", "OwnPlace", "open_own_database", "whereabouts"]


_LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)

#: Most connections of its pool: asyncpg's usual number.
_CONNECTIONS = 10

#: Seconds that are waited for a connection where nobody but the test itself can give one back.
_ALONE = 0.5

#: Seconds that a connection may take to tell what it holds, when its test has ended.
_PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class OwnDatabase:
    """Ordinary access to one database.

    Attributes:
        endpoint: Where it is.
        connection: For the test itself.
        pool: For the code under test.
        room: The room on its server.
        owner: Whose it is, there.
    """

    endpoint: Endpoint
    connection: asyncpg.Connection
    pool: asyncpg.Pool
    room: Room
    owner: str


@asynccontextmanager
async def open_own_database(
    endpoint: Endpoint,
    *,
    init: Any = None,
    findings: list[str] | None = None,
    room: Room | None = None,
    owner: str = "",
) -> AsyncIterator[OwnDatabase]:
    """Connect to a database that is one test's own, when there is room; at the end all connections are cut.

    Args:
        endpoint: The database.
        room: The room on its server; none if nobody else wants any.
        owner: Whose it is: a node id.
        init: What the application gives ``asyncpg.create_pool`` as ``init``.
        findings: Where what the test leaves is added, in words; it harms nobody.
    """
    room = Room(patience=_ALONE) if room is None else room
    with room.claimed(owner, _CONNECTIONS + 1) as guest:
        # With a least size the pool would connect again by itself, also to a server that the test has ended.
        pool = await asyncpg.create_pool(
            **whereabouts(endpoint),
            min_size=0,
            max_size=_CONNECTIONS,
            init=init,
            connect=guest.connect,
            reset=guest.reset,
        )
        connection: asyncpg.Connection | None = None
        try:
            # Not one of the pool's, all of which are the code's under test: it may close the pool, too.
            connection = await guest.connect(**whereabouts(endpoint))
            if init is not None:
                await init(connection)
            yield OwnDatabase(endpoint, connection, pool, room, owner)
            if findings is not None:
                findings += await _left(connection, pool)
        finally:
            # Nobody needs the connections clean, and one that the test has lost would be waited for.
            pool.terminate()
            if connection is not None:
                connection.terminate()


async def _left(connection: asyncpg.Connection, pool: asyncpg.Pool) -> list[str]:
    """What is open when the test has ended."""
    found = []
    unreturned = pool.get_size() - pool.get_idle_size()
    if unreturned > 0:
        found.append(f"never gave {unreturned} connection(s) back to pg_pool, which were cut: use `async with`")
    if connection.is_closed():
        return found
    if connection.is_in_transaction():
        return [*found, "left a transaction of pg open, which was rolled back: commit it, or roll it back"]
    with suppress(*_LOST):  # in a statement, or its server is gone or hangs
        async with asyncio.timeout(_PATIENCE):
            locks = await session_locks(connection)
        if locks:
            found.append(f"left the session's advisory locks {', '.join(locks)} held by pg: call pg_advisory_unlock")
    return found


class OwnPlace:
    """A database or server of one test's own: made when the first of its fixtures asks, and gone when all are done.

    Args:
        opened: Makes it, and clears up after it.
    """

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[Endpoint]]) -> None:
        self._opened = opened
        self._lock = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._endpoint: Endpoint | None = None
        self._users = 0

    @property
    def is_held(self) -> bool:
        """Whether any fixture has it."""
        return self._users > 0

    @asynccontextmanager
    async def held(self) -> AsyncIterator[Endpoint]:
        """Where it is, the same for all."""
        async with self._lock:
            if self._endpoint is None:
                self._endpoint = await self._stack.enter_async_context(self._opened())
            self._users += 1
        try:
            yield self._endpoint
        finally:
            self._users -= 1
            if not self._users:
                self._endpoint = None
                await self._stack.aclose()


def whereabouts(endpoint: Endpoint) -> dict[str, Any]:
    """What :func:`asyncpg.connect` is given to connect to the endpoint's database."""
    if endpoint.provider == "external":
        return {"dsn": endpoint.url}  # what its query asks for is the user's to say
    return connect_arguments(endpoint) | {"database": endpoint.database}
