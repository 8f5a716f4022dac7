"""A TCP proxy before a service, which makes connections slow or breaks them as a test asks.

    async def test_orders_survive_a_reset(faults, postgres):
        proxy = await faults(postgres)
        async with proxy.reset(connections=1):
            ...  # what connects to proxy.endpoint.url is reset once, and connects again

| Fault | What becomes of a connection that it hits |
|---|---|
| latency | all that arrives is passed on later, in order |
| bandwidth | so many bytes a second, and no more |
| reset | it is reset (RST), at once or after so many bytes |
| half_open | the service is gone, and nobody tells: what is sent gets no answer, even after the fault |
| blackhole | nothing passes until the fault ends, and then all that was sent does |
| corrupt | a bit of what arrives is wrong |

A fault hits connections in the order in which they were opened, those that are open first, up to ``connections``; None
is all. It begins and ends with its ``async with``, or with ``start()`` and ``stop()``. What is random comes from a
seed: the test's name, if no other is given.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import time
import zlib
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Self
from urllib.parse import unquote, urlsplit

import msgspec

from asynctest_kit.errors import AtkError
from asynctest_kit.provision.service import Endpoint
from asynctest_kit.provision.waiting import to_its_end
from asynctest_kit.wiring import KIND_OF_IMAGES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = [
    "Connection",
    "Fault",
    "FaultProxyError",
    "FaultWithoutConnectionError",
    "Faults",
    "GivenUp",
    "Piece",
    "Proxy",
    "Toward",
    "open_faults",
]

#: Which way of a connection a fault is in.
Toward = Literal["client", "service", "both"]

_CHUNK: Final = 1 << 16

#: How much of what one side sent is kept while the other has to wait, in chunks.
_KEPT: Final = 64

#: Seconds between a client's last word and its end from which on it has waited for an answer.
_A_WAIT: Final = 0.1

#: Turns of the loop until who has just left is seen to have: before a fault, and at the end of one, where few will do;
#: asyncpg fails if its word that it has given up is cut short at another point.
_TURNS_BEFORE: Final = 6
_TURNS_AFTER: Final = 3

#: Bandwidth is dealt out in so many pieces a second.
_PIECES: Final = 20

#: Connections fail so where this process has too much open.
_OUR_OWN: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

#: Seconds for a service to take a connection, when a proxy for it is opened.
_REACHED_WITHIN: Final = 10.0


class FaultProxyError(AtkError):
    """A proxy could not be opened, or failed on its own account."""


class FaultWithoutConnectionError(AtkError, AssertionError):
    """A fault was made that hit no connection."""


class Fault:
    """What is wrong with the connections that it hits, while it lasts. Made by the methods of :class:`Proxy`."""

    kind = "a fault"

    def __init__(self, proxy: Proxy, toward: Toward, connections: int | None) -> None:
        if toward not in ("client", "service", "both"):
            raise FaultProxyError(f"toward={toward!r} is no way of a connection. Say 'client', 'service' or 'both'.")
        _check("connections", connections if connections is not None else 1, 1)
        self.proxy = proxy
        self._toward = toward
        self._left = connections
        self._hit: set[Connection] = set()
        self._passing: dict[Connection, int] = {}
        self._over = asyncio.Event()
        self.connections = 0
        self._ended: float | None = None

    async def __aenter__(self) -> Self:
        await _see_who_left(_TURNS_BEFORE)
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await _see_who_left(_TURNS_AFTER)
        finally:
            self.stop()

    def start(self) -> None:
        """Begin, with the connections that are open; one whose client has ended its side is not."""
        if self in self.proxy.faults:
            return
        self._over.clear()
        self._ended = None
        self.proxy.begun[self] = None
        self.proxy.faults.append(self)
        for connection in [one for one in self.proxy.open if not one.has_left]:
            self.take(connection)

    def stop(self) -> None:
        """End: what was held up passes."""
        with suppress(ValueError):
            self.proxy.faults.remove(self)
        self._ended = time.monotonic()
        self._over.set()

    def take(self, connection: Connection) -> None:
        """Hit ``connection``, if there are any to be hit."""
        if self._left is not None and len(self._hit) >= self._left:
            return
        self._hit.add(connection)
        self.connections += 1
        connection.hits.append(self)
        self.begin(connection)

    def is_on(self, connection: Connection, toward: Toward) -> bool:
        """Whether it is in this way of ``connection``."""
        return connection in self._hit and self._toward in (toward, "both") and not self._over.is_set()

    def had_ended(self, at: float) -> bool:
        """Whether it was over at a time on CLOCK_MONOTONIC."""
        return self._ended is not None and self._ended < at

    def begin(self, connection: Connection) -> None:
        """Do what is to be done once."""

    async def pass_on(self, connection: Connection, toward: Toward, piece: Piece) -> None:
        """Do to ``piece`` what is to be done to each."""

    async def _wait(self, seconds: float | None) -> None:
        """Wait for so long, at most until the fault ends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()


