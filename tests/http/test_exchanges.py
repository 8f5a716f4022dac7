"""Real exchanges with a server, kept without secrets and told again when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import json

import httpx
import pytest
import respx

from asynctest_kit.http.exchanges import ExchangeError
from asynctest_kit.http.mocks import MockHttp, UnmockedCallError

pytestmark = pytest.mark.anyio

BINARY = bytes(range(256))


class Server:
    """Answers each request with its number; counts them."""

    def __init__(self):
        self.count = 0

    async def answer(self, reader, writer):
        with contextlib.suppress(OSError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.count += 1
            if b"/binary" in head:
                kind, body = "application/octet-stream", BINARY
            else:
                answer = {"number": self.count, "user": {"access_token": "secret-in-answer", "ssn": "secret-number"}}
                kind, body = "application/json; charset=utf-8", json.dumps(answer).encode()
            writer.write(
                f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nset-cookie: id=secret-cookie\r\nx-kept: kept\r\n"
                "location: /next?page=a%20b&access_token=secret-next#id_token=secret-too\r\n"
                f"content-location: /kept?of=a%20b\r\n"
                f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        writer.close()


@pytest.fixture
async def server():
    server = Server()
    listening = await asyncio.start_server(server.answer, "127.0.0.1")
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield server
    listening.close()


@pytest.fixture
async def client():
    async with httpx.AsyncClient(verify=False) as client:
        yield client


async def conversation(client, url):
    """What a client is told: JSON twice, of the same URL, a form's answer, and bytes."""
    headers = {"Authorization": "Bearer secret-bearer", "X-Api-Key": "secret-key", "Cookie": "id=secret-cookie"}
    first = await client.get(f"{url}/one", params={"page": "1", "api_key": "secret-query"}, headers=headers)
    again = await client.get(f"{url}/one", params={"page": "1", "api_key": "another"}, headers=headers)
    posted = await client.post(f"{url}/form", data={"password": "secret-form", "name": "ann"})
    sent = await client.post(
        f"{url}/json", json={"user": {"password": "secret-json"}, "list": [{"token": "secret-in"}]}
    )
    binary = await client.get(f"{url}/binary")
    assert first.headers["x-kept"] == "kept"
    return [*[one.json()["number"] for one in (first, again, posted, sent)], binary.content]


async def test_what_was_recorded_is_told_again_without_a_server(server, client, tmp_path):
    file = tmp_path / "new" / "exchanges.json"
    with MockHttp("test_shop") as mock:
        mock.replay(file, record=True, scrub=["SSN"])
        assert await conversation(client, server.url) == [1, 2, 3, 4, BINARY]
        mock.check()
        mock.keep()
    assert server.count == 5
    text = file.read_text()
    assert "secret" not in text
    assert "another" not in text
    assert '"name": "ann"' not in text  # a form is one text
    assert "name=ann" in text
    headers = dict(json.loads(text)["exchanges"][0]["response"]["headers"])
    assert headers["location"].startswith("/next?page=a")
    assert headers["content-location"] == "/kept?of=a%20b"

    with MockHttp("test_shop") as mock:
        mock.replay(file)
        assert await conversation(client, server.url) == [1, 2, 3, 4, BINARY]
        assert (await client.get(f"{server.url}/one", params={"page": "1", "api_key": "x"})).json()["number"] == 2
        with pytest.raises(UnmockedCallError, match=r"called GET .*/two, which nothing mocks") as unmocked:
            await client.get(f"{server.url}/two")
        assert f"{file} has no answer for it either: record it by a run with ATK_RECORD=1." in str(unmocked.value)
        answered = await asyncio.to_thread(httpx.get, f"{server.url}/binary", verify=False)
        assert answered.content == BINARY
    assert server.count == 5


async def test_routes_come_before_exchanges(server, client, tmp_path):
    with MockHttp("test_shop") as mock, respx.mock() as other:
        mock.replay(tmp_path / "exchanges.json", record=True)
        mock.get(f"{server.url}/mine").respond(text="mine")
        other.get(f"{server.url}/others").respond(text="others")
        assert (await client.get(f"{server.url}/mine")).text == "mine"
        assert (await client.get(f"{server.url}/others")).text == "others"
        assert (await asyncio.to_thread(httpx.get, f"{server.url}/real", verify=False)).json()["number"] == 1
        mock.keep()
    (kept,) = json.loads((tmp_path / "exchanges.json").read_text())["exchanges"]
    assert kept["request"]["url"] == f"{server.url}/real"


async def test_a_failed_call_is_not_kept(client, tmp_path, server):
    with MockHttp("test_shop") as mock:
        mock.replay(tmp_path / "exchanges.json", record=True)
        with pytest.raises(httpx.TransportError):
            await client.get("http://127.0.0.1:1/")
        mock.keep()
    assert json.loads((tmp_path / "exchanges.json").read_text()) == {"exchanges": []}


@pytest.mark.parametrize("text", ["{", "[]", '{"exchanges": [{"request": {}}]}'])
def test_what_is_no_file_of_exchanges_is_told(tmp_path, text):
    (tmp_path / "exchanges.json").write_text(text)
    with pytest.raises(ExchangeError, match=r"is no file of exchanges: .* Set ATK_RECORD=1"):
        MockHttp("test_shop").replay(tmp_path / "exchanges.json", record=False)


def test_no_file_is_told(tmp_path):
    with pytest.raises(ExchangeError, match=r"There is no file .* to be replayed. Set ATK_RECORD=1"):
        MockHttp("test_shop").replay(tmp_path / "exchanges.json", record=False)
