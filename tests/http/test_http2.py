"""``api`` with a server that speaks HTTP/2."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import anyio
import h2.config
import h2.connection
import h2.events
import pytest

from asynctest_kit.errors import AtkError
from asynctest_kit.http import sockets
from asynctest_kit.http.client import Api

pytestmark = pytest.mark.anyio


async def answer(reader, writer):
    """HTTP/2: how many requests have come by this connection."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    connection.initiate_connection()
    count = 0
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if isinstance(event, h2.events.StreamEnded):
                    count += 1
                    connection.send_headers(event.stream_id, [(":status", "200"), ("content-type", "application/json")])
                    connection.send_data(event.stream_id, str(count).encode(), end_stream=True)
            writer.write(connection.data_to_send())
            await writer.drain()
    writer.close()


@pytest.fixture(scope="module")
async def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    file, key = folder / "certificate.pem", folder / "key.pem"
    made = ("-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(file))
    named = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    await anyio.run_process(["openssl", "req", "-x509", *made, *named])
    return file, key


@pytest.fixture
async def server(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.set_alpn_protocols(["h2"])
    listening = await asyncio.start_server(answer, "127.0.0.1", ssl=context)
    yield f"https://localhost:{listening.sockets[0].getsockname()[1]}"
    listening.close()


async def test_it_is_spoken_if_asked(server, certificate):
    given = ssl.create_default_context(cafile=str(certificate[0]))
    for verify in (str(certificate[0]), given):
        async with Api(server, http2=True, verify=verify) as api:
            for number in (1, 2):  # on one connection
                response = await api.get("/")
                response.expect(200, json=number)
                assert response.http_version == "HTTP/2"
            answers = await asyncio.gather(*(api.post("/", content=b"x" * 100_000) for _ in range(5)))
            assert all(one.status_code == 200 for one in answers)


async def test_it_is_not_spoken_otherwise(sample_server):
    async with Api(sample_server, http2=True) as api:
        response = await api.get("/")
        assert (response.http_version, response.text) == ("HTTP/1.1", "tea")


@pytest.fixture
async def sample_server():
    async def tea(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntea")
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(tea, "127.0.0.1")
    yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    listening.close()


async def test_where_it_can_not_be_spoken_is_told(server, monkeypatch):
    async def app(scope, receive, send): ...

    with pytest.raises(AtkError, match="called in process speaks no HTTP at all"):
        async with Api(app, http2=True):
            raise AssertionError
    monkeypatch.setattr(sockets, "find_spec", lambda name: None)
    with pytest.raises(AtkError, match=r"which isn't installed: pip install 'httpx\[http2\]'"):
        async with Api(server, http2=True):
            raise AssertionError