class Piece:
    """What arrived, and when."""

    def __init__(self, data: bytes, arrived: float) -> None:
        self.data = data
        self.arrived = arrived


class _Latency(Fault):
    kind = "latency"
    seconds = jitter = 0.0

    async def pass_on(self, connection: Connection, toward: Toward, piece: Piece) -> None:  # noqa: ARG002
        delay = self.seconds + self.proxy.random.uniform(-self.jitter, self.jitter)
        await self._wait(max(0.0, piece.arrived + delay - asyncio.get_running_loop().time()))


class _Bandwidth(Fault):
    kind = "little bandwidth"
    rate = 0

    async def pass_on(self, connection: Connection, toward: Toward, piece: Piece) -> None:
        size = max(1, self.rate // _PIECES)
        while len(piece.data) and self.is_on(connection, toward):
            part, piece.data = piece.data[:size], piece.data[size:]
            await self._wait(len(part) / self.rate)
            await connection.write(toward, part)


class _Reset(Fault):
    kind = "a reset"
    after = 0

    def begin(self, connection: Connection) -> None:
        self._passing[connection] = self.after
        if not self.after:
            connection.reset()

    async def pass_on(self, connection: Connection, toward: Toward, piece: Piece) -> None:
        part = piece.data[: self._passing[connection]]
        self._passing[connection] -= len(part)
        if not self._passing[connection]:
            await connection.write(toward, part)
            connection.reset()
            await asyncio.Event().wait()  # its tasks are cancelled


class _HalfOpen(Fault):
    kind = "a half-open connection"

    def had_ended(self, at: float) -> bool:  # noqa: ARG002
        """Never: what it did remains."""
        return False

    def begin(self, connection: Connection) -> None:
        connection.forget_service()


class _Blackhole(Fault):
    kind = "a blackhole"

    async def pass_on(self, connection: Connection, toward: Toward, piece: Piece) -> None:  # noqa: ARG002
        await self._wait(None)


class _Corrupt(Fault):
    kind = "corruption"
    probability = 1.0

    async def pass_on(self, connection: Connection, toward: Toward, piece: Piece) -> None:  # noqa: ARG002
        random = self.proxy.random
        if piece.data and random.random() < self.probability:
            place, bit = random.randrange(len(piece.data)), random.randrange(8)
            wrong = bytearray(piece.data)
            wrong[place] ^= 1 << bit
            piece.data = bytes(wrong)


class GivenUp(NamedTuple):
    """A client waited for an answer that a fault kept from it, and closed its connection.

    Attributes:
        what: The service and the fault, in words.
        start: When the client had sent what it sent last, in seconds on CLOCK_MONOTONIC.
        end: When it closed.
    """

    what: str
    start: float
    end: float


class Proxy:
    """Stands before one service.

    Args:
        upstream: The service.
        seed: What is random depends on it.
        speaks_tls: Whether it ends the service's TLS, so that clients speak none.

    Attributes:
        upstream: The service.
        endpoint: The service, through the proxy; for one that was given as a URL or an address, with what that says.
        connections: How many connections it has taken.
        unreached: How many of them the service did not take; such a one is reset.
        open: Those that are open.
        faults: Those that last.
        begun: All that there have been, in their order.
        given_up: The waits of clients that closed their connection while a fault kept the answer from them.
        random: Where what is random comes from.
    """

    def __init__(self, upstream: Endpoint, seed: int, *, speaks_tls: bool = False) -> None:
        self.endpoint = upstream
        self.connections = 0
        self.unreached = 0
        self.open: list[Connection] = []
        self.faults: list[Fault] = []
        self.begun: dict[Fault, None] = {}
        self.random = Random(seed)  # noqa: S311  # faults, not secrets
        self.errors: list[BaseException] = []
        self.given_up: list[GivenUp] = []
        self.upstream = upstream
        self._speaks_tls = speaks_tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._is_over = False

    @property
    def url(self) -> str:
        """The endpoint's URL with its credentials."""
        return self.endpoint.url

    def latency(
        self, seconds: float, *, jitter: float = 0.0, toward: Toward = "client", connections: int | None = None
    ) -> Fault:
        """Pass on what arrives ``seconds`` later, give or take up to ``jitter`` seconds."""
        fault = _Latency(self, toward, connections)
        fault.seconds, fault.jitter = _check("seconds", seconds, 0), _check("jitter", jitter, 0)
        return fault

    def bandwidth(self, bytes_per_second: int, *, toward: Toward = "client", connections: int | None = None) -> Fault:
        """Let no more than so many bytes a second pass, on each connection."""
        fault = _Bandwidth(self, toward, connections)
        fault.rate = int(_check("bytes_per_second", bytes_per_second, 1))
        return fault

    def reset(self, *, after: int = 0, toward: Toward = "client", connections: int | None = None) -> Fault:
        """Reset connections: at once, or when ``after`` bytes have passed."""
        fault = _Reset(self, toward, connections)
        fault.after = int(_check("after", after, 0))
        return fault

    def half_open(self, *, connections: int | None = None) -> Fault:
        """Have the service gone from connections that stay open, for ever."""
        return _HalfOpen(self, "both", connections)

    def blackhole(self, *, toward: Toward = "both", connections: int | None = None) -> Fault:
        """Let nothing pass until the fault ends."""
        return _Blackhole(self, toward, connections)

    def corrupt(self, *, probability: float = 1.0, toward: Toward = "client", connections: int | None = None) -> Fault:
        """Turn one bit of what arrives together, with a probability."""
        if not 0 <= probability <= 1:
            raise FaultProxyError(f"probability={probability!r} is none. Give a number from 0 to 1.")
        fault = _Corrupt(self, toward, connections)
        fault.probability = probability
        return fault

    async def serve(self) -> None:
        """Make sure that the service is there, and listen.

        Raises:
            FaultProxyError: The service can't be reached.
        """
        try:
            async with asyncio.timeout(_REACHED_WITHIN):
                _, writer = await self.connect()
        except (OSError, TimeoutError) as error:
            said = str(error) or f"no answer within {_REACHED_WITHIN:g} s"
            raise FaultProxyError(
                f"A proxy was asked for before {self.upstream.service}, at {_place(self.upstream)}, and nothing takes"
                f" connections there: {said}. Give faults(...) a service that is up."
            ) from error
        writer.transport.abort()
        await self.listen()

    async def listen(self) -> None:
        """Listen."""
        server = await to_its_end(self._listen())  # cut short, it would leave its socket open
        port = server.sockets[0].getsockname()[1]
        self.endpoint = msgspec.structs.replace(self.upstream, host="127.0.0.1", port=port, socket="")

    async def _listen(self) -> asyncio.Server:
        self._server = await asyncio.start_server(self._admit, "127.0.0.1")
        return self._server

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the service."""
        if self.upstream.socket:
            return await asyncio.open_unix_connection(self.upstream.socket)
        return await asyncio.open_connection(self.upstream.host, self.upstream.port, ssl=self._speaks_tls or None)

    async def aclose(self) -> None:
        """End every connection."""
        try:
            await _see_who_left(_TURNS_AFTER)
        finally:
            await self._end()

    async def _end(self) -> None:
        self._is_over = True
        if self._server is not None:
            self._server.close()
        for fault in list(self.faults):
            fault.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_over:  # it was on its way
            writer.transport.abort()
            return
        connection = Connection(self, reader, writer)
        self.connections += 1
        self.open.append(connection)
        task = asyncio.ensure_future(connection.carry())
        connection.task = task
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._ended(connection, task))
        for fault in list(self.faults):
            fault.take(connection)

    def _ended(self, connection: Connection, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.open.remove(connection)
        connection.close()
        error = None if task.cancelled() else task.exception()
        if isinstance(error, _Unreached):
            self.unreached += 1
        elif error is not None:
            self.errors.append(error)


class _Unreached(Exception):  # noqa: N818  # no error of the proxy's
    """The service did not take a connection."""


class Connection:
    """A client's connection, and the one to the service behind it."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = reader, writer
        self._service: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._is_dead = False
        self._held = 0
        self._asked = self._answered = 0.0
        self.has_left = False
        self.hits: list[Fault] = []
        self.task: asyncio.Task[None] | None = None

    async def carry(self) -> None:
        """Carry both ways until both have ended, or one of them was reset."""
        try:
            self._service = await self._proxy.connect()
        except OSError as error:
            self._reset_client()
            if error.errno in _OUR_OWN:
                raise
            raise _Unreached from error
        if self._is_dead:
            self.forget_service()
        try:
            async with asyncio.TaskGroup() as group:
                for toward in ("service", "client"):
                    self._start(group, toward)
        except* OSError:
            self._reset_client()
        for _, writer in (self._client, self._service):
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()  # what was written is sent

    def _start(self, group: asyncio.TaskGroup, toward: Toward) -> None:
        kept: asyncio.Queue[Piece] = asyncio.Queue(_KEPT)
        group.create_task(self._read(toward, kept))
        group.create_task(self._pass(toward, kept))

    async def _read(self, toward: Toward, kept: asyncio.Queue[Piece]) -> None:
        assert self._service is not None  # noqa: S101  # it is connected
        reader = (self._client if toward == "service" else self._service)[0]
        data = b"-"
        while data:
            try:
                data = await reader.read(_CHUNK)
            except OSError:
                if toward == "service":
                    self._left()
                if toward == "service" or not self._is_dead:
                    raise
                return
            if toward == "service" and data:
                self._asked = time.monotonic()
            elif toward == "service":
                self._left()
            await kept.put(Piece(data, asyncio.get_running_loop().time()))

    async def _pass(self, toward: Toward, kept: asyncio.Queue[Piece]) -> None:
        while True:
            piece = await kept.get()
            is_last = not piece.data
            done: set[Fault] = set()
            while (fault := self._next(toward, done)) is not None:
                done.add(fault)
                self._held += 1
                await fault.pass_on(self, toward, piece)
                self._held -= 1
            if is_last:
                self._end(toward)
                return
            await self.write(toward, piece.data)

    def _next(self, toward: Toward, done: set[Fault]) -> Fault | None:
        """A fault that hasn't had the piece: one may have begun while it waited for another."""
        return next((one for one in self._proxy.faults if one not in done and one.is_on(self, toward)), None)

    async def write(self, toward: Toward, data: bytes) -> None:
        """Pass ``data`` on."""
        if not data or self._is_dead:
            return
        assert self._service is not None  # noqa: S101  # it is connected
        writer = (self._service if toward == "service" else self._client)[1]
        if toward == "client":
            self._answered = time.monotonic()
        writer.write(data)
        await writer.drain()

    def _left(self) -> None:
        """The client has gone: note for how long it had waited, if a fault kept the answer from it."""
        self.has_left = True
        now = time.monotonic()
        kinds = dict.fromkeys(one.kind for one in self.hits if not one.had_ended(self._asked))
        is_waiting = self._held > 0 or self._asked > self._answered
        if kinds and is_waiting and now - self._asked >= _A_WAIT:  # what says goodbye and goes has not waited
            what = f"{self._proxy.endpoint.service} with {' and '.join(kinds)}"
            self._proxy.given_up.append(GivenUp(what, self._asked, now))

    def _end(self, toward: Toward) -> None:
        """Say that one side sends no more."""
        assert self._service is not None  # noqa: S101  # it is connected
        if self._is_dead:
            if toward == "service" and self.task is not None:
                self.task.cancel()  # the client has gone, too
            return
        writer = (self._service if toward == "service" else self._client)[1]
        with suppress(OSError, RuntimeError):
            writer.write_eof()

    def reset(self) -> None:
        """Reset it."""
        self._reset_client()
        if self.task is not None:
            self.task.cancel()

    def forget_service(self) -> None:
        """Drop the service's side without a word to the client."""
        self._is_dead = True
        if self._service is not None:
            self._service[1].transport.abort()

    def close(self) -> None:
        """Drop both sides."""
        for side in (self._client, self._service):
            if side is not None:
                side[1].transport.abort()

    def _reset_client(self) -> None:
        transport = self._client[1].transport
        with suppress(OSError, AttributeError):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


class Faults:
    """Opens proxies, which end with the test."""

    def __init__(self, test: str) -> None:
        self._test = test
        self._proxies: deque[Proxy] = deque()
        self._optional: set[Fault] = set()
        self._all_optional = False

    async def __call__(self, service: Endpoint | str, *, seed: int | None = None) -> Proxy:
        """A proxy before ``service``.

        Args:
            service: An endpoint, or a URL or ``host:port``.
            seed: What is random depends on it; the test's name, if none is given.

        Raises:
            FaultProxyError: ``service`` is neither, or can't be reached.
        """
        if not isinstance(service, (Endpoint, str)):
            raise FaultProxyError(
                f"faults(...) was given {type(service).__name__}, and takes a service: an endpoint as `postgres` and "
                '`redis_server` are, a URL, or "host:port".'
            )
        upstream = service if isinstance(service, Endpoint) else _endpoint(service)
        proxy = Proxy(upstream, zlib.crc32(self._test.encode()) if seed is None else seed)
        self._proxies.append(proxy)
        await proxy.serve()
        return proxy

    @property
    def given_up(self) -> list[GivenUp]:
        """The waits of clients that a fault kept an answer from."""
        return [one for proxy in self._proxies for one in proxy.given_up]

    def optional(self, *faults: Fault) -> None:
        """Let ``faults``, or all if none is given, hit no connection."""
        self._optional.update(faults)
        self._all_optional = self._all_optional or not faults

    def check(self) -> None:
        """Make sure that each fault hit a connection.

        Raises:
            FaultWithoutConnectionError: One didn't, so it tested nothing.
        """
        missed = [fault for proxy in self._proxies for fault in proxy.begun if not self._may_miss(fault)]
        if missed:
            lines = [f"{self._test} made faults that hit no connection:", *map(_missed, missed)]
            lines.append(
                "What was called while they held was called directly. Give the code under test proxy.url, or"
                " proxy.endpoint; a fault that may hit nothing is told to faults.optional(fault)."
            )
            raise FaultWithoutConnectionError("\n".join(lines))

    def _may_miss(self, fault: Fault) -> bool:
        return self._all_optional or fault.connections > 0 or fault in self._optional

    async def aclose(self) -> None:
        """End all.

        Raises:
            FaultProxyError: One failed on its own account.
        """
        async with AsyncExitStack() as stack:  # one that is cut short keeps no other open
            for proxy in self._proxies:
                stack.push_async_callback(proxy.aclose)
        errors = [error for proxy in self._proxies for error in proxy.errors]
        if errors:
            raise FaultProxyError(f"A proxy of {self._test} failed by itself: {errors[0]!r}") from errors[0]


@asynccontextmanager
async def open_faults(test: str) -> AsyncIterator[Faults]:
    """The proxies of one test, for as long as the block runs.

    Raises:
        FaultProxyError: At the end: one failed on its own account.
    """
    opened = Faults(test)
    try:
        yield opened
    finally:
        await opened.aclose()


async def _see_who_left(turns: int) -> None:
    """Have those who closed their connections just now seen to have.

    Before a fault, so that it doesn't hit them; after it, while what they waited for is held up.
    """
    for _ in range(turns):
        await asyncio.sleep(0)


def _missed(fault: Fault) -> str:
    """A fault that hit nothing, and who came by without it."""
    proxy = fault.proxy
    others = "nothing connected there" if not proxy.connections else f"connections without it: {proxy.connections}"
    return f"  {fault.kind} between the code under test and {_place(proxy.upstream)}; {others}"


def _place(upstream: Endpoint) -> str:
    return upstream.socket or f"{upstream.host}:{upstream.port}"


#: Ports of URLs that have none.
_PORTS: Final = {
    "amqp": 5672, "http": 80, "https": 443, "nats": 4222, "postgres": 5432, "postgresql": 5432, "redis": 6379,
    "rediss": 6379,
}  # fmt: skip


def _endpoint(address: str) -> Endpoint:
    try:
        parts = urlsplit(address if "://" in address else f"tcp://{address}")
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        parts, port = urlsplit(""), None
    if not parts.hostname or not port:
        raise FaultProxyError(
            "faults(...) takes an endpoint, a URL or 'host:port', and what it was given says no host and port."
        )
    return Endpoint(
        service=f"{parts.hostname}:{port}",
        kind=KIND_OF_IMAGES,
        provider="external",
        scheme=parts.scheme,
        host=parts.hostname,
        port=port,
        username=unquote(parts.username or "") or None,
        password=unquote(parts.password or "") or None,
        database=parts.path.removeprefix("/") or None,
        query=parts.query,
    )


def _check(name: str, value: float, least: float) -> float:
    if value < least:
        raise FaultProxyError(f"{name}={value!r} is too little. Give {least:g} or more.")
    return value
