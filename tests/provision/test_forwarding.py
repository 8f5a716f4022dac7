"""A port of 127.0.0.1 whose connections are passed on to a unix socket."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from asynctest_kit.provision.forwarding import forwarded

pytestmark = pytest.mark.anyio


@pytest.fixture
def path():
    """Of a socket that is not there yet; short, as such paths have to be."""
    with tempfile.TemporaryDirectory(prefix="fwd") as folder:
        yield str(Path(folder) / "s")


@asynccontextmanager
async def serving(path, serve):
    server = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        server.close()


async def echo(reader, writer):
    """Answer with all that comes, and end when the other side has nothing more to say."""
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write(b".")
    writer.close()


@asynccontextmanager
async def connected(port, **options):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def answer(port, question, **options):
    async with connected(port, **options) as (reader, writer):
        writer.write(question)
        writer.write_eof()
        return await reader.read(-1)


async def test_each_of_many_gets_its_own_answer_to_the_last_byte(path):
    questions = [bytes([number]) * 10_000 for number in range(64)]
    async with serving(path, echo), forwarded(path) as port:
        answers = await asyncio.gather(*(answer(port, question) for question in questions))
    assert answers == [question + b"." for question in questions]


async def test_more_than_any_buffer_holds_waits_for_its_reader(path):
    question = b"0123456789abcdef" * (1 << 18)
    async with serving(path, echo), forwarded(path) as port:
        assert await answer(port, question, limit=1024) == question + b"."


async def test_who_comes_before_the_server_is_sent_away(path):
    async with forwarded(path) as port:
        with suppress(ConnectionError):  # an end and a reset are equally good
            assert await answer(port, b"too early") == b""
        async with serving(path, echo):
            assert await answer(port, b"now") == b"now."


async def test_the_end_of_the_client_is_heard(path):
    ended = asyncio.Event()

    async def wait_for_the_end(reader, writer):
        writer.write(b"!")
        await reader.read(-1)
        ended.set()
        writer.close()

    async with serving(path, wait_for_the_end), forwarded(path) as port:
        async with connected(port) as (reader, _):
            assert await reader.readexactly(1) == b"!"
        await ended.wait()


async def test_the_end_of_the_server_is_heard(path):
    async def hang_up(_, writer):
        writer.close()

    async with serving(path, hang_up), forwarded(path) as port, connected(port) as (reader, _):
        assert await reader.read(-1) == b""


async def test_what_is_still_connected_at_the_end_is_cut(path):
    async def never_end(reader, writer):
        writer.write(b"!")
        await reader.read(-1)
        writer.close()

    async with serving(path, never_end), AsyncExitStack() as clients:
        async with forwarded(path) as port:
            reader, _ = await clients.enter_async_context(connected(port))
            assert await reader.readexactly(1) == b"!"
        assert await reader.read(-1) == b""
        with pytest.raises(OSError, match=str(port)):
            await answer(port, b"too late")
