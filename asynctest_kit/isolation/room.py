"""Room for connections on one server: tests with databases of their own wait for it, and each gets what it needs.

The problem. A pool opens up to ten connections, and a server takes a hundred or two of all tests together. Who asks for
one too many is refused at once, though the others give theirs back in a moment. Waiting alone doesn't do: of tests that
each hold a connection and want a second one, all would wait for ever.

The rules.

1. A guest, which is a test, claims what its pools may hold at most. It gets one more connection if afterwards all
   guests can still get their claims one after the other, each from what is free and what those before it gave back
   (Dijkstra's banker's algorithm). So nearly all of the room is used, and the last of it goes to who gets done with it.
   Where that is lost, for a claim has grown or others take more, one goes on alone: who wants least.
2. First come, first served; but who holds a connection may pass those who hold none, for they wait for its end.
3. One that is idle in a pool is closed when somebody waits, and so is one of those that are held for tests with a
   transaction. All but one of each database give way, and new ones are made when nobody waits any more.
4. How much room there is the server tells, again and again, for others connect to it, too. What it refuses because of
   them is tried again, by one at a time.
5. A test may want more than there is. If all who hold connections wait for more, and nothing was given back for
   ``patience`` seconds, who tries is refused in the server's own words.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from asynctest_kit.isolation.slots import SlotsExhausted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from asynctest_kit.isolation.slots import Slots

__all__ = ["Guest", "Room"]

#: A failure is shown where the code under test called us; our own frames say nothing about it.
__tracebackhide__ = True

#: Seconds between looks whether a server lets another one come, for a connection was closed: at first, and at most; and
#: how often a guest looks before it waits again.
_PARTING = 0.02
_LONGEST = 0.5
_TRIES = 5

#: Seconds that are waited for others' connections, by who is no guest and by those who are.
_OTHERS = 0.5
_PATIENCE = 20.0

#: Seconds for which it holds how many connections others have.
_KNOWN_FOR = 1.0

T = TypeVar("T")

#: How many more the server takes of this user; ``reserved_connections`` came with PostgreSQL 16.
_FREE = """
SELECT CASE WHEN rolsuper THEN most - everybody ELSE least(
    most - everybody - current_setting('superuser_reserved_connections')::int
    - coalesce(nullif(current_setting('reserved_connections', true), '')::int, 0),
    CASE WHEN rolconnlimit >= 0 THEN rolconnlimit - own END
) END
FROM (SELECT current_setting('max_connections')::int) AS setting (most), pg_roles, (
    SELECT count(*)::int AS everybody, (count(*) FILTER (WHERE usename = current_user))::int AS own
    FROM pg_stat_activity WHERE datid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'
) AS there
WHERE rolname = current_user
"""


class Room:
    """The connections that tests hold on one server, and who waits for one.

    Args:
        patience: Seconds after which those that all wait for each other are no longer left to it.

    Attributes:
        slots: Connections that are held to databases there, for tests with a transaction.
        waited: For how many seconds each guest has waited, by its name; whoever tells of it takes it away.
    """

    def __init__(self, *, patience: float = _PATIENCE) -> None:
        self.slots: set[Slots[Any]] = set()
        self.waited: dict[str, float] = {}
        self._patience = patience
        self._guests: dict[str, Guest] = {}
        self._waiters: list[_Waiter] = []
        self._most: int | None = None
        self._asked = 0.0
        self._is_vague = False
        self._progress = time.monotonic()
        self._look: asyncio.TimerHandle | None = None
        self._is_serving = False
        self._refused = 0
        self._spared = set[asyncio.Future[None]]()

    @property
    def is_waited_for(self) -> bool:
        """Whether a guest waits."""
        return bool(self._waiters)

    @property
    def held(self) -> int:
        """How many connections are held for tests with a transaction, and for what else is the run's."""
        return sum(slots.size for slots in self.slots)

    @contextmanager
    def claimed(self, name: str, most: int) -> Iterator[Guest]:
        """Claim for a test that its pools may hold so many more while the block runs."""
        guest = self._guests.setdefault(name, Guest(self, name))
        guest.claim += most
        try:
            yield guest
        finally:
            guest.claim -= most
            if not guest.claim:
                del self._guests[name]
                self._see_out(guest)
            self.serve()

    async def in_turn(self, connecting: Callable[[], Awaitable[T]], *, may_ask: Callable[[], bool] = lambda: True) -> T:
        """Connect for longer than a test; where the server has no more connections, somebody who holds one gives it.

        Args:
            connecting: Does it.
            may_ask: Whether they are to give one.

        Raises:
            TooManyConnectionsError: Nobody can, or is to.
        """
        pause, began = _PARTING, time.monotonic()
        while True:
            try:
                return await connecting()
            except asyncpg.TooManyConnectionsError:
                since = time.monotonic() - max(began, self._progress)
                if not may_ask() or (self._all_wait() and since > (self._patience if self._guests else _OTHERS)):
                    raise
                self._is_vague = True
                with self._refusal():
                    if await self._is_given():
                        pause, began = _PARTING, time.monotonic()
                    await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST)

    async def connect_held(self, connecting: Callable[[], Awaitable[T]], held: Slots[T], place: str) -> T:
        """Connect for those that are held; only for the first of them others give one, for with it they go on.

        Args:
            connecting: Does it.
            held: Those that are held.
            place: Where to, for people.

        Raises:
            SlotsExhausted: There are no more for them.
        """
        if held.size and self.is_waited_for:
            raise SlotsExhausted("Tests with databases of their own wait for a connection.")
        try:
            return await self.in_turn(connecting, may_ask=lambda: not held.size)
        except asyncpg.TooManyConnectionsError as error:
            raise SlotsExhausted(
                f"{place} has no connection left for tests: {error}. "
                "Close what else is connected, raise the server's max_connections, or lower --concurrency."
            ) from error

    async def open(self, guest: Guest, connecting: Callable[[], Awaitable[Any]]) -> Any:
        """Connect for a guest, when there is room.

        Raises:
            TooManyConnectionsError: There won't be.
        """
        began, is_again = time.monotonic(), False
        while True:
            await self._admitted(guest, is_again=is_again)
            try:
                return await self._opened(guest, connecting)
            except asyncpg.TooManyConnectionsError:
                self._most, self._is_vague = max(1, self._established()), True
                if self._all_wait() and time.monotonic() > max(began, self._progress) + self._patience:
                    raise
                is_again = True
            finally:
                guest.opening -= 1
                self.serve()

    async def _opened(self, guest: Guest, connecting: Callable[[], Awaitable[Any]]) -> Any:
        connection = await self._tried(connecting)
        try:
            await self._ask(connection)
        except BaseException:
            connection.terminate()
            raise
        guest.connections[connection] = None
        connection.add_termination_listener(lambda *_: self._closed(guest, connection))
        self._progress = time.monotonic()
        return connection

    async def _tried(self, connecting: Callable[[], Awaitable[Any]]) -> Any:
        """Connect, and if that is refused have room made; an end that the server hasn't noticed yet is waited for."""
        for _ in range(_TRIES):
            try:
                return await connecting()
            except asyncpg.TooManyConnectionsError:
                with self._refusal():
                    await self._is_given()
                    await asyncio.sleep(_PARTING)
        return await connecting()

    def serve(self) -> None:
        """Let those who wait have what there is."""
        if self._is_serving:  # one was closed for them
            return
        self._is_serving = True
        try:
            self._serve()
        finally:
            self._is_serving = False
        if self._waiters:
            self._look_soon()
        else:
            for slots in self.slots:
                slots.relieve()

    def _serve(self) -> None:
        denied, is_passed = set[Guest](), False
        for waiter in tuple(self._waiters):
            guest = waiter.guest
            is_given_up = waiter.granted.done()  # and has not noticed yet
            if is_given_up or guest in denied or (is_passed and not guest.used):
                continue
            while not (has_room := self._has_room_for(guest)) and self._close_idle():
                pass
            if has_room:
                guest.opening += 1
                self._waiters.remove(waiter)
                waiter.granted.set_result(None)
            else:
                denied.add(guest)
                is_passed = is_passed or not guest.used

    def _has_room_for(self, guest: Guest) -> bool:
        """Whether all can still end when this one gets another connection."""
        if self._most is None:
            return not any(one.opening for one in self._guests.values())
        most = max(1, self._most - len(self.slots))
        now = {one: one.used for one in self._guests.values() if one.used}
        then = now | {guest: guest.used + 1}
        if sum(then.values()) > most:
            return False
        if _can_all_end(then, most):
            return True
        return guest in now and not _can_all_end(now, most) and guest is min(now, key=lambda one: one.claim - one.used)

    async def _admitted(self, guest: Guest, *, is_again: bool) -> None:
        waiter = _Waiter(guest)
        self._waiters.insert(0 if is_again else len(self._waiters), waiter)
        self.serve()
        try:
            with self._timed(guest):
                await waiter.granted
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not waiter.granted.cancelled() and waiter.granted.exception() is None:
                guest.opening -= 1
            self.serve()
            raise

    @contextmanager
    def _timed(self, guest: Guest) -> Iterator[None]:
        """Note for how long it waits, however many it waits for."""
        guest.waiting += 1
        if guest.waiting == 1:
            guest.waits_since = time.monotonic()
        try:
            yield
        finally:
            guest.waiting -= 1
            if not guest.waiting:
                lasted = time.monotonic() - guest.waits_since
                self.waited[guest.name] = self.waited.get(guest.name, 0.0) + lasted

    @contextmanager
    def _refusal(self) -> Iterator[None]:
        self._refused += 1
        try:
            yield
        finally:
            self._refused -= 1

    async def _is_given(self) -> bool:
        """Close one that is idle, or have one closed that is held for transactions; whether any was, or will be."""
        if self._close_idle():
            return True
        self._spared = {closed for closed in self._spared if not closed.done()}
        if len(self._spared) < self._refused:
            spared = (slots.spare() for slots in sorted(self.slots, key=lambda slots: -slots.size))
            self._spared |= {*islice(filter(None, spared), 1)}
        if self._spared:  # or another one goes before
            await asyncio.wait(self._spared, timeout=_LONGEST, return_when=asyncio.FIRST_COMPLETED)
        return bool(self._spared)

    def _close_idle(self) -> bool:
        guests = self._guests.values()
        idle = ((guest, connection) for guest in guests for connection in guest.connections if _is_idle(connection))
        for guest, connection in idle:
            connection.terminate()
            guest.connections.pop(connection, None)  # asyncpg tells of it later only
            return True
        return False

    async def _ask(self, connection: asyncpg.Connection) -> None:
        now = time.monotonic()
        is_known = now < self._asked + _KNOWN_FOR and not (self._is_vague and self._waiters)
        if self._most is not None and is_known:
            return
        self._asked = now
        try:
            free = await connection.fetchval(_FREE)
        except asyncpg.PostgresError:
            free = None
        if free is None:  # it is no PostgreSQL, but takes its protocol: what it refuses tells enough
            self._most = self._most or sys.maxsize
        else:
            # Those that are being opened may be there already: too few are safe, for it is asked again.
            self._most = self._established() + 1 + max(0, free)
            self._is_vague = sum(guest.opening for guest in self._guests.values()) > 1

    def _established(self) -> int:
        return sum(len(guest.connections) for guest in self._guests.values()) + self.held

    def _closed(self, guest: Guest, connection: asyncpg.Connection) -> None:
        guest.connections.pop(connection, None)
        self._is_vague = True
        self._progress = time.monotonic()
        self.serve()

    def _see_out(self, guest: Guest) -> None:
        """Its test has ended: what it left waiting waits for nothing."""
        for waiter in [one for one in self._waiters if one.guest is guest]:
            self._waiters.remove(waiter)
            if not waiter.granted.done():
                waiter.granted.set_exception(asyncpg.InterfaceError("the test has ended, and its pool with it"))

    def _all_wait(self) -> bool:
        """Whether all who hold connections wait for more."""
        waiting = {waiter.guest for waiter in self._waiters}
        return all(guest.opening or guest in waiting for guest in self._guests.values() if guest.used)

    def _look_soon(self) -> None:
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(_LONGEST, self._looked)

    def _looked(self) -> None:
        """Others may have gone: where all wait, one may try whether there is more room than was thought."""
        self._look = None
        guests = self._guests.values()
        for guest in guests:
            guest.forget_closed()
        if self._most is not None and self._all_wait() and not any(guest.opening for guest in guests):
            self._most += 1
            self._is_vague = True
        self.serve()


