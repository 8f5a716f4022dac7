"""SQLAlchemy's async engine on a test's transaction.

The problem. An application makes its own engine and sessions, and commits. The engine here is SQLAlchemy's own, on its
asyncpg dialect, with a pool whose connections are borrowed from the test's sandbox: they begin, commit, nest and fail
as everywhere, and all of it is rolled back when the test ends.

What is special about SQLAlchemy:

1. Whatever a session does first begins a transaction, that stays open until the session is closed. Two sessions that
   only read would be two transactions at once. So a transaction is *begun late*, by its first statement that isn't
   known to read only; what it has read before it read in READ COMMITTED, where every statement sees what is committed
   by then. A statement that fails before fails the transaction, as everywhere.
2. The dialect sets codecs for JSON on each new connection. A borrowed connection only notes them, once for all engines
   of a run; see :mod:`asynctest_kit.isolation.codecs`.
3. A dialect looks at the server before its first use, and what SQLAlchemy has compiled is kept by dialect. So all
   engines of a run share one, and its caches.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import LRUCache

from asynctest_kit.isolation.codecs import Codec, Codecs
from asynctest_kit.isolation.connection import SandboxConnection
from asynctest_kit.isolation.own_database import whereabouts
from asynctest_kit.isolation.sandbox import Opening
from asynctest_kit.isolation.statements import COMMITS, locks_rows
from asynctest_kit.isolation.transaction import SandboxTransaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from asynctest_kit.isolation.sandbox import Sandbox
    from asynctest_kit.isolation.statements import Head
    from asynctest_kit.provision.service import Endpoint

__all__ = ["SandboxEngines", "connections_of", "engine_for"]

#: A failure is shown where the code under test called us; our own frames say nothing about it.
__tracebackhide__ = True

T = TypeVar("T")

_COMPILED_STATEMENTS = 500

#: SQLAlchemy's own ``pool_size`` and ``max_overflow``.
_POOLED = 5
_BEYOND = 10


class SandboxEngines:
    """Makes the engines of tests, one for each sandbox.

    Args:
        options: What the application gives ``create_async_engine``. Those for the pool and for connecting make no
            difference.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        # It is never connected; it says what an engine with these options is like.
        self._model = create_async_engine("postgresql+asyncpg://", **options).sync_engine
        self._compiled: LRUCache[Any, Any] = LRUCache(_COMPILED_STATEMENTS)
        self._codecs = Codecs()
        self._first = asyncio.Lock()
        self._is_tried = False

    async def open(self, sandbox: Sandbox) -> AsyncEngine:
        """An engine whose connections all work in the test's transaction; there is nothing to close."""
        engine = AsyncEngine(self._engine(sandbox))
        async with self._first:
            if not self._is_tried:
                # The dialect isn't ready for others before its first connection has looked at the server.
                async with engine.connect():
                    self._is_tried = True
        return engine

    def _engine(self, sandbox: Sandbox) -> Engine:
        model = self._model
        pool = NullPool(lambda: self._connect(sandbox), dialect=model.dialect)
        event.listen(pool, "connect", self._set_up)
        return Engine(
            pool,
            model.dialect,
            model.url,
            echo=model.echo,
            hide_parameters=model.hide_parameters,
            execution_options={"compiled_cache": self._compiled, **model.get_execution_options()},
        )

    def _connect(self, sandbox: Sandbox) -> Any:
        async def borrow() -> EngineConnection:
            connection = EngineConnection(sandbox, self._codecs)
            sandbox.lend(connection)
            return connection

        return self._model.dialect.connect(async_creator_fn=borrow)

    def _set_up(self, dbapi_connection: Any, record: Any) -> None:
        """What the dialect does with a new connection."""
        connection: EngineConnection = dbapi_connection.driver_connection
        self._model.pool.dispatch.connect(dbapi_connection, record)
        connection.is_set_up = True


def connections_of(options: Mapping[str, Any]) -> int:
    """How many an engine with these options may hold at once, as far as they tell."""
    beyond = options.get("max_overflow", _BEYOND)
    return (options.get("pool_size", _POOLED) or _POOLED) + (beyond if beyond >= 0 else _BEYOND)


def engine_for(
    endpoint: Endpoint, options: Mapping[str, Any], *, connecting: Callable[..., Awaitable[asyncpg.Connection]]
) -> AsyncEngine:
    """An ordinary engine on a database, by its unix socket if there is one; the caller disposes of it.

    Args:
        endpoint: The database.
        options: What the application gives ``create_async_engine``.
        connecting: Does :func:`asyncpg.connect`.
    """
    url = make_url(endpoint.url_for("asyncpg")).set(query={})  # asyncpg reads it, and knows more of it than the dialect
    connect_args = whereabouts(endpoint) | {"async_creator_fn": connecting} | dict(options.get("connect_args", {}))
    return create_async_engine(url, **{**options, "connect_args": connect_args})


