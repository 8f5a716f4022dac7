"""What code under test takes for asyncpg's prepared statement and cursors.

All that runs on the server goes through the connection's guard: one statement at a time, whoever iterates beside whom.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from asynctest_kit.isolation.connection import SandboxConnection

__all__ = ["SandboxCursor", "SandboxCursors", "SandboxStatement"]

#: A failure is shown where the code under test called us; our own frames say nothing about it.
__tracebackhide__ = True


class SandboxCursors:
    """What ``cursor()`` gives, as :class:`asyncpg.cursor.CursorFactory`: to be awaited, or iterated.

    Args:
        connection: Whose it is.
        query: Its text.
        make: Makes the real one.
    """

    def __init__(self, connection: SandboxConnection, query: str, make: Callable[[asyncpg.Connection], Any]) -> None:
        self._connection = connection
        self._query = query
        self._make = make

    def __await__(self) -> Generator[Any, Any, SandboxCursor]:
        return self._opened().__await__()

    def __aiter__(self) -> _Rows:
        self._connection.check_released("cursor")
        return _Rows(self._connection, self._query, self._make)

    async def _opened(self) -> SandboxCursor:
        async def open_one(connection: asyncpg.Connection) -> Any:
            return await self._make(connection)

        cursor = await self._connection.run_in_transaction(self._query, open_one)
        return SandboxCursor(self._connection, self._query, cursor)


class SandboxCursor:
    """An open cursor, as :class:`asyncpg.cursor.Cursor`."""

    def __init__(self, connection: SandboxConnection, query: str, cursor: Any) -> None:
        self._connection = connection
        self._query = query
        self._cursor = cursor

    async def fetch(self, n: int, *, timeout: float | None = None) -> list[asyncpg.Record]:  # noqa: ASYNC109  # asyncpg's
        """See :meth:`asyncpg.cursor.Cursor.fetch`."""
        rows: list[asyncpg.Record] = await self._run(lambda: self._cursor.fetch(n, timeout=timeout))
        return rows

    async def fetchrow(self, *, timeout: float | None = None) -> asyncpg.Record | None:  # noqa: ASYNC109  # asyncpg's
        """See :meth:`asyncpg.cursor.Cursor.fetchrow`."""
        return await self._run(lambda: self._cursor.fetchrow(timeout=timeout))

    async def forward(self, n: int, *, timeout: float | None = None) -> int:  # noqa: ASYNC109  # asyncpg's
        """See :meth:`asyncpg.cursor.Cursor.forward`."""
        skipped: int = await self._run(lambda: self._cursor.forward(n, timeout=timeout))
        return skipped

    async def _run(self, operation: Callable[[], Any]) -> Any:
        return await self._connection.run_in_transaction(self._query, lambda _: operation())


class _Rows:
    """The iterator over a cursor's rows."""

    def __init__(self, connection: SandboxConnection, query: str, make: Callable[[asyncpg.Connection], Any]) -> None:
        self._connection = connection
        self._query = query
        self._make = make
        self._rows: Any = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> asyncpg.Record:
        async def following(connection: asyncpg.Connection) -> Any:
            if self._rows is None:
                self._rows = aiter(self._make(connection))
            return await anext(self._rows)

        return await self._connection.run_in_transaction(self._query, following)


class SandboxStatement:
    """A prepared statement, as :class:`asyncpg.prepared_stmt.PreparedStatement`."""

    def __init__(self, connection: SandboxConnection, query: str, statement: Any) -> None:
        self._connection = connection
        self._query = query
        self._statement = statement

    def get_name(self) -> str:
        """See asyncpg."""
        told: str = self._told("get_name")
        return told

    def get_query(self) -> str:
        """See asyncpg."""
        told: str = self._told("get_query")
        return told

    def get_statusmsg(self) -> str | None:
        """See asyncpg."""
        told: str | None = self._told("get_statusmsg")
        return told

    def get_parameters(self) -> Any:
        """See asyncpg."""
        return self._told("get_parameters")

    def get_attributes(self) -> Any:
        """See asyncpg."""
        return self._told("get_attributes")

    def cursor(
        self,
        *args: object,
        prefetch: int | None = None,
        timeout: float | None = None,
    ) -> SandboxCursors:
        """See asyncpg; an explicit transaction must be open when it is used."""
        self._check("cursor")
        return SandboxCursors(
            self._connection,
            self._query,
            lambda _: self._statement.cursor(*args, prefetch=prefetch, timeout=timeout),
        )

    async def explain(self, *args: object, analyze: bool = False) -> Any:
        """See asyncpg; what an ANALYZE has done is rolled back."""
        self._check("explain")
        options = "FORMAT JSON, VERBOSE, ANALYZE" if analyze else "FORMAT JSON, VERBOSE"
        query = f"EXPLAIN ({options}) {self._query}"
        if not analyze:
            return json.loads(await self._connection.fetchval(query, *args))

        transaction = self._connection.transaction()
        await transaction.start()
        try:
            plan = await self._connection.fetchval(query, *args)
        finally:
            await transaction.rollback()
        return json.loads(plan)

    async def fetch(self, *args: object, timeout: float | None = None) -> list[asyncpg.Record]:  # noqa: ASYNC109  # asyncpg's
        """See asyncpg."""
        rows: list[asyncpg.Record] = await self._run("fetch", *args, timeout=timeout)
        return rows

    async def fetchval(self, *args: object, column: int = 0, timeout: float | None = None) -> Any:  # noqa: ASYNC109  # asyncpg's
        """See asyncpg."""
        return await self._run("fetchval", *args, column=column, timeout=timeout)

    async def fetchrow(self, *args: object, timeout: float | None = None) -> asyncpg.Record | None:  # noqa: ASYNC109  # asyncpg's
        """See asyncpg."""
        return await self._run("fetchrow", *args, timeout=timeout)

    async def fetchmany(self, args: Iterable[Any], *, timeout: float | None = None) -> list[asyncpg.Record]:  # noqa: ASYNC109  # asyncpg's
        """See asyncpg."""
        rows: list[asyncpg.Record] = await self._run("fetchmany", args, timeout=timeout)
        return rows

    async def executemany(self, args: Iterable[Any], *, timeout: float | None = None) -> None:  # noqa: ASYNC109  # asyncpg's
        """See asyncpg; all or nothing."""
        await self._run("executemany", args, timeout=timeout)

    def _told(self, name: str) -> Any:
        self._check(name)
        return getattr(self._statement, name)()

    async def _run(self, name: str, *args: object, **options: object) -> Any:
        self._check(name)
        return await self._connection.run(self._query, lambda _: getattr(self._statement, name)(*args, **options))

    def _check(self, name: str) -> None:
        if self._connection.is_released:
            raise asyncpg.InterfaceError(
                f"cannot call PreparedStatement.{name}(): the underlying connection has been released back to the pool"
            )
