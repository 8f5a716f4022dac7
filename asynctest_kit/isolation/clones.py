"""Clones of a template for one test each: made before they are asked for, dropped behind the tests' backs.

The problem. A clone costs several times what connecting to it costs, and so does dropping it. A test that waits for
either has not begun, or holds up the next; but each clone that nobody takes is a copy of the database in memory.

The rules.

1. In stock is what will be asked for while one more is made (how long that takes, over how long it is from one lease to
   the next, both as measured), plus one; at least one, at most ``_MOST``; never more than tests are still to come that
   will want one. Who asks when there is none waits for the next that is made, first come first served.
2. Sessions that make and drop are sessions of the server's maintenance database: the template has none, or it could not
   be cloned. Their application name is what the names of the clones begin with: they are the clones' keepers (see
   :mod:`asynctest_kit.isolation.templates`), so a run that is killed leaves what the next one drops. Where the server
   has no more connections, one session does it all.
3. Used clones are dropped one at a time, by force. One that can't be dropped is told at the end.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections import deque
from contextlib import asynccontextmanager, suppress
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Literal, TypeVar

import asyncpg
import msgspec

from asynctest_kit.errors import IsolationError, MigrationError
from asynctest_kit.isolation.databases import SESSION_LOST, create, drop, needs_privilege
from asynctest_kit.isolation.postgres import close, connect, is_open
from asynctest_kit.isolation.room import Room
from asynctest_kit.isolation.slots import REFILL_PAUSE, Slots

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import TracebackType
    from typing import Self

    from asynctest_kit.isolation.databases import Template
    from asynctest_kit.provision.service import Endpoint

__all__ = ["Clones"]

#: A failure is shown where the code under test called us; our own frames say nothing about it.
__tracebackhide__ = True

#: Most in stock.
_MOST = 8

#: Sessions: the makers' and the dropper's.
_SESSIONS = 3

#: How much the last measurement counts beside those before it.
_WEIGHT = 0.3

T = TypeVar("T")

_GONE = (*SESSION_LOST, asyncpg.CannotConnectNowError)


def _unmeasured(_what: Literal["clone", "drop"], _start: float, _end: float) -> None:
    pass


def _untold(_owner: str, _text: str) -> None:
    pass


class Clones:
    """A stock of clones; use it as an async context manager.

    Args:
        template: What is cloned.
        expected: How many leases are to come, as far as is known: none is made in advance for those beyond.
        measured: Told of each that was made or dropped, and when (CLOCK_MONOTONIC).
        told: Told whose a clone was, and what was left in it that would have kept it from being dropped.
        room: The room on the server for connections; none if nobody else wants any.
        clock: What tells how long a clone takes, and how long it is from one lease to the next.

    Raises:
        IsolationError: On exit: clones are left on the server.
    """

    def __init__(  # noqa: PLR0913 (who is told of what)
        self,
        template: Template,
        *,
        expected: int = 0,
        measured: Callable[[Literal["clone", "drop"], float, float], None] = _unmeasured,
        told: Callable[[str, str], None] = _untold,
        room: Room | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._template = template
        self._expected = expected
        self._clock = clock
        self._measured = measured
        self._told = told
        self._owners: dict[str, str] = {}
        self._name = f"atk_run_{secrets.token_hex(6)}"
        self._made = 0
        self._slots: Slots[str] = Slots(
            self._make, close=self._drop, usable=lambda _: True, limit=sys.maxsize, ahead=self._stock
        )
        self._room = Room() if room is None else room
        self._sessions: Slots[asyncpg.Connection] = Slots(self._connect, close=close, usable=is_open, limit=_SESSIONS)
        self._dropping = asyncio.TaskGroup()
        self._used: deque[str] = deque()
        self._is_dropping = False
        self._left: list[str] = []
        self._cost = 0.0
        self._between: float | None = None
        self._last_lease: float | None = None

    async def __aenter__(self) -> Self:
        await self._sessions.__aenter__()
        self._room.slots.add(self._sessions)
        await self._dropping.__aenter__()
        await self._slots.__aenter__()
        self._slots.grow()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._slots.__aexit__(None, None, None)
            await self._dropping.__aexit__(None, None, None)
        finally:
            self._room.slots.discard(self._sessions)
            await self._sessions.__aexit__(None, None, None)
        if self._left:
            raise IsolationError(
                f"Databases of single tests are left on {self._template.server.safe_url}, for they could not be "
                f"dropped: {'; '.join(self._left)}. The next run tries again."
            )

    @asynccontextmanager
    async def lease(self, owner: str = "") -> AsyncIterator[Endpoint]:
        """A database of one test's own.

        Args:
            owner: Whose it is, for those who tell of it: a node id.

        Raises:
            MigrationError: The server's user may not create databases.
        """
        self._note_lease()
        name = await self._slots.take()
        self._owners[name] = owner
        try:
            yield msgspec.structs.replace(self._template.server, database=name)
        finally:
            self._slots.discard()
            self._drop_later(name)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is being made or dropped."""
        return not (self._is_dropping or self._slots.making)

    def _stock(self) -> int:
        wanted = 1 + ceil((self._cost + REFILL_PAUSE) / self._between) if self._between else _MOST
        return min(wanted, _MOST, self._expected)

    def _note_lease(self) -> None:
        self._expected = max(0, self._expected - 1)
        now = self._clock()
        if self._last_lease is not None:
            self._between = _smoothed(self._between, now - self._last_lease)
        self._last_lease = now

    async def _make(self) -> str:
        start = self._clock()
        try:
            name = await self._trying(self._clone)
        except asyncpg.InsufficientPrivilegeError as error:
            raise MigrationError(needs_privilege(self._template.server, error)) from error

        if not self._slots.is_waited_for:
            await self._warm(name)
        end = self._clock()
        self._cost = _smoothed(self._cost or None, end - start)
        self._measured("clone", start, end)
        return name

    async def _clone(self, connection: asyncpg.Connection) -> str:
        self._made += 1
        name = f"{self._name}_{self._made}"
        try:
            await create(connection, name, self._template)
        except SESSION_LOST:
            self._drop_later(name)  # whether it was made, nobody knows
            raise
        return name

    async def _warm(self, name: str) -> None:
        """Connect once: a database's first session reads its catalogue, which takes a third of connecting."""
        with suppress(asyncpg.PostgresError, *SESSION_LOST, TimeoutError):  # whoever comes next is told
            await (await connect(self._template.server, database=name, name=self._name)).close(timeout=2)

    def _drop_later(self, name: str) -> None:
        self._used.append(name)
        if not self._is_dropping:
            self._is_dropping = True
            self._dropping.create_task(self._drop_used())

    async def _drop_used(self) -> None:
        while self._used:
            await self._drop(self._used.popleft())
        self._is_dropping = False

    async def _drop(self, name: str) -> None:
        owner, start = self._owners.pop(name, ""), self._clock()
        try:
            prepared = await self._trying(lambda connection: drop(connection, self._template.server, name))
        except _GONE as error:
            if self._template.server.provider == "external":  # any other has taken it along
                self._left.append(f"{name} ({error})")
        except Exception as error:  # noqa: BLE001  # told at the end; the others are dropped first
            self._left.append(f"{name} ({error})")
        else:
            self._measured("drop", start, self._clock())
            if prepared:
                self._told(
                    owner,
                    f"left prepared transactions in its own database ({', '.join(prepared)}), which were rolled back: "
                    "COMMIT PREPARED or ROLLBACK PREPARED them",
                )

    async def _trying(self, operation: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Run it in a session, and if that was ended meanwhile, by a test, in another one."""
        try:
            return await self._in_session(operation)
        except SESSION_LOST:
            return await self._in_session(operation)

    async def _in_session(self, operation: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        connection = await self._sessions.take()
        is_done = False
        try:
            result = await operation(connection)
            is_done = True
        except asyncpg.PostgresError:
            is_done = not connection.is_closed()
            raise
        finally:
            if is_done:
                self._sessions.give_back(connection)
            else:
                connection.terminate()
                self._sessions.discard()
        return result

    async def _connect(self) -> asyncpg.Connection:
        server = self._template.server
        return await self._room.connect_held(partial(connect, server, name=self._name), self._sessions, server.safe_url)


def _smoothed(before: float | None, now: float) -> float:
    return now if before is None else before + _WEIGHT * (now - before)
