"""Real exchanges with a server, kept without secrets and told again when it is gone."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import sys

import httpx
import pytest
import respx

from asynctest_kit.http.exchanges import ExchangeError, Exchanges, write
from asynctest_kit.http.mocks import MockHttp, UnmockedCallError
from asynctest_kit.http.scrubbing import Scrubber

pytestmark = pytest.mark.anyio

BINARY = bytes(range(256))


class Server:
    """Answers each request with its number; counts them."""

    def __init__(self):
        self.count = 0

    async def answer(self, reader, writer):
        with contextlib.suppress(OSError):
            head = await reader.readuntil(b"\r\n\r\n")
            if length := re.search(rb"(?i)content-length: (\d+)", head):
                await reader.readexactly(int(length[1]))
            self.count += 1
            if b"/binary" in head:
                kind, body = "application/octet-stream", BINARY
            else:
                answer = {"number": self.count, "user": {"access_token": "secret-in-answer", "ssn": "secret-number"}}
                kind, body = "application/json; charset=utf-8", json.dumps(answer).encode()
            writer.write(
                f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nset-cookie: id=secret-cookie\r\nx-kept: kept\r\n"
                "x-name: 茶.txt\r\n"
                "location: /next?page=a%20b&access_token=secret-next#id_token=secret-too\r\n"
                "content-location: /kept?of=a%20b\r\n"
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


async def parted(client, url, secret="secret"):
    """What a client is told of a form in parts, and of JSON with URLs in it."""
    files = {"file": ("tea.bin", BINARY), "meta": ("m.json", json.dumps({"token": secret}), "application/json")}
    fields = {"password": f"{secret}-form", "name": "ann", "payload": json.dumps({"password": secret, "at": "shop"})}
    sent = await client.post(f"{url}/parts", data=fields, files=files)
    links = {"next": f"https://x/?page=2&token={secret}", "as": [f"amqp://ann:{secret}@x/", "http://x/?a=b%20c#top"]}
    linked = await client.post(f"{url}/links", json={"links": links, "back": f"/login?to=%2Fa%3Fapi_key%3D{secret}"})
    return [one.json()["number"] for one in (sent, linked)]


async def test_parts_are_compared_without_what_is_between_them(server, client, tmp_path):
    file = tmp_path / "exchanges.json"
    with MockHttp("test_shop") as mock:
        mock.replay(file, record=True, scrub=["ssn"])
        assert await parted(client, server.url) == [1, 2]
        mock.keep()
    text = file.read_text()
    assert "secret" not in text
    first, second = (one["request"] for one in json.loads(text)["exchanges"])
    assert dict(first["headers"])["content-type"] == "multipart/form-data; boundary=asynctest-kit-boundary"
    password, name, payload, binary, meta = first["body"]["parts"]
    assert (password["text"], name["text"]) == ("***", "ann")
    assert json.loads(payload["text"]) == {"password": "***", "at": "shop"}
    assert base64.b64decode(binary["base64"]) == BINARY
    assert meta["json"] == {"token": "***"}
    assert second["body"]["json"] == {
        "links": {"next": "https://x/?page=2&token=***", "as": ["amqp://ann:***@x/", "http://x/?a=b%20c#top"]},
        "back": "/login?to=%2Fa%3Fapi_key%3D***",
    }
    with MockHttp("test_shop") as mock:
        mock.replay(file)
        assert await parted(client, server.url, "another") == [1, 2]
        with pytest.raises(UnmockedCallError):
            await client.post(f"{server.url}/parts", files={"file": ("tea.bin", b"other")})
        with pytest.raises(UnmockedCallError):
            await client.post(f"{server.url}/links", json={"links": {"next": "https://x/?page=3&token=another"}})


async def test_an_answer_in_parts_is_told_again_in_parts(tmp_path, client):
    kind = "multipart/mixed; boundary=between"
    sent = b'--between\r\nContent-Type: application/json\r\n\r\n{"a": 1}\r\n--between\r\n\r\n\xff\r\n--between--\r\n'
    exchanges = Exchanges(tmp_path / "exchanges.json", Scrubber(), records=True)
    request = httpx.Request("GET", "http://x/")
    exchanges.keep(request, httpx.Response(200, headers={"content-type": kind}, content=sent, request=request))
    write(exchanges.file, "test_shop", exchanges.kept)
    answer = Exchanges(exchanges.file, Scrubber(), records=False).answer(request)
    assert answer.content.lower() == sent.lower()
    assert answer.headers["content-type"] == kind


async def test_names_of_files_and_values_of_headers_may_be_of_any_language(client, tmp_path, server):
    async def answered():
        request = client.build_request("POST", f"{server.url}/parts", files={"datei": ("tee-grün.txt", b"tea")})
        request.headers = httpx.Headers([*request.headers.raw, (b"x-of", b"\xfc")])
        return (await client.send(request)).headers["x-name"]

    with MockHttp("test_shop") as mock:
        mock.replay(tmp_path / "exchanges.json", record=True)
        assert await answered() == "茶.txt"
        mock.keep()
    assert 'filename=\\"tee-grün.txt\\"' in (tmp_path / "exchanges.json").read_text("utf-8")
    with MockHttp("test_shop") as mock:
        mock.replay(tmp_path / "exchanges.json")
        assert await answered() == "茶.txt"


async def test_what_became_secret_since_it_was_kept_is_left_out_too(tmp_path, client):
    headers = {"content-type": "application/json"}
    asked = {"method": "POST", "url": "http://x/?page=1&ssn=1", "headers": headers, "body": {"json": {"ssn": "1"}}}
    told = {"status": 200, "headers": [], "body": {"text": "tea"}}
    (tmp_path / "old.json").write_text(json.dumps({"exchanges": [{"request": asked, "response": told}]}))
    with MockHttp("test_shop") as mock:
        mock.replay(tmp_path / "old.json", scrub=["ssn"])
        json_of = {"content": json.dumps({"ssn": "2"}), "headers": headers}
        with pytest.raises(UnmockedCallError):
            await client.post("http://x/?page=2&ssn=2", **json_of)
        assert (await client.post("http://x/?page=1&ssn=2", **json_of)).text == "tea"


def unnamed(url, number):
    """An exchange that nobody is said to have made."""
    return {
        "request": {"method": "GET", "url": url, "headers": [], "body": {"text": ""}},
        "response": {"status": 200, "headers": [], "body": {"json": {"number": number}}},
    }


async def numbers(client, server, file, test, *paths, record=False):
    with MockHttp(test) as mock:
        mock.replay(file, record=record)
        found = [(await client.get(f"{server.url}{path}")).json()["number"] for path in paths]
        mock.keep()
    return found


async def test_tests_that_record_in_one_file_keep_their_own_answers(server, client, tmp_path):
    file = tmp_path / "exchanges.json"
    old = [unnamed(f"{server.url}/one", 100), unnamed(f"{server.url}/old", 101)]
    file.write_text(json.dumps({"exchanges": old}))

    async def recorded(test, *paths):
        return await numbers(client, server, file, test, *paths, record=True)

    async def told(test, *paths):
        return await numbers(client, server, file, test, *paths)

    assert await recorded("test_c", "/one", "/one") == [1, 2]
    assert await recorded("test_a", "/one", "/two") == [3, 4]
    assert await recorded("test_b", "/one") == [5]
    assert await told("test_a", "/one", "/two", "/one") == [3, 4, 3]
    assert await told("test_b", "/one", "/two") == [5, 4]
    assert await told("test_new", "/one", "/one", "/one", "/old") == [1, 2, 2, 101]
    assert await recorded("test_c", "/three") == [6]  # no other's is lost
    assert await told("test_a", "/one", "/two", "/three") == [3, 4, 6]
    kept = [(one.get("test"), one["request"]["url"][-4:]) for one in json.loads(file.read_text())["exchanges"]]
    assert kept == [
        (None, "/old"), ("test_a", "/one"), ("test_a", "/two"), ("test_b", "/one"), ("test_c", "hree"),
    ]  # fmt: skip


async def test_processes_that_record_in_one_file_at_once_lose_nothing(tmp_path):
    script = """