class EngineConnection(SandboxConnection):
    """A borrowed connection as SQLAlchemy's dialect uses it; its transactions are begun late.

    Attributes:
        is_set_up: Whether the dialect has done what it does with each new connection.
    """

    outermost: EngineTransaction | None

    def __init__(self, sandbox: Sandbox, codecs: Codecs) -> None:
        super().__init__(sandbox, commits=True)
        self.codecs = codecs
        self.is_set_up = False

    async def set_type_codec(self, typename: str, *, schema: str = "public", **codec: Any) -> None:
        """See :meth:`asyncpg.Connection.set_type_codec`; the dialect's own are the same for all connections."""
        if self.is_set_up or not self.codecs.add(typename, Codec(**codec), schema):
            await super().set_type_codec(typename, schema=schema, **codec)

    def is_in_transaction(self) -> bool:
        """Whether an explicit transaction is open, begun or not."""
        return self.outermost is not None or super().is_in_transaction()

    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False, deferrable: bool = False
    ) -> SandboxTransaction:
        """See :meth:`asyncpg.Connection.transaction`; only ``readonly`` makes a difference."""
        del deferrable
        self._check_open("transaction")
        kind = EngineTransaction if self.outermost is None else _NestedTransaction
        return kind(self, self._sandbox, isolation=isolation, readonly=readonly)

    async def reset(self, **_: object) -> None:
        """Roll back the open transaction, if there is one; a pool that clears up after the test has nothing to do."""
        self.outermost = None
        if self._sandbox.owned_by(self) and not self._sandbox.has_ended:
            await self._sandbox.roll_back()

    async def begin(self) -> None:
        """Begin the open transaction, unless that was done."""
        if self.outermost is not None:
            await self.outermost.begin()

    async def run(
        self,
        query: str,
        operation: Callable[[asyncpg.Connection], Awaitable[T]],
        *,
        method: str = "execute",
        opening: Opening = Opening.ALONE,
    ) -> T:
        """Run a statement in the sandbox, for a method of that name."""
        transaction = self.outermost
        if transaction is None or transaction.is_begun:
            return await super().run(query, operation, method=method, opening=opening)

        if transaction.has_failed:
            raise asyncpg.InFailedSQLTransactionError(
                "current transaction is aborted, commands ignored until end of transaction block"
            )

        if not self._sandbox.only_reads(query) or locks_rows(query):
            await transaction.begin()
        try:
            return await super().run(query, operation, method=method, opening=opening)
        except asyncpg.PostgresError:
            transaction.has_failed = True
            raise

    async def run_in_transaction(self, query: str, operation: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """The same for a cursor, which must outlive failures of other statements: its transaction is begun."""
        await self.begin()
        return await super().run_in_transaction(query, operation)

    async def _control(self, head: Head, query: str) -> str:
        if head[0] in COMMITS:
            await self.begin()
        return await super()._control(head, query)

    def _end(self) -> None:
        """It is of no pool, so it is closed and not released."""
        self._closed = True
        self._sandbox.take_back(self)


class EngineTransaction(SandboxTransaction):
    """A transaction that is begun by its first statement that isn't known to read only.

    Attributes:
        is_begun: Whether that was.
        has_failed: Whether a statement failed before that.
    """

    _connection: EngineConnection

    def __init__(self, connection: EngineConnection, sandbox: Sandbox, **options: Any) -> None:
        super().__init__(connection, sandbox, **options)
        self.is_begun = False
        self.has_failed = False

    async def start(self) -> None:
        """Open it; nothing is done on the server yet."""
        self._connection.outermost = self
        self._state = "started"
        if self._readonly:
            await self.begin()

    async def begin(self) -> None:
        """Begin on the server, unless that was done.

        Raises:
            IsolationError: Another connection's transaction is in the way.
        """
        if not self.is_begun:
            await self._sandbox.begin(self._connection, readonly=self._readonly)
            self.is_begun = True

    async def _commit(self) -> None:
        await (super()._commit() if self.is_begun else self._end("commit"))

    async def _roll_back(self) -> None:
        await (super()._roll_back() if self.is_begun else self._end("rollback"))

    async def _end(self, what: str) -> None:
        self._check_started(what)
        self._connection.outermost = None
        self._state = "committed" if what == "commit" else "rolled back"


class _NestedTransaction(SandboxTransaction):
    """A savepoint that code sets by asyncpg's means, inside a transaction of SQLAlchemy's."""

    _connection: EngineConnection

    async def start(self) -> None:
        """Set it, in a transaction that is begun by then."""
        await self._connection.begin()
        await super().start()
