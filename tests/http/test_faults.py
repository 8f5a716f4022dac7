"""The fault proxy before PostgreSQL, Redis and HTTP, for an app that tries again and one that doesn't."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import httpx
import pytest
from redis.asyncio import Connection

from asynctest_kit.http.faults import Fault, FaultProxyError, FaultWithoutConnectionError, Proxy, open_faults
from asynctest_kit.provision.service import Endpoint

pytestmark = pytest.mark.anyio

#: Long enough for a wrong bit to be in it rather than around it.
TEXT = "0123456789abcdef" * 250

#: Seconds of the first try, which is to fail, and of the second.
PATIENCE = (0.3, 40.0)

#: For ever, as far as a test can tell.
LATE = 3600.0

FAULTS: dict[str, Callable[[Proxy], Fault]] = {
    "latency": lambda proxy: proxy.latency(LATE, connections=1),
    "jitter": lambda proxy: proxy.latency(LATE, jitter=LATE / 2, connections=1),
    "bandwidth": lambda proxy: proxy.bandwidth(1, connections=1),
    "reset": lambda proxy: proxy.reset(after=1, connections=1),
    "half-open": lambda proxy: proxy.half_open(connections=1),
    "blackhole": lambda proxy: proxy.blackhole(connections=1),
    "corrupt": lambda proxy: proxy.corrupt(connections=1),
}

#: Asks the service for the text, on one connection.
Ask = Callable[[], Awaitable[str]]


@asynccontextmanager
async def to_postgres(endpoint: Endpoint) -> AsyncIterator[Ask]:
    connection = await asyncpg.connect(
        host=endpoint.host,
        port=endpoint.port,
        user=endpoint.username,
        password=endpoint.password,
        database=endpoint.database,
    )
    try:
        yield lambda: connection.fetchval("SELECT $1::text", TEXT)
    finally:
        connection.terminate()


@asynccontextmanager
async def to_redis(endpoint: Endpoint) -> AsyncIterator[Ask]:
    connection = Connection(host=endpoint.host, port=endpoint.port, password=endpoint.password)
    await connection.connect()

    async def ask():
        await connection.send_command("ECHO", TEXT)
        return (await connection.read_response()).decode()

    try:
        yield ask
    finally:
        await connection.disconnect(nowait=True)


@asynccontextmanager
async def to_http(endpoint: Endpoint) -> AsyncIterator[Ask]:
    async with httpx.AsyncClient(verify=False, timeout=None) as client:

        async def ask():
            return (await client.get(endpoint.url)).text

        yield ask


class App:
    """Holds a connection, as pools do, and gives it up for a new one when it fails."""

    def __init__(self, connect, endpoint, tries):
        self._connect, self._endpoint, self._patience = connect, endpoint, PATIENCE[:tries]

    async def __aenter__(self):
        self._held = contextlib.AsyncExitStack()
        self._ask = await self._held.enter_async_context(self._connect(self._endpoint))
        assert await self._ask() == TEXT
        return self

    async def __aexit__(self, *_):
        await self._held.aclose()

    async def text(self):
        errors = []
        for seconds in self._patience:
            try:
                async with asyncio.timeout(seconds):
                    if errors:
                        await self._held.aclose()
                        self._ask = await self._held.enter_async_context(self._connect(self._endpoint))
                    found = await self._ask()
                    assert found == TEXT
                    return found
            except Exception as error:  # noqa: BLE001  # whatever a client makes of it
                errors.append(error)
        raise ExceptionGroup("the service doesn't answer", errors)


async def served(reader, writer):
    """HTTP: the text, whatever is asked for."""
    with contextlib.suppress(OSError):
        while await reader.readline():
            while await reader.readline() not in {b"\r\n", b""}:
                pass
            writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(TEXT)}\r\n\r\n{TEXT}".encode())
            await writer.drain()
    writer.close()


@pytest.fixture
async def web():
    server = await asyncio.start_server(served, "127.0.0.1")
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    server.close()


async def gets_an_answer_if_it_tries_again(proxy, kind, connect):
    async with App(connect, proxy.endpoint, tries=1) as app, FAULTS[kind](proxy) as fault:
        with pytest.raises(ExceptionGroup, match="doesn't answer"):
            await app.text()
        assert fault.connections == 1
    async with App(connect, proxy.endpoint, tries=2) as app, FAULTS[kind](proxy) as fault:
        assert await app.text() == TEXT
        assert fault.connections == 1
    assert proxy.connections >= 3
    assert not proxy.unreached


@pytest.mark.parametrize("kind", FAULTS)
async def test_who_tries_again_gets_an_answer_of_postgres(faults, postgres, kind):
    await gets_an_answer_if_it_tries_again(await faults(postgres, seed=1), kind, to_postgres)


@pytest.mark.parametrize("kind", FAULTS)
async def test_who_tries_again_gets_an_answer_of_redis(faults, redis_server, kind):
    await gets_an_answer_if_it_tries_again(await faults(redis_server, seed=1), kind, to_redis)


@pytest.mark.parametrize("kind", FAULTS)
async def test_who_tries_again_gets_an_answer_by_http(faults, web, kind):
    await gets_an_answer_if_it_tries_again(await faults(web, seed=1), kind, to_http)


async def echoed(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def echo():
    server = await asyncio.start_server(echoed, "127.0.0.1")
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


@asynccontextmanager
async def connected(proxy):
    reader, writer = await asyncio.open_connection(proxy.endpoint.host, proxy.endpoint.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def test_all_of_it_passes_where_nothing_is_wrong(faults, echo):
    data = b"0123456789" * 100_000
    async with connected(await faults(echo)) as (reader, writer):

        async def send():
            writer.write(data)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        assert await reader.read(-1) == data
        await sending


async def test_what_a_blackhole_held_up_passes_when_it_ends(faults, echo):
    proxy = await faults(echo)
    async with connected(proxy) as (reader, writer):
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        async with proxy.blackhole():
            writer.write(b"held up")
            answer = asyncio.create_task(reader.readexactly(7))
            await asyncio.sleep(0.05)
            assert not answer.done()
        assert await answer == b"held up"


async def test_what_is_late_is_in_order_and_passes_when_the_fault_ends(faults, echo):
    proxy = await faults(echo)
    sent = b"".join(b"%d;" % number for number in range(200))
    async with connected(proxy) as (reader, writer), proxy.latency(0.005, jitter=0.005, toward="both"):
        for part in sent.split(b";")[:-1]:
            writer.write(part + b";")
            await asyncio.sleep(0)
        assert await reader.readexactly(len(sent)) == sent
        async with proxy.latency(LATE):
            writer.write(b"late")
            await asyncio.sleep(0.05)
        assert await reader.readexactly(4) == b"late"


async def test_a_half_open_connection_stays_dead_and_new_ones_are_none(faults, echo):
    proxy = await faults(echo)
    async with connected(proxy) as (reader, writer):
        writer.write(b"before")
        await reader.readexactly(6)
        async with proxy.half_open():
            pass
        writer.write(b"after")
        answer = asyncio.create_task(reader.read(1))
        async with connected(proxy) as (other_reader, other_writer):
            other_writer.write(b"new")
            assert await other_reader.readexactly(3) == b"new"
        assert not answer.done()
        answer.cancel()


@pytest.mark.parametrize("kind", ["latency", "bandwidth", "half-open", "blackhole"])
@pytest.mark.parametrize("is_stopped", [False, True], ids=["on", "over"])
async def test_who_gives_up_waiting_is_noted(echo, kind, is_stopped):
    async with open_faults("a test") as faults:
        proxy = await faults(echo)
        async with contextlib.AsyncExitStack() as stack:
            fault = FAULTS[kind](proxy)
            async with connected(proxy) as (reader, writer):
                writer.write(b"before")
                await reader.readexactly(6)
                await stack.enter_async_context(fault)
                writer.write(b"after")
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(reader.readexactly(5), 0.3)
            if not is_stopped:
                stack.pop_all()
    (found,) = faults.given_up
    assert found.what.startswith(f"{echo} with ")
    assert found.end > found.start


async def test_who_is_answered_or_only_leaves_has_not_given_up(echo):
    async with open_faults("a test") as faults:
        proxy = await faults(echo)
        async with proxy.latency(0.05):
            async with connected(proxy) as (reader, writer):
                writer.write(b"asked")
                await reader.readexactly(5)
            with socket.create_connection((proxy.endpoint.host, proxy.endpoint.port)) as leaving:
                leaving.sendall(b"goodbye")
            while proxy.connections < 2 or proxy.open:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.01)
        async with connected(proxy) as (reader, writer):
            async with proxy.blackhole():
                writer.write(b"held up")
            await reader.readexactly(7)
    assert faults.given_up == []


async def test_a_new_connection_is_reset(faults, echo):
    proxy = await faults(echo)
    async with proxy.reset() as fault:
        with pytest.raises(ConnectionError):
            async with connected(proxy) as (reader, writer):
                writer.write(b"lost")
                if not await reader.read(4):
                    raise ConnectionError
        assert fault.connections == 1
    async with connected(proxy) as (reader, writer):
        writer.write(b"found")
        assert await reader.readexactly(5) == b"found"


async def exchange(proxy):
    async with connected(proxy) as (reader, writer):
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"


async def test_a_fault_that_hits_nothing_tests_nothing(echo):
    async with open_faults("test_shop") as faults:
        proxy = await faults(echo)
        faults.check()
        await exchange(proxy)
        async with proxy.reset():  # who has left is not hit
            pass
        missed = proxy.latency(0)
        async with missed:
            await exchange(await faults(echo))  # the code under test calls the service itself
        async with missed, proxy.latency(0.01, connections=1):
            await exchange(proxy)
        with pytest.raises(FaultWithoutConnectionError) as told:
            faults.check()
        assert str(told.value).splitlines()[:-1] == [
            "test_shop made faults that hit no connection:",
            f"  a reset between the code under test and {echo}; connections without it: 2",
        ]
    async with open_faults("test_shop") as faults:
        proxy = await faults(echo)
        async with proxy.reset() as first, proxy.blackhole() as second:
            faults.optional(first)
        told = (
            rf"a blackhole between the code under test and {echo}; nothing connected there\n.*faults\.optional\(fault\)"
        )
        with pytest.raises(FaultWithoutConnectionError, match=told) as error:
            faults.check()
        assert "a reset" not in str(error.value)
        faults.optional(second)
        faults.check()
        async with proxy.half_open():
            pass
        faults.optional()
        faults.check()


async def test_the_same_seed_makes_the_same_faults(faults, echo):
    data = bytes(100)
    found = []
    for seed in (7, 7, 8):
        proxy = await faults(echo, seed=seed)
        async with proxy.corrupt(toward="service"), connected(proxy) as (reader, writer):
            writer.write(data)
            found.append(await reader.readexactly(len(data)))
    assert found[0] == found[1] != found[2]
    assert [sum(byte.bit_count() for byte in one) for one in found] == [1, 1, 1]


async def test_a_unix_socket_is_a_service_too(faults, echo, tmp_path):
    server = await asyncio.start_unix_server(echoed, tmp_path / "socket")
    endpoint = Endpoint(
        service="echo", kind="container", provider="external", scheme="tcp", host="127.0.0.1", port=1,
        socket=str(tmp_path / "socket"),
    )  # fmt: skip
    async with connected(await faults(endpoint)) as (reader, writer):
        writer.write(b"by a socket")
        assert await reader.readexactly(11) == b"by a socket"
    server.close()


async def test_the_endpoint_says_the_rest_as_the_service_does(faults, echo):
    proxy = await faults(f"postgresql://user:p%40ss@{echo}/shop?sslmode=disable")
    port = proxy.endpoint.port
    assert proxy.url == f"postgresql://user:p%40ss@127.0.0.1:{port}/shop?sslmode=disable"
    assert "p%40ss" not in repr(proxy.endpoint)
    assert port != int(echo.rpartition(":")[2])


async def test_what_the_service_does_not_take_is_reset_and_counted(faults):
    server = await asyncio.start_server(echoed, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    proxy = await faults(f"127.0.0.1:{port}")
    server.close()
    async with connected(proxy) as (reader, _):
        with contextlib.suppress(ConnectionError):
            assert await reader.read(1) == b""
    assert proxy.unreached == 1
    with pytest.raises(
        FaultProxyError, match=rf"before 127.0.0.1:{port}, at .* nothing takes connections there: .*\n?"
    ):
        await faults(f"127.0.0.1:{port}")


async def test_all_ends_with_the_test(echo):
    before = asyncio.all_tasks()
    async with open_faults("test_x") as faults:
        proxy = await faults(echo)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.endpoint.port)
        writer.write(b"here")
        assert await reader.readexactly(4) == b"here"
        proxy.blackhole().start()
    with contextlib.suppress(ConnectionError):
        assert await reader.read(1) == b""
    assert not proxy.open
    with pytest.raises(OSError, match=r"refused|failed"):
        await asyncio.open_connection("127.0.0.1", proxy.endpoint.port)
    writer.close()
    assert {task for task in asyncio.all_tasks() - before if "faults" in repr(task.get_coro())} == set()


async def test_an_end_that_is_cut_short_leaves_no_proxy(echo):
    async with open_faults("test_x") as faults:
        ports = [(await faults(echo)).endpoint.port for _ in range(3)]
        ending = asyncio.ensure_future(faults.aclose())
        await asyncio.sleep(0)  # it has begun
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        assert ending.cancelled()
        for port in ports:
            with pytest.raises(OSError, match=r"refused|failed"):
                await asyncio.open_connection("127.0.0.1", port)


class Broken(Fault):
    async def pass_on(self, connection, toward, piece):
        raise ZeroDivisionError


async def test_an_error_of_the_proxy_is_the_tests(echo):
    with pytest.raises(FaultProxyError, match=r"A proxy of test_x failed by itself: .*ZeroDivisionError"):
        async with open_faults("test_x") as faults:
            proxy = await faults(echo)
            async with Broken(proxy, "client", None), connected(proxy) as (reader, writer):
                writer.write(b"lost")
                with contextlib.suppress(ConnectionError):
                    await reader.read(1)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda proxy: proxy.latency(-1), "seconds=-1 is too little. Give 0 or more."),
        (lambda proxy: proxy.latency(1, jitter=-1), "jitter=-1 is too little."),
        (lambda proxy: proxy.bandwidth(0), "bytes_per_second=0 is too little. Give 1 or more."),
        (lambda proxy: proxy.reset(after=-1), "after=-1 is too little."),
        (lambda proxy: proxy.reset(connections=0), "connections=0 is too little."),
        (lambda proxy: proxy.corrupt(probability=2), "probability=2 is none. Give a number from 0 to 1."),
        (lambda proxy: proxy.latency(1, toward="up"), "toward='up' is no way of a connection."),
    ],
)
async def test_what_is_no_fault_is_told(faults, echo, make, told):
    proxy = await faults(echo)
    with pytest.raises(FaultProxyError) as caught:
        make(proxy)
    assert told in str(caught.value)


@pytest.mark.parametrize("address", ["nowhere", "http://", "127.0.0.1:port"])
async def test_what_is_no_address_is_told(faults, address):
    with pytest.raises(FaultProxyError, match="takes an endpoint, a URL or 'host:port'"):
        await faults(address)


async def test_a_client_is_no_service(faults):
    with pytest.raises(FaultProxyError, match=r"given AsyncClient, and takes a service: an endpoint as `postgres`"):
        await faults(httpx.AsyncClient(transport=httpx.ASGITransport(None)))
