"""The client of one test: redis-py's own, on connections that keep to the test's lease."""

from __future__ import annotations

import asyncio
from copy import copy
from typing import TYPE_CHECKING, Any

from redis.asyncio import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import NoPermissionError, ResponseError

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.redis_names import command_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from asynctest_kit.isolation.redis_names import Names
    from asynctest_kit.provision.service import Endpoint

__all__ = ["HINT", "LeasePool", "client_like", "connection_class"]

#: A failure is shown where the code under test called us; our own frames say nothing about it.
__tracebackhide__ = True

#: What helps whoever needs more than a leased database.
HINT = (
    '@pytest.mark.atk(isolation="server") gives the test a server of its own; '
    "`python3 -m pydoc asynctest_kit.isolation.redis` says what a lease can't."
)

_ENDED = (
    "A Redis client of a test that has ended was used: something that the test started goes on after it. "
    "Stop it in the test, or in the tear-down of the fixture that started it."
)

_BLOCKING = frozenset(
    "BLPOP BRPOP BLMOVE BRPOPLPUSH BLMPOP BZPOPMIN BZPOPMAX BZMPOP XREAD XREADGROUP WAIT".split()  # noqa: SIM905
)

#: What a connection remembers, and the next test would meet; ``CLIENT`` does by these subcommands.
_CHANGES_CONNECTION = frozenset(
    """
    AUTH HELLO MONITOR PSUBSCRIBE QUIT SSUBSCRIBE SUBSCRIBE WATCH
    CACHING NO-EVICT NO-TOUCH REPLY SETNAME TRACKING
    """.split()  # noqa: SIM905
)

_LEAVES = frozenset({"SELECT", "SWAPDB", "MOVE", "RESET", "SHUTDOWN"})


