"""What code under test takes for asyncpg's connection.

Each method has asyncpg's name and signature; all that runs on the server goes through the test's :class:`Sandbox`.
"""

from __future__ import annotations

import functools
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import asyncpg
from asyncpg.connection import _ConnectionProxy

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.codecs import OF_CONNECTION
from asynctest_kit.isolation.prepared import SandboxCursors, SandboxStatement
from asynctest_kit.isolation.refusals import LISTENING, NEEDS_NO_TRANSACTION, explained
from asynctest_kit.isolation.sandbox import Opening
from asynctest_kit.isolation.statements import BEGINS, COMMITS, ROLLBACKS, heads, is_plain, settings_of, without_level
from asynctest_kit.isolation.transaction import SandboxTransaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asynctest_kit.isolation.codecs import Codecs
    from asynctest_kit.isolation.sandbox import Sandbox
    from asynctest_kit.isolation.statements import Head

__all__ = ["SandboxConnection"]

#: A failure is shown where the code under test called us; our own frames say nothing about it.
__tracebackhide__ = True

T = TypeVar("T")

_READ_ONLY = re.compile(r"\bREAD\s+ONLY\b", re.IGNORECASE)

_CONTROLS = BEGINS | COMMITS | ROLLBACKS


def _statement(name: str, opening: Opening = Opening.ALONE) -> Any:
    """A method of :class:`asyncpg.Connection` whose first argument is a query."""
    method = getattr(asyncpg.Connection, name)

    @functools.wraps(method)
    async def guarded(self: SandboxConnection, query: str, *args: Any, **options: Any) -> Any:
        return await self.run(
            query,
            lambda connection: method(connection, query, *args, **options),
            method=name,
            # A time-out of asyncpg's may be up before anything is sent.
            opening=Opening.ALONE if options.get("timeout") is not None else opening,
        )

    return guarded


def _copy(name: str) -> Any:
    """A method of :class:`asyncpg.Connection` that makes its own statement for a table."""
    method = getattr(asyncpg.Connection, name)

    @functools.wraps(method)
    async def guarded(self: SandboxConnection, *args: Any, **options: Any) -> Any:
        return await self.run("COPY", lambda connection: method(connection, *args, **options), method=name)

    return guarded


def _session(name: str) -> Any:
    """A method of :class:`asyncpg.Connection` that changes the connection itself, beyond what a rollback undoes."""
    method = getattr(asyncpg.Connection, name)

    @functools.wraps(method)
    def changing(self: SandboxConnection, *args: Any, **options: Any) -> Any:
        self._sandbox.change_session()
        return getattr(self._real(name), name)(*args, **options)

    return changing


