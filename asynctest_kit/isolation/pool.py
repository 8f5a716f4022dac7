"""What code under test takes for asyncpg's pool."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NoReturn, Self

import asyncpg

from asynctest_kit.isolation.connection import SandboxConnection
from asynctest_kit.isolation.refusals import OWN_DATABASE

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from asynctest_kit.isolation.sandbox import Sandbox

__all__ = ["SandboxPool"]

#: A failure is shown where the code under test called us; our own frames say nothing about it.
__tracebackhide__ = True


#: Most connections of a pool that is made without saying how many.
_USUAL = 10


def _borrow(sandbox: Sandbox) -> SandboxConnection:
    connection = SandboxConnection(sandbox, commits=True)
    sandbox.lend(connection)
    return connection


class _Acquisition:
    """``pool.acquire()``, as :class:`asyncpg.pool.PoolAcquireContext`: awaited, or entered."""

    def __init__(self, pool: SandboxPool, sandbox: Sandbox, timeout: float | None) -> None:
        self.pool = pool
        self.timeout = timeout
        self.connection: SandboxConnection | None = None
        self.done = False
        self._sandbox = sandbox

    async def _acquire(self) -> SandboxConnection:
        return _borrow(self._sandbox)

    def __await__(self) -> Generator[Any, Any, SandboxConnection]:
        self.done = True
        return self._acquire().__await__()

    async def __aenter__(self) -> SandboxConnection:
        if self.connection is not None or self.done:
            raise asyncpg.InterfaceError("a connection is already acquired")
        self.connection = _borrow(self._sandbox)
        return self.connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.done = True
        connection, self.connection = self.connection, None
        if connection is not None:
            await connection.give_back()


def _pooled(name: str) -> Any:
    """A method of the pool that runs one statement on a connection borrowed for it."""

    @functools.wraps(getattr(asyncpg.Pool, name))
    async def borrowing(self: SandboxPool, *args: Any, **options: Any) -> Any:
        async with self.acquire() as connection:
            return await getattr(connection, name)(*args, **options)

    return borrowing


class SandboxPool(asyncpg.Pool):  # type: ignore[misc]  # asyncpg is untyped; makes isinstance() hold
    """What code under test takes for an :class:`asyncpg.Pool`: any number of connections, all in one transaction."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def acquire(self, *, timeout: float | None = None) -> _Acquisition:
        """A connection, at once; await it or use it as an async context manager."""
        return _Acquisition(self, self._sandbox, timeout)

    async def release(self, connection: SandboxConnection, *, timeout: float | None = None) -> None:  # noqa: ASYNC109  # asyncpg's
        """Give a connection back; an explicit transaction that is still open is rolled back.

        Raises:
            asyncpg.InterfaceError: It isn't this pool's.
        """
        del timeout
        if not isinstance(connection, SandboxConnection) or not connection.is_of(self._sandbox):
            raise asyncpg.InterfaceError(
                f"Pool.release() received invalid connection: {connection!r} is not a member of this pool"
            )
        await connection.give_back()

    execute = _pooled("execute")
    executemany = _pooled("executemany")
    fetch = _pooled("fetch")
    fetchval = _pooled("fetchval")
    fetchrow = _pooled("fetchrow")
    fetchmany = _pooled("fetchmany")
    copy_from_query = _pooled("copy_from_query")
    copy_from_table = _pooled("copy_from_table")
    copy_to_table = _pooled("copy_to_table")
    copy_records_to_table = _pooled("copy_records_to_table")

    async def close(self) -> None:
        """Do nothing: the test still needs its transaction after the code under test has shut down."""

    def terminate(self) -> None:
        """Do nothing, for the reason of :meth:`close`."""

    async def expire_connections(self) -> None:
        """Do nothing: there is one connection, and it stays."""

    def set_connect_args(self, dsn: str | None = None, **_: object) -> NoReturn:
        """Refused: a new connection would be to another database, or outside the test's transaction.

        Raises:
            IsolationError: Always.
        """
        del dsn
        raise self._sandbox.refused(
            "set_connect_args() would have the pool connect anew, but its connections are the test's one transaction. "
            f"{OWN_DATABASE}"
        )

    def is_closing(self) -> bool:
        """Never: see :meth:`close`."""
        return False

    def get_size(self) -> int:
        """As many as are borrowed, and one at least: the one that is there before anybody asks."""
        return max(1, self._sandbox.lent)

    def get_init_size(self) -> int:
        """One."""
        return 1

    def get_min_size(self) -> int:
        """One."""
        return 1

    def get_max_size(self) -> int:
        """What is usual, or as many as are borrowed: nobody waits for a connection."""
        return max(_USUAL, self._sandbox.lent)

    def get_idle_size(self) -> int:
        """One while none is borrowed."""
        return self.get_size() - self._sandbox.lent

    def __await__(self) -> Generator[Any, Any, SandboxPool]:
        return self._itself().__await__()

    async def _itself(self) -> SandboxPool:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
