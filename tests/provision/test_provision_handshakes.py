"""The handshakes against scripted servers: what passes, what is waited out, and what is final."""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager

import pytest

from asynctest_kit.provision.readiness import Address, Greeting, NotReadyError, RejectedError
from asynctest_kit.provision.readiness.postgres import PostgresHandshake
from asynctest_kit.provision.readiness.redis import RedisHandshake

pytestmark = pytest.mark.anyio

LOGIN_OK = b"R" + struct.pack("!ii", 8, 0)
READY = b"Z" + struct.pack("!ic", 5, b"I")


def postgres_error(code, text):
    body = b"SFATAL\0C" + code.encode() + b"\0M" + text.encode() + b"\0\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body


@asynccontextmanager
async def answering(*answers):
    """A server that gives each connection the next answer, then hangs up; and where it is."""
    left = list(answers)

    async def serve(reader, writer):
        await reader.read(1)
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield Address(host="127.0.0.1", port=server.sockets[0].getsockname()[1], username="u", password="p")


async def test_postgres_that_starts_up_is_waited_for():
    seen = []
    starting = postgres_error("57P03", "the database system is starting up")
    async with answering(b"", starting, LOGIN_OK + READY) as address:
        await Greeting(PostgresHandshake(), address).wait(seen.append)
    assert seen == ["the connection was closed without an answer", "the database system is starting up"]


async def test_postgres_that_says_no_is_final():
    async with answering(postgres_error("28000", "no pg_hba.conf entry")) as address:
        with pytest.raises(RejectedError, match=r"no pg_hba\.conf entry"):
            await PostgresHandshake().attempt(address)


async def test_an_authentication_that_is_not_spoken_is_named():
    async with answering(b"R" + struct.pack("!ii", 8, 7)) as address:
        with pytest.raises(RejectedError, match="authentication method 7"):
            await PostgresHandshake().attempt(address)


async def test_another_server_with_scram_is_not_taken_for_ours():
    challenge = b"r=notours,s=c2FsdA==,i=4096"
    sasl = b"R" + struct.pack("!ii", 8 + 15, 10) + b"SCRAM-SHA-256\0\0"
    more = b"R" + struct.pack("!ii", 8 + len(challenge), 11) + challenge
    async with answering(sasl + more) as address:
        with pytest.raises(RejectedError, match="another client's SCRAM exchange"):
            await PostgresHandshake().attempt(address)


async def test_what_is_no_postgres_is_told():
    async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        with pytest.raises(RejectedError, match="does not speak PostgreSQL"):
            await PostgresHandshake().attempt(address)


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (b"", EOFError, "closed without an answer"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", NotReadyError, "LOADING"),
        (b"-WRONGPASS invalid\r\n", RejectedError, "WRONGPASS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", RejectedError, "does not speak Redis"),
    ],
)
async def test_what_redis_may_answer(answer, error, text):
    async with answering(answer) as address:
        with pytest.raises(error, match=text):
            await RedisHandshake().attempt(address)