class SandboxConnection(_ConnectionProxy):  # type: ignore[misc]  # asyncpg is untyped; makes isinstance() hold
    """What code under test takes for an :class:`asyncpg.Connection`.

    ``transaction()`` and a lone BEGIN, COMMIT or ROLLBACK act on a savepoint of the test's transaction. Isolation
    levels are accepted and make no difference: nobody else writes what this test can see.
    """

    def __init__(self, sandbox: Sandbox, *, commits: bool) -> None:
        self.commits = commits
        self.codecs: Codecs = OF_CONNECTION
        self._sandbox = sandbox
        self._closed = False
        self._settings: frozenset[str] = frozenset()
        self.is_released = False
        #: The object of the transaction that is open, if it was opened by one.
        self.outermost: SandboxTransaction | None = None

    def _real(self, method: str) -> asyncpg.Connection:
        """The connection itself, for a method of that name."""
        self._check_open(method)
        self._sandbox.check_open()
        return self._sandbox.connection

    def _check_open(self, method: str) -> None:
        self.check_released(method)
        if self._closed:
            raise asyncpg.InterfaceError("connection is closed")

    def check_released(self, method: str) -> None:
        """Raise what asyncpg raises for a connection that is the pool's again."""
        if self.is_released:
            raise asyncpg.InterfaceError(
                f"cannot call Connection.{method}(): connection has been released back to the pool"
            )

    def is_of(self, sandbox: Sandbox) -> bool:
        """Whether it was lent by the pool of that sandbox."""
        return self.commits and self._sandbox is sandbox

    async def run(
        self,
        query: str,
        operation: Callable[[asyncpg.Connection], Awaitable[T]],
        *,
        method: str = "execute",
        opening: Opening = Opening.ALONE,
    ) -> T:
        """Run a statement in the sandbox, for a method of that name."""
        self._check_open(method)
        try:
            result = await self._sandbox.run(self, query, operation, opening=opening)
        except NEEDS_NO_TRANSACTION as error:
            explanation = explained(query, error)
            if self._sandbox.owned_by(self) or not explanation:
                raise  # as everywhere
            raise self._sandbox.refused(explanation) from error
        self._settings |= settings_of(query)
        return result

    async def run_in_transaction(self, query: str, operation: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """The same of what needs an explicit transaction."""
        self._check_open("cursor")
        if not self.is_in_transaction():
            raise asyncpg.NoActiveSQLTransactionError("cursor cannot be created outside of a transaction")
        return await self.run(query, operation)

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:  # noqa: ASYNC109  # asyncpg's
        """See :meth:`asyncpg.Connection.execute`; a lone BEGIN, COMMIT or ROLLBACK is translated."""
        if not args and not is_plain(query):
            found = heads(query)
            status = await self._control(found[0], query) if len(found) == 1 else ""
            if status:
                return status

        query = without_level(query)
        return await self.run(
            query,
            lambda connection: connection.execute(query, *args, timeout=timeout),
            opening=Opening.ALONE if timeout is not None else Opening.AHEAD if args else Opening.TEXT,
        )

    executemany = _statement("executemany")
    fetch = _statement("fetch", Opening.AHEAD)
    fetchval = _statement("fetchval", Opening.AHEAD)
    fetchrow = _statement("fetchrow", Opening.AHEAD)
    fetchmany = _statement("fetchmany")  # of no arguments asyncpg sends nothing
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
        query = without_level(query)
        statement = await self.run(query, lambda connection: connection.prepare(query, **options), method="prepare")
        return SandboxStatement(self, query, statement)

    def cursor(self, query: str, *args: object, **options: Any) -> SandboxCursors:
        """See :meth:`asyncpg.Connection.cursor`; an explicit transaction must be open when it is used."""
        self._check_open("cursor")
        return SandboxCursors(self, query, lambda connection: connection.cursor(query, *args, **options))

    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False, deferrable: bool = False
    ) -> SandboxTransaction:
        """See :meth:`asyncpg.Connection.transaction`; only ``readonly`` makes a difference."""
        del deferrable
        self._check_open("transaction")
        return SandboxTransaction(self, self._sandbox, isolation=isolation, readonly=readonly)

    def is_in_transaction(self) -> bool:
        """Whether this connection has an explicit transaction open; the test's own doesn't count."""
        self.check_released("is_in_transaction")
        return self._sandbox.owned_by(self)

    async def add_listener(self, *_: object) -> NoReturn:
        """Refused: a notification is sent on COMMIT, which never comes."""
        raise self._sandbox.refused(LISTENING)

    async def remove_listener(self, *_: object) -> None:
        """Nothing to remove: listening is refused."""

    def get_server_pid(self) -> int:
        """See :meth:`asyncpg.Connection.get_server_pid`; the same for all connections of a test."""
        pid: int = self._real("get_server_pid").get_server_pid()
        return pid

    def get_server_version(self) -> Any:
        """See :meth:`asyncpg.Connection.get_server_version`."""
        return self._real("get_server_version").get_server_version()

    def get_settings(self) -> Any:
        """See :meth:`asyncpg.Connection.get_settings`."""
        return self._real("get_settings").get_settings()

    def get_reset_query(self) -> str:
        """See :meth:`asyncpg.Connection.get_reset_query`; it is not run between tests."""
        query: str = self._real("get_reset_query").get_reset_query()
        return query

    async def reload_schema_state(self) -> None:
        """See :meth:`asyncpg.Connection.reload_schema_state`."""
        await self._real("reload_schema_state").reload_schema_state()

    async def reset(self, **_: object) -> None:
        """Roll back this connection's explicit transaction, if one is open, and reset what it has set."""
        self._check_open("reset")
        if self.is_in_transaction():
            self.outermost = None
            await self._sandbox.roll_back()
        if self._settings:
            names, self._settings = self._settings, frozenset()
            query = "; ".join(f"RESET {name}" for name in ({"ALL"} if "ALL" in names else sorted(names)))
            with suppress(IsolationError):  # another connection's transaction has failed, or the test has ended
                await self.run(query, lambda connection: connection.execute(query))

    def is_closed(self) -> bool:
        """Whether it was closed, or lost."""
        self.check_released("is_closed")
        return self._closed or bool(self._sandbox.connection.is_closed())

    async def close(self, **_: object) -> None:
        """End the use of this connection; the test's transaction goes on."""
        self.check_released("close")
        try:
            if not self._closed:
                await self.reset()
        finally:
            self._end()

    def terminate(self) -> None:
        """End the use of this connection; the test's transaction goes on."""
        self.check_released("terminate")
        self._end()

    def _end(self) -> None:
        """As a pool of asyncpg's does, ours has a connection back that was closed."""
        self._closed = True
        self.is_released = self.commits
        self._sandbox.take_back(self)

    async def give_back(self) -> None:
        """Go back to the pool, if that was not; an open explicit transaction is rolled back, as asyncpg's pool does."""
        if self.is_released:
            return
        try:
            if not self._closed:
                await self.reset()
        finally:
            self._end()

    async def _control(self, head: Head, query: str) -> str:
        """Act on a lone BEGIN, COMMIT or ROLLBACK and return its status; do nothing and return "" for all others."""
        if {"PREPARED", "CHAIN", "TO"} & set(head) or head[0] not in _CONTROLS:
            return ""

        self._check_open("execute")
        if head[0] in BEGINS:
            if self.is_in_transaction():  # as outside: a warning, or where the transaction has failed an error
                status: str = await self._sandbox.run(self, "SHOW", lambda connection: connection.execute(query))
                return status

            await self._sandbox.begin(self, readonly=bool(_READ_ONLY.search(query)))
            return "BEGIN" if head[0] == "BEGIN" else "START TRANSACTION"

        if head[0] in COMMITS:
            self.outermost = None
            is_kept = not self.is_in_transaction() or await self._sandbox.commit()
            return "COMMIT" if is_kept else "ROLLBACK"

        if head[0] in ROLLBACKS:
            await self.reset()
            return "ROLLBACK"

        return ""

    def __repr__(self) -> str:
        return f"<SandboxConnection of {self._sandbox.connection!r}>"