import sys
from pathlib import Path
from asynctest_kit.http.exchanges import write
request = {"method": "GET", "url": "http://x/", "body": {"text": ""}}
sys.stdin.read()
for number in range(20):
    write(Path(sys.argv[1]), f"test_{sys.argv[2]}[{number}]", [{"request": request, "response": {}}])
"""
    file = tmp_path / "exchanges.json"
    argv = [sys.executable, "-c", script, str(file)]
    running = [await asyncio.create_subprocess_exec(*argv, name, stdin=asyncio.subprocess.PIPE) for name in "abc"]
    for process in running:
        process.stdin.close()
    assert [await process.wait() for process in running] == [0, 0, 0]
    tests = {one["test"] for one in json.loads(file.read_text())["exchanges"]}
    assert tests == {f"test_{name}[{number}]" for name in "abc" for number in range(20)}


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


@pytest.mark.parametrize("text", ["{", "[]", '{"exchanges": 1}', '{"exchanges": [{"request": {}}]}'])
def test_what_is_no_file_of_exchanges_is_told(tmp_path, text):
    (tmp_path / "exchanges.json").write_text(text)
    for record in (False, True):
        with pytest.raises(ExchangeError, match=r"is no file of exchanges: .* or remove it, .* Set ATK_RECORD=1"):
            MockHttp("test_shop").replay(tmp_path / "exchanges.json", record=record)
    assert (tmp_path / "exchanges.json").read_text() == text


def test_no_file_is_told(tmp_path):
    with pytest.raises(ExchangeError, match=r"There is no file .* to be replayed. Set ATK_RECORD=1"):
        MockHttp("test_shop").replay(tmp_path / "exchanges.json", record=False)
