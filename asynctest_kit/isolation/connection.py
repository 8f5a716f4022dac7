"""What code under test takes for asyncpg's connection, transaction and prepared statement.

Each method has asyncpg's name and signature; all that runs on the server goes through the test's :class:`Sandbox`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import asyncpg
from asyncpg.connection import _ConnectionProxy

from asynctest_kit.isolation.sandbox import refuse_listening
from asynctest_kit.isolation.statements import BEGINS, COMMITS, ROLLBACKS, heads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from asynctest_kit.isolation.sandbox import Sandbox
    from asynctest_kit.isolation.statements import Head

__all__ = ["SandboxConnection", "SandboxStatement", "SandboxTransaction"]

#: A failure is shown where the code under test called us; our own frames say nothing about it.
__tracebackhide__ = True

T = TypeVar("T")


def _statement(name: str) -> Any:
    """A method of :class:`asyncpg.Connection` whose first argument is a query."""
    method = getattr(asyncpg.Connection, name)

    @functools.wraps(method)
    async def guarded(self: SandboxConnection, query: str, *args: Any, **options: Any) -> Any:
        return await self._run(query, lambda connection: method(connection, query, *args, **options))

    return guarded


def _copy(name: str) -> Any:
    """A method of :class:`asyncpg.Connection` that makes its own statement for a table."""
    method = getattr(asyncpg.Connection, name)

    @functools.wraps(method)
    async def guarded(self: SandboxConnection, *args: Any, **options: Any) -> Any:
        return await self._run("COPY", lambda connection: method(connection, *args, **options))

    return guarded


def _session(name: str) -> Any:
    """A method of :class:`asyncpg.Connection` that changes the connection itself, beyond what a rollback undoes."""
    method = getattr(asyncpg.Connection, name)

    @functools.wraps(method)
    def changing(self: SandboxConnection, *args: Any, **options: Any) -> Any:
        self._sandbox.change_session()
        return method(self._real, *args, **options)

    return changing


class SandboxConnection(_ConnectionProxy):  # type: ignore[misc]  # asyncpg is untyped; makes isinstance() hold
    """What code under test takes for an :class:`asyncpg.Connection`.

    ``transaction()`` and a lone BEGIN, COMMIT or ROLLBACK act on a savepoint of the test's transaction. Isolation
    levels are accepted and make no difference: nobody else writes what this test can see.
    """

    def __init__(self, sandbox: Sandbox, *, commits: bool) -> None:
        self.commits = commits
        self._sandbox = sandbox
        self._closed = False

    @property
    def _real(self) -> asyncpg.Connection:
        self._check_open()
        self._sandbox.check_open()
        return self._sandbox.connection

    def _check_open(self) -> None:
        if self._closed:
            raise asyncpg.InterfaceError("connection is closed, or has been released back to the pool")

    async def _run(self, query: str, operation: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        self._check_open()
        return await self._sandbox.run(self, query, operation)

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:  # noqa: ASYNC109  # asyncpg's
        """See :meth:`asyncpg.Connection.execute`; a lone BEGIN, COMMIT or ROLLBACK is translated."""
        found = heads(query)
        if len(found) == 1 and not args:
            status = await self._control(found[0])
            if status:
                return status

        return await self._run(query, lambda connection: connection.execute(query, *args, timeout=timeout))

    executemany = _statement("executemany")
    fetch = _statement("fetch")
    fetchval = _statement("fetchval")
    fetchrow = _statement("fetchrow")
    fetchmany = _statement("fetchmany")
    copy_from_query = _statement("copy_from_query")
    copy_from_table = _copy("copy_from_table")
    copy_to_table = _copy("copy_to_table")
    copy_records_to_table = _copy("copy_records_to_table")
    set_type_codec = _session("set_type_codec")
    reset_type_codec = _session("reset_type_codec")
    set_builtin_type_codec = _session("set_builtin_type_codec")
    add_log_listener = _session("add_log_listener")
    remove_log_listener = _session("remove_log_listener")
    add_termination_listener = _session("add_termination_listener")
    remove_termination_listener = _session("remove_termination_listener")
    add_query_logger = _session("add_query_logger")
    remove_query_logger = _session("remove_query_logger")
    query_logger = _session("query_logger")

    async def prepare(self, query: str, **options: Any) -> SandboxStatement:
        """See :meth:`asyncpg.Connection.prepare`."""
        statement = await self._run(query, lambda connection: connection.prepare(query, **options))
        return SandboxStatement(self, query, statement)

    def cursor(self, query: str, *args: object, **options: Any) -> Any:
        """See :meth:`asyncpg.Connection.cursor`; an explicit transaction must be open."""
        if not self.is_in_transaction():
            raise asyncpg.NoActiveSQLTransactionError("cursor cannot be created outside of a transaction")

        return self._real.cursor(query, *args, **options)

    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False, deferrable: bool = False
    ) -> SandboxTransaction:
        """See :meth:`asyncpg.Connection.transaction`; only ``readonly`` makes a difference."""
        del isolation, deferrable
        self._check_open()
        return SandboxTransaction(self, self._sandbox, readonly=readonly)

    def is_in_transaction(self) -> bool:
        """Whether this connection has an explicit transaction open; the test's own doesn't count."""
        return self._sandbox.owned_by(self)

    async def add_listener(self, *_: object) -> NoReturn:
        """Refused: a notification is sent on COMMIT, which never comes."""
        refuse_listening()

    async def remove_listener(self, *_: object) -> None:
        """Nothing to remove: listening is refused."""

    def get_server_pid(self) -> int:
        """See :meth:`asyncpg.Connection.get_server_pid`; the same for all connections of a test."""
        pid: int = self._real.get_server_pid()
        return pid

    def get_server_version(self) -> Any:
        """See :meth:`asyncpg.Connection.get_server_version`."""
        return self._real.get_server_version()

    def get_settings(self) -> Any:
        """See :meth:`asyncpg.Connection.get_settings`."""
        return self._real.get_settings()

    async def reload_schema_state(self) -> None:
        """See :meth:`asyncpg.Connection.reload_schema_state`."""
        await self._real.reload_schema_state()

    async def reset(self, **_: object) -> None:
        """Roll back this connection's explicit transaction, if one is open."""
        if self.is_in_transaction():
            await self._sandbox.roll_back()

    def is_closed(self) -> bool:
        """Whether it was closed, given back, or lost."""
        return self._closed or bool(self._sandbox.connection.is_closed())

    async def close(self, **_: object) -> None:
        """End the use of this connection; the test's transaction goes on."""
        await self.give_back()

    def terminate(self) -> None:
        """End the use of this connection; the test's transaction goes on."""
        self._closed = True
        self._sandbox.take_back(self)

    async def give_back(self) -> None:
        """End the use; an explicit transaction that is still open is rolled back, as asyncpg's pool does."""
        try:
            if not self._closed:
                await self.reset()
        finally:
            self.terminate()

    async def _control(self, head: Head) -> str:
        """Act on a lone BEGIN, COMMIT or ROLLBACK and return its status; do nothing and return "" for all others."""
        if {"PREPARED", "CHAIN", "TO"} & set(head):
            return ""

        self._check_open()
        if head[0] in BEGINS:
            if not self.is_in_transaction():
                await self._sandbox.begin(self, readonly="READ" in head and "ONLY" in head)
            return "BEGIN"

        if head[0] in COMMITS:
            if self.is_in_transaction():
                await self._sandbox.commit()
            return "COMMIT"

        if head[0] in ROLLBACKS:
            await self.reset()
            return "ROLLBACK"

        return ""

    def __repr__(self) -> str:
        return f"<SandboxConnection of {self._sandbox.connection!r}>"