class Guest:
    """A test, as one that wants connections.

    Attributes:
        name: The test's node id.
        claim: How many its pools may hold.
        connections: Those that it has, the oldest first.
        opening: How many are being opened for it.
        waiting: How many it waits for.
        waits_since: When it began to wait, if it does.
    """

    def __init__(self, room: Room, name: str) -> None:
        self._room = room
        self._loop = asyncio.get_running_loop()
        self.name = name
        self.waiting = 0
        self.waits_since = 0.0
        self.claim = 0
        self.connections: dict[asyncpg.Connection, None] = {}
        self.opening = 0

    @property
    def used(self) -> int:
        """How many it has, or will in a moment."""
        return len(self.connections) + self.opening

    async def connect(self, *args: Any, **options: Any) -> asyncpg.Connection:
        """Do :func:`asyncpg.connect` when there is room; on the loop of another thread at once, as others do.

        Raises:
            TooManyConnectionsError: There won't be.
        """
        if asyncio.get_running_loop() is not self._loop:  # a client of the application that runs it in a thread
            return await asyncpg.connect(*args, **options)
        return await self._room.open(self, partial(asyncpg.connect, *args, **options))

    async def reset(self, connection: asyncpg.Connection) -> None:
        """What a pool does with a connection that it is given back; then it is idle, and may be wanted."""
        query = connection.get_reset_query()
        if query:
            await connection.execute(query)
        if self._room.is_waited_for:
            asyncio.get_running_loop().call_soon(self._room.serve)

    def forget_closed(self) -> None:
        """Forget those whose server has closed them, which asyncpg doesn't always tell."""
        for connection in [one for one in self.connections if one.is_closed()]:
            del self.connections[connection]


class _Waiter:
    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()


def _can_all_end(used: Mapping[Guest, int], most: int) -> bool:
    """Whether each can have what it claims, one after the other: first of all who wants least."""
    free = most - sum(used.values())
    for wanted, has in sorted((min(guest.claim, most) - has, has) for guest, has in used.items()):
        if wanted > free:
            return False
        free += has
    return True


def _is_idle(connection: asyncpg.Connection) -> bool:
    """Whether it waits in its pool."""
    reference = connection._pool_holder  # noqa: SLF001  # nothing public has it
    holder = None if reference is None else reference()
    return holder is not None and holder.is_idle() and not connection.is_closed()