class _Guard:
    """Keeps a connection inside its lease, and a test that has ended out of the next one's."""

    leased = True
    names: Names
    #: Whether replies may tell names that were changed on their way.
    tells_names = False
    #: Whether it is not as it was when it was made.
    is_changed = False
    #: The last command that was sent, for those who tell what a test left.
    last = ""
    #: Whether to ask for the server's number of it, for those who have no user to end it by.
    asks_number = False
    number: int | None = None
    #: How many commands have no answer yet. Too many may be counted, never too few.
    unanswered = 0
    #: The numbers under which it was closed before all answers came: the server may still run what was sent.
    given_up: tuple[int | None, ...] = ()

    async def connect(self) -> None:
        if not self.leased:
            raise IsolationError(_ENDED)

        is_new = not self.is_connected  # type: ignore[attr-defined]  # of the connection mixed in
        if is_new:
            self.number = None
        try:
            await super().connect()  # type: ignore[misc]  # of the connection mixed in
            if is_new and self.asks_number:
                await self.send_command("CLIENT", "ID", check_health=False)  # type: ignore[attr-defined]  # likewise
                self.number = await self.read_response()
        except AttributeError:
            # redis-py loses its stream when it is disconnected while it connects.
            if self.leased:
                raise
        if is_new:
            self.is_changed = False  # by the greeting, which every test's connection has had
        if not self.leased:
            # The test ended meanwhile, and what closed its connections found this one not yet open.
            await self.disconnect(nowait=True)
            raise IsolationError(_ENDED)

    async def disconnect(self, *args: Any, **options: Any) -> None:
        # A closed transport still sends what was written to it, and what was sent is still run.
        if self.is_connected and self.unanswered:  # type: ignore[attr-defined]  # of the connection mixed in
            self.given_up += (self.number,)
        await super().disconnect(*args, **options)  # type: ignore[misc]  # of the connection mixed in

    def pack_command(self, *args: Any) -> Any:  # of a pipeline each is packed by it, too
        packed = super().pack_command(*self._guarded(args))  # type: ignore[misc]  # of the connection mixed in
        self.unanswered += 1
        return packed

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # redis-py's
        """As redis-py's, which has a task and a timer of its own for each, though most are sent at once."""
        if self._sends_at_once and not (check_health and self.health_check_interval):  # type: ignore[attr-defined]
            text = command.encode() if isinstance(command, str) else command
            transport = self._writer.transport  # type: ignore[attr-defined]  # of the connection mixed in
            transport.write(text if isinstance(text, bytes) else b"".join(text))
            if not transport.get_write_buffer_size():
                return
            command, check_health = [], False  # wait for what is left, as long as redis-py would
        await super().send_packed_command(command, check_health)  # type: ignore[misc]  # of the connection mixed in

    @property
    def _sends_at_once(self) -> bool:
        """Whether nothing waits to be sent, and nothing is known that would fail."""
        writer, reader = getattr(self, "_writer", None), getattr(self, "_reader", None)
        if writer is None or reader is None or writer.transport.is_closing() or reader.exception() is not None:
            return False
        return not writer.transport.get_write_buffer_size()

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            reply = await super().read_response(*args, **options)  # type: ignore[misc]  # of the connection mixed in
        except ResponseError as error:
            self._answered()
            if isinstance(error, NoPermissionError):
                error.args = (f"{error}. {HINT}",)
            raise
        self._answered()
        return self.names.shown(reply) if self.tells_names else reply

    def _answered(self) -> None:
        self.unanswered = max(0, self.unanswered - 1)  # messages are answers to nothing

    def _guarded(self, command: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self.leased:
            raise IsolationError(_ENDED)

        name = self.last = command_name(command)
        self.is_changed |= (_subcommand(command) if name == "CLIENT" else name) in _CHANGES_CONNECTION
        if name == "FLUSHALL":
            command, name = ("FLUSHDB", *command[1:]), "FLUSHDB"
        if _leaves(name, command, self.db):  # type: ignore[attr-defined]  # of the connection mixed in
            raise IsolationError(
                f"{name} would leave this test's logical database. Each test has one of its own: use the clients "
                f"and URLs that the fixtures redis and redis_url give. {HINT}"
            )

        sent = self.names.sent(name, command)
        self.tells_names |= sent is not command
        return sent


def _subcommand(command: tuple[Any, ...]) -> str:
    words = " ".join(part.decode(errors="replace") if isinstance(part, bytes) else str(part) for part in command[:2])
    return words.upper().split()[1] if " " in words else ""


def _leaves(name: str, command: tuple[Any, ...], database: int) -> bool:
    if name == "COPY":
        options = [command_name((word,)) for word in command[3:] if isinstance(word, (bytes, str))]
        return "DB" in options and str(command[4 + options.index("DB")]) != str(database)
    return name in _LEAVES and command[1:] != (database,)


class _GuardedConnection(_Guard, Connection):
    pass


class _GuardedSocketConnection(_Guard, UnixDomainSocketConnection):
    pass


class _GuardedSSLConnection(_Guard, SSLConnection):
    pass


def connection_class(endpoint: Endpoint, *, guarded: bool = True) -> Any:
    """Which of redis-py's a server is reached by, guarded or not."""
    if endpoint.socket:
        return _GuardedSocketConnection if guarded else UnixDomainSocketConnection
    if endpoint.scheme == "rediss":
        return _GuardedSSLConnection if guarded else SSLConnection
    return _GuardedConnection if guarded else Connection


def client_like(client: Redis, pool: LeasePool) -> Redis:
    """Another client like one that was made by default and never used, on another pool.

    Most of what making one costs is its table of what becomes of each command's reply; each has its own.
    """
    other = copy(client)
    table = client.response_callbacks
    callbacks: Any = type(table).__new__(type(table))
    dict.update(callbacks, table)  # whose keys are as the table's own method would make them
    other.response_callbacks = callbacks
    other.connection_pool = pool
    return other


def _nowhere(_task: asyncio.Task[Any]) -> str:
    return ""


class LeasePool(ConnectionPool):  # type: ignore[type-arg, unused-ignore]  # generic in the stubs of some versions
    """One test's connections, of which the first is held for the next test.

    Args:
        held: That one.
        make: Makes another.
        options: What redis-py's connections take, for those who ask the pool.

    Attributes:
        is_broken: Whether the test changed the held one, did not give it back, or gave up a command, so that none is
            held any more.
    """

    def __init__(self, held: Any, make: Callable[[], Any], options: dict[str, Any]) -> None:
        super().__init__(connection_class=type(held), **options)
        self._held = held
        self._make = make
        self._made: list[Any] = []
        self._lent: dict[Any, asyncio.Task[Any] | None] = {}
        self.whereabouts: Callable[[asyncio.Task[Any]], str] = _nowhere
        self._ended = False
        self.is_broken = False

    @property
    def is_used(self) -> bool:
        """Whether a command can have been sent."""
        return bool(self._made)

    @property
    def at_work(self) -> tuple[str, ...]:
        """What connections that were not given back are doing, in words."""
        mend = "await it, or cancel it in the test or in the tear-down of the fixture that started it"
        return tuple(
            f"it ended while {each.last} was waiting{'' if task is None else self.whereabouts(task)}: {mend}"
            for each, task in self._lent.items()
            if each.last in _BLOCKING
        )

    def make_connection(self) -> Any:
        """The held one, or another."""
        connection = self._make() if self._made else self._held
        self._made.append(connection)
        return connection

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        """Wait for one that is open.

        Raises:
            IsolationError: The test has ended.
        """
        if self._ended:
            raise IsolationError(_ENDED)

        return await super().get_connection(*args, **options)  # type: ignore[no-untyped-call, unused-ignore]

    def get_available_connection(self) -> Any:
        """Lend one, before it is waited for: a connection that still says hello is not the next test's either."""
        connection = super().get_available_connection()  # type: ignore[no-untyped-call, unused-ignore]
        self._lent[connection] = asyncio.current_task()
        return connection

    async def release(self, connection: Any) -> None:
        """Take one back."""
        self._lent.pop(connection, None)
        await super().release(connection)

    @property
    def given_up(self) -> tuple[int | None, ...]:
        """The server's numbers of connections that were closed before all answers came, None where not asked for."""
        return tuple(number for each in self._made for number in each.given_up)

    async def end(self) -> None:
        """Close all connections but the held one, and that too if it is not as it was, or not given back."""
        self._ended = True
        # What ends those that were given up ends all of the lease's user.
        is_given_up = any(each.unanswered or each.given_up for each in self._made)
        self.is_broken = is_given_up or self._held in self._lent or self._held.is_changed
        closing = [each for each in self._made if each is not self._held or self.is_broken]
        for connection in closing:
            connection.leased = False
        for connection in closing:
            await connection.disconnect(nowait=True)