class SandboxStatement:
    """A prepared statement whose executions are guarded as the connection's own statements are."""

    def __init__(self, connection: SandboxConnection, query: str, statement: Any) -> None:
        self._connection = connection
        self._query = query
        self._statement = statement

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._statement, name)
        if name not in {"fetch", "fetchval", "fetchrow", "fetchmany", "executemany", "explain"}:
            return attribute

        async def guarded(*args: Any, **options: Any) -> Any:
            return await self._connection._run(self._query, lambda _: attribute(*args, **options))  # noqa: SLF001

        return guarded


class SandboxTransaction:
    """What code under test takes for an :class:`asyncpg.transaction.Transaction`."""

    def __init__(self, connection: SandboxConnection, sandbox: Sandbox, *, readonly: bool) -> None:
        self._connection = connection
        self._sandbox = sandbox
        self._readonly = readonly
        self._state = "new"
        self._managed = False
        self._savepoint = ""

    async def start(self) -> None:
        """Begin, or set a savepoint inside this connection's open transaction."""
        self._expect("new", "start")
        self._state = "failed"
        if self._sandbox.owned_by(self._connection):
            self._savepoint = f"atk_nested_{id(self):x}"
            await self._connection.execute(f"SAVEPOINT {self._savepoint}")
        else:
            await self._sandbox.begin(self._connection, readonly=self._readonly)
        self._state = "started"

    async def commit(self) -> None:
        """Keep what was done."""
        self._refuse_managed("commit")
        await self._commit()

    async def rollback(self) -> None:
        """Drop what was done."""
        self._refuse_managed("rollback")
        await self._roll_back()

    async def __aenter__(self) -> None:
        if self._managed:
            raise asyncpg.InterfaceError("cannot enter context: already in an `async with` block")

        self._managed = True
        await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await (self._commit() if kind is None else self._roll_back())
        finally:
            self._managed = False

    async def _commit(self) -> None:
        self._expect("started", "commit")
        self._state = "failed"
        if self._savepoint:
            await self._connection.execute(f"RELEASE {self._savepoint}")
        else:
            await self._end(self._sandbox.commit)
        self._state = "committed"

    async def _roll_back(self) -> None:
        self._expect("started", "rollback")
        self._state = "failed"
        if self._savepoint:
            await self._connection.execute(f"ROLLBACK TO {self._savepoint}")
        else:
            await self._end(self._sandbox.roll_back)
        self._state = "rolled back"

    async def _end(self, end: Callable[[], Awaitable[None]]) -> None:
        if not self._sandbox.owned_by(self._connection):
            # A text COMMIT or ROLLBACK, or the pool's release, was first. Another's transaction may be open by now.
            raise asyncpg.NoActiveSQLTransactionError("the transaction has already been ended by other means")

        await end()

    def _expect(self, state: str, what: str) -> None:
        if self._state != state:
            raise asyncpg.InterfaceError(f"cannot {what}; the transaction is {self._state}")

    def _refuse_managed(self, what: str) -> None:
        if self._managed:
            raise asyncpg.InterfaceError(f"cannot manually {what} from within an `async with` block")
