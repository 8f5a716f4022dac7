"""What code under test takes for asyncpg's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import asyncpg

if TYPE_CHECKING:
    from types import TracebackType

    from asynctest_kit.isolation.connection import SandboxConnection
    from asynctest_kit.isolation.sandbox import Sandbox

__all__ = ["SandboxTransaction"]

#: A failure is shown where the code under test called us; our own frames say nothing about it.
__tracebackhide__ = True

_State = Literal["new", "started", "committed", "rolled back", "failed"]

#: As asyncpg tells it.
_WORDS = {
    "new": "not yet started",
    "started": "already started",
    "committed": "already committed",
    "rolled back": "already rolled back",
    "failed": "in error state",
}

_LEVELS = {"read_uncommitted", "read_committed", "repeatable_read", "serializable"}


class SandboxTransaction:
    """What code under test takes for an :class:`asyncpg.transaction.Transaction`.

    Raises:
        ValueError: There is no such isolation level.
    """

    def __init__(
        self, connection: SandboxConnection, sandbox: Sandbox, *, isolation: str | None, readonly: bool
    ) -> None:
        if isolation and isolation not in _LEVELS:
            raise ValueError(f"isolation is expected to be either of {_LEVELS}, got {isolation!r}")

        self._connection = connection
        self._sandbox = sandbox
        self._isolation = isolation
        self._readonly = readonly
        self._state: _State = "new"
        self._managed = False
        self._savepoint = ""

    async def start(self) -> None:
        """Begin, or set a savepoint inside this connection's open transaction."""
        self._connection.check_released("transaction")
        if self._state != "new":
            raise asyncpg.InterfaceError(f"cannot start; the transaction is {_WORDS[self._state]}")

        outer = self._connection.outermost
        if outer is None and self._connection.is_in_transaction():
            raise asyncpg.InterfaceError("cannot use Connection.transaction() in a manually started transaction")

        if outer is not None:
            self._check_level(outer)
        self._state = "failed"
        if outer is not None:
            self._savepoint = f"atk_nested_{id(self):x}"
            await self._connection.execute(f"SAVEPOINT {self._savepoint}")
        else:
            await self._sandbox.begin(self._connection, readonly=self._readonly)
            self._connection.outermost = self
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
        if kind is GeneratorExit and self._connection.is_released:
            return  # the release has rolled it back

        try:
            await (self._commit() if kind is None else self._roll_back())
        finally:
            self._managed = False

    async def _commit(self) -> None:
        self._check_started("commit")
        self._state = "failed"
        if self._savepoint:
            await self._connection.execute(f"RELEASE {self._savepoint}")
        else:
            self._check_still_open()
            await self._sandbox.commit()
        self._state = "committed"

    async def _roll_back(self) -> None:
        self._check_started("rollback")
        self._state = "failed"
        if self._savepoint:
            await self._connection.execute(f"ROLLBACK TO {self._savepoint}")
        else:
            self._check_still_open()
            await self._sandbox.roll_back()
        self._state = "rolled back"

    def _check_started(self, what: str) -> None:
        self._connection.check_released("transaction")
        if self._state != "started":
            raise asyncpg.InterfaceError(f"cannot {what}; the transaction is {_WORDS[self._state]}")

    def _check_level(self, outer: SandboxTransaction) -> None:
        level = outer._isolation or "read_committed"  # of the same class
        if self._isolation and self._isolation != level:
            raise asyncpg.InterfaceError(
                f"nested transaction has a different isolation level: current {self._isolation!r} != outer {level!r}"
            )

    def _check_still_open(self) -> None:
        # If a text COMMIT or ROLLBACK was first, another one's transaction may be open by now.
        is_open = self._sandbox.owned_by(self._connection)
        self._connection.outermost = None
        if not is_open:
            raise asyncpg.NoActiveSQLTransactionError("the transaction has already been ended by other means")

    def _refuse_managed(self, what: str) -> None:
        if self._managed:
            raise asyncpg.InterfaceError(f"cannot manually {what} from within an `async with` block")

    def __repr__(self) -> str:
        return f"<SandboxTransaction {self._state}>"
