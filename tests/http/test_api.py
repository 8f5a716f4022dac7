"""``api``: calls of the application under test, and what is told when one isn't answered as expected."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from pathlib import Path

import anyio
import httpx
import pytest
import respx
import sample_app

from asynctest_kit.errors import AtkError
from asynctest_kit.http.apps import AppError, opened_app, serve
from asynctest_kit.http.client import Api, Bearer, route_of
from asynctest_kit.http.matching import each, exactly
from asynctest_kit.http.mocks import MockHttp
from asynctest_kit.http.responses import ExpectationError
from asynctest_kit.http.sse import Event, parsed
from asynctest_kit.http.websocket import WebSocketClosedError, WebSocketRefusedError
from asynctest_kit.provision.service import Endpoint

pytestmark = pytest.mark.anyio

REACHED = [lambda app: app, serve]

USER = {"id": 1, "name": str, "is_admin": bool, "orders": each({"id": int, "price": float})}


@pytest.fixture
def sample():
    return sample_app.make()


@pytest.fixture(params=REACHED, ids=["in-process", "socket"])
def reached(request, sample):
    return request.param(sample)


@pytest.fixture
async def api(reached):
    async with Api(reached) as api:
        yield api


@pytest.fixture
async def in_process(sample):
    async with Api(sample) as api:
        yield api


def told(failed):
    return str(failed.value)


async def test_what_is_as_expected(api):
    response = await api.get("/users/1", headers={"x": "y"})
    assert response.expect(200, json=USER) is response
    response.expect(range(200, 300), headers={"content-type": re.compile("json"), "x-none": None})
    response.expect({200, 201}, json=..., cookies={"session": None}, text=re.compile("Ada"))
    response.expect(jsonpath={"$.name": "Ada", "$.orders[*].id": [1, 2], "$.orders[?@.price > 4].id": each(1)})
    assert response.at("$..price") == [4.5, 3]
    (await api.post("/login", json={"name": "ann"})).expect(204, cookies={"session": "ann"})


async def test_all_that_is_not_as_expected_is_told_at_once(api):
    response = await api.get("/users/1")
    expected = exactly({"id": str, "name": "Bob", "is_admin": True, "token": "other", "orders": ...})
    with pytest.raises(ExpectationError) as failed:
        response.expect(404, json=expected, headers={"content-type": "text/html", "x-more": ...}, cookies={"a": "b"})
    expectations, _, transcript = told(failed).partition("\n\n")
    assert expectations.splitlines()[0] == f"GET {api.base_url}/users/1 was not answered as expected"
    assert {line.strip() for line in expectations.splitlines()[1:]} == {
        "status: expected 404, received 200 OK",
        "header content-type: expected 'text/html', received 'application/json'",
        "header x-more: expected anything, and it is not there",
        "cookie a: expected 'b', and it is not there",
        "json $.id: expected str, received 1 (int)",
        "json $.name: expected 'Bob', received 'Ada'",
        "json $.token: expected 'other', received ***",
        "json $.asks: expected nothing, received None",
    }
    assert '"name": "Ada"' in transcript
    assert "hidden" not in told(failed)


async def test_json_and_paths_that_are_not_there_are_told(api):
    response = await api.get("/users/1")
    with pytest.raises(ExpectationError, match=r"jsonpath \$\.nothing: expected 3, and it is not there"):
        response.expect(jsonpath={"$.nothing": 3})
    with pytest.raises(ExpectationError, match=r"jsonpath \$\.orders\[\*\]\.id\[1\]: expected 3, received 2"):
        response.expect(jsonpath={"$.orders[*].id": [1, 3]})
    with pytest.raises(ExpectationError, match=r"expected anything, and it is not there"):
        response.expect(jsonpath={"$.orders[?@.id == 99]": ...})
    with pytest.raises(AtkError, match=r"'\$\.\[' is no JSONPath"):
        response.expect(jsonpath={"$.[": 3})
    with pytest.raises(ExpectationError, match="json: the body is no JSON"):
        (await api.get("/env/HOME")).expect(json={})


async def test_secrets_of_both_sides_are_starred(reached):
    async with Api(reached, secret_names=["name"], headers={"x-api-key": "hidden"}) as api:
        await api.post("/login", json={"name": "hidden"})
        response = await api.post("/users/1?token=hidden", auth=("ann", "hidden"), json={"password": "hidden", "a": 1})
        with pytest.raises(ExpectationError) as failed:
            response.expect(201, json=[], cookies={"session": "x"}, text="y")
        redirected = await api.get("/users/2")
        with pytest.raises(ExpectationError) as of_redirect:
            redirected.expect(headers={"location": "/"})
    assert "hidden" not in told(of_redirect)
    transcript = told(failed).partition("\n\n")[2]
    for line in ("authorization: ***", "cookie: ***", "x-api-key: ***", '"password": "***"', '"name": "***"'):
        assert line in transcript
    assert "hidden" not in told(failed)
    assert "/users/1?token=*** was not" in told(failed)


async def test_a_redirect_that_is_not_followed_says_so(api):
    response = await api.get("/users/2")
    with pytest.raises(ExpectationError) as failed:
        response.expect(200)
    assert f"it redirects to {api.base_url}/users/1?token=***; follow_redirects=True follows" in told(failed)
    assert "hidden" not in told(failed)
    (await api.get("/users/2", follow_redirects=True)).expect(200, json={"id": 1})


async def test_what_the_application_raised_is_told(api):
    response = await api.get("/fail")
    with pytest.raises(ExpectationError) as failed:
        response.expect(200)
    where = re.search(r'the application raised\n  +File "(.*)", line \d+, in fail\n', told(failed))
    assert where
    assert told(failed).endswith("\n  LookupError: planted")
    assert where[1] == sample_app.__file__
    assert "site-packages" not in told(failed)


async def test_what_the_application_raised_is_raised_if_asked_for(sample):
    async with opened_app(sample) as opened, Api(opened, raise_app_exceptions=True) as api, Api(opened) as other:
        with pytest.raises(LookupError, match="planted"):
            await api.get("/fail")
        assert (await other.get("/fail")).status_code == 500


async def test_sessions_have_cookies_of_their_own(api):
    for name in ("ann", "bob"):
        await api.as_(name).post("/login", json={"name": name})
    for name in ("ann", "bob"):
        (await api.as_(name).get("/me")).expect(200, json={"name": name})
    (await api.get("/me")).expect(200, json={"name": None})
    (await api.session(cookies={"session": "eve"}).get("/me")).expect(200, json={"name": "eve"})
    assert api.as_("ann") is api.as_("ann")
    assert dict(api.as_("ann").cookies) == {"session": "ann"}


async def test_who_asks(api):
    (await api.get("/users/1", auth=("ann", "x"))).expect(json={"asks": "Basic YW5uOng="})
    ann = api.as_("ann", auth=Bearer("t"))
    (await ann.get("/users/1")).expect(json={"asks": "Bearer t"})
    (await api.as_("ann").get("/users/1")).expect(json={"asks": "Bearer t"})
    (await api.as_("ann", auth=Bearer("u")).get("/users/1")).expect(json={"asks": "Bearer u"})
    (await api.session(headers={"Authorization": "Own"}).get("/users/1")).expect(json={"asks": "Own"})
    (await api.get("/users/1")).expect(json={"asks": None})


async def test_an_application_in_process_may_seem_to_be_elsewhere(sample):
    async with Api(sample, base_url="https://shop.example.org") as api:
        await api.post("/login?secure=1", json={"name": "ann"})
        (await api.get("/me")).expect(200, json={"name": "ann"})
        assert str((await api.get("/me")).url) == "https://shop.example.org/me"
    async with Api(sample) as api:
        await api.post("/login?secure=1", json={"name": "ann"})
        (await api.get("/me")).expect(200, json={"name": None})
    with pytest.raises(AtkError, match="the application is on a real socket, at http://127"):
        async with Api(serve(sample), base_url="https://shop.example.org"):
            pass


async def test_files_are_sent_and_fetched(api, tmp_path):
    file = ("a.txt", b"content", "text/plain")
    response = await api.post("/upload", data={"title": "A"}, files={"file": file})
    response.expect(200, json={"kind": re.compile("^multipart/form-data; boundary="), "body": re.compile("content")})
    with pytest.raises(ExpectationError, match=r"\(a body that was streamed\)"):
        response.expect(201)
    fetched = await api.download("/users/1", tmp_path / "user.json")
    assert json.loads((tmp_path / "user.json").read_bytes())["name"] == "Ada"
    assert fetched.expect(200).headers["content-type"] == "application/json"
    (await api.download("/nothing", tmp_path / "nothing")).expect(404, text="Not Found")
    assert not (tmp_path / "nothing").exists()


async def test_a_response_is_read_as_it_comes(api, sample):
    sample.state.may_go_on.set()
    parts = []
    async with api.stream("GET", "/steps") as response:
        response.expect(200)
        async for part in response.aiter_bytes():
            parts.append(part)
            sample.state.may_go_on.set()
    assert parts == [b"0", b"1", b"2"]


async def test_an_expectation_that_raises_is_told_with_its_place_and_the_response(api):
    response = await api.get("/users/1")
    with pytest.raises(ExpectationError) as failed:
        response.expect(
            lambda status: status.x,
            json={"id": lambda number: number > "x"},
            headers={"content-type": lambda kind: 1 / 0},
        )
    assert ", received 200 OK; asked, it raised AttributeError: 'int' object has no attribute 'x'\n" in told(failed)
    assert (
        "  json $.id: expected what the lambda holds for, received 1; asked, it raised TypeError: "
        "'>' not supported between instances of 'int' and 'str'\n"
    ) in told(failed)
    assert "\n  header content-type: expected what the lambda holds for, received 'application/json'; a" in told(failed)
    assert "\n  GET " in told(failed) and "\n  200 OK\n" in told(failed)


async def test_events(api):
    async with api.events("/events") as events:
        first = await events.expect({"number": 0}, event="step")
        assert first == Event('{"number": 0}', "step", "0")
        assert first.json() == {"number": 0}
        await events.expect(re.compile('number": 1'))
        assert [event.id async for event in events] == ["2"]
        with pytest.raises(ExpectationError, match=r"the next event of /events is not as expected\n  \$: expected 1"):
            await events.expect(1)
        for expected in (..., None):
            with pytest.raises(ExpectationError, match=r"\$: expected .*, and it is not there"):
                await events.expect(expected)


async def test_events_are_taken(api):
    async with api.events("/events") as events:
        with pytest.raises(ExpectationError, match=r"\$\.event: expected 'end', received 'step'"):
            await events.expect({"number": 0}, event="end")
        assert [event.id for event in await events.take(2)] == ["1", "2"]
        assert await events.take(0) == []


async def test_a_stream_that_ends_short_is_told(api):
    async with api.events("/events?token=hush") as events:
        await anext(events)
        with pytest.raises(ExpectationError) as short:
            await events.take(5)
        with pytest.raises(ExpectationError, match="1 were to be taken, none came before the stream ended"):
            await events.take(1)
    assert str(short.value).startswith(
        "events of /events: 5 were to be taken, 2 came before the stream ended\n\nrequest\n"
    )
    assert f"GET {api.base_url}/events?token=***\n" in str(short.value)
    assert "  200 OK\n" in str(short.value)
    assert str(short.value).endswith("""
messages, the last ones
  step 0: {"number": 0}
  step 1: {"number": 1}
  step 2: {"number": 2}""")


async def test_another_event_is_told_with_request_and_response(api):
    async with api.events("/events") as events:
        with pytest.raises(ExpectationError, match=r"(?s)\$: expected 1.*\n  GET .*\n  200 OK\n.*\n  step 0: .*0}$"):
            await events.expect(1)


async def test_what_is_no_stream_of_events_is_told(api):
    for url, what in (("/users/1", "header content-type"), ("/nothing", "status: expected 200, received 404")):
        with pytest.raises(ExpectationError, match=what):
            async with api.events(url):
                pass


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
async def test_events_are_read_as_the_standard_says(size):
    stream = (
        b"\xef\xbb\xbf: hello\n\ndata:a\rdata: b\r\ndata\n\nevent: x\n\n"
        b"id: 7\ndata:  \xc3\xa4\nretry: 10\nunknown: 1\n\n"
        b"id\ndata: c\r\rretry: 1x\ndata: d\nid: \0\r\n\r\ndata: not at its end"
    )

    async def parts():
        for start in range(0, len(stream), size):
            yield stream[start : start + size]

    assert [event async for event in parsed(parts())] == [
        Event("a\nb\n"),
        Event(" ä", id="7", retry=10),
        Event("c"),
        Event("d"),
    ]


async def test_websocket(api, sample):
    async with api.as_("ann", auth=Bearer("t")).websocket("/chat", subprotocols=["other", "chat"]) as ws:
        assert ws.subprotocol == "chat"
        await ws.send("hi")
        await ws.expect({"said": "hi", "asks": "Bearer t"})
        await ws.send_json(1)
        assert (await ws.receive_json())["said"] == "1"
        await ws.send("bytes")
        assert await ws.receive() == b"\0\1"
        await ws.send("hi")
        with pytest.raises(ExpectationError, match=r"WebSocket /chat is not as expected\n  \$.said: expected 'ho'"):
            await ws.expect({"said": "ho"})
        with pytest.raises(ExpectationError) as other:
            await ws.send('{"password": "x-y-z"}')
            await ws.expect(b"")
    told = str(other.value)
    assert "GET " in told and "/chat\n" in told and "authorization: ***\n" in told
    assert "\n  101 Switching Protocols\n" in told and "\n  sec-websocket-protocol: chat\n" in told
    assert re.search(
        r"""\n  received: {"said": ?"hi", ?.+}\n  sent: {"password": "\*\*\*"}\n  received: {"said": """, told
    )
    await sample.state.ended.wait()


async def test_a_websocket_that_the_application_closes(api):
    async with api.websocket("/chat") as ws:
        assert ws.subprotocol is None
        await ws.send("hi")
        await ws.send("bye")
        assert [json.loads(message)["said"] async for message in ws] == ["hi"]
        for use in (ws.receive, lambda: ws.send("more"), lambda: ws.expect(...)):
            with pytest.raises(WebSocketClosedError, match=r"(?s)closed.*\n  101 Switching .*\n  sent: bye\n"):
                await use()
    async with api.websocket("/chat") as ws:
        await ws.send("bye")
        with pytest.raises(WebSocketClosedError, match="is closed, with code 4000: so long") as closed:
            await ws.receive()
        assert (closed.value.code, closed.value.reason) == (4000, "so long")


async def test_a_websocket_whose_application_fails(api, in_process):
    for client, code in ((api, "10(06|11)"), (in_process, "1011: the application raised LookupError: planted")):
        async with client.websocket("/chat") as ws:
            await ws.send("fail")
            with pytest.raises(WebSocketClosedError, match=f"is closed, with code {code}"):
                await ws.receive()


async def test_a_websocket_whose_application_fails_is_not_read_to_an_end(api):
    async with api.websocket("/chat") as ws:
        await ws.send("hi")
        await ws.send("fail")
        read = []
        with pytest.raises(WebSocketClosedError, match=r"(?s)closed, with code 10(06|11).*\n  sent: fail\n"):
            async for message in ws:
                read.append(json.loads(message)["said"])  # noqa: PERF401  # it raises
        assert read == ["hi"]


async def test_what_the_application_raised_after_a_good_answer_fails_at_the_end(reached):
    told = r"(?s)not looked at, in POST /later, which was answered with 202:\n.*in work\n.*  LookupError: planted later"
    with pytest.raises(ExpectationError, match=told):
        async with Api(reached) as api:
            (await api.post("/later?fail=1")).expect(202)
    async with Api(reached) as api:
        api.expect_app_error(LookupError, match="^planted")
        (await api.post("/later?fail=1")).expect(202)
        (await api.get("/fail")).expect(500)
    with pytest.raises(ExpectationError, match="expected to raise LookupError with 'other', and raised LookupError"):
        async with Api(reached) as api:
            api.expect_app_error(LookupError, match="other")
            await api.get("/fail")


async def test_an_error_that_was_looked_at_fails_nothing(in_process):
    response = (await in_process.post("/later?fail=1")).expect(202)
    assert str(response.error) == "planted later"


@pytest.mark.parametrize("raises", [False, True])
async def test_a_websocket_whose_application_fails_and_nobody_reads_fails_at_the_end(reached, raises):
    told = r"(?s)not looked at, in WebSocket /chat:\n.*in chat\n.*  LookupError: planted\n.*expect_app_error\(Lookup"
    with pytest.raises(ExpectationError, match=told):
        async with Api(reached, raise_app_exceptions=raises) as api, api.websocket("/chat") as ws:
            await ws.send("fail")
    async with Api(reached, raise_app_exceptions=raises) as api:
        api.expect_app_error(LookupError)
        async with api.websocket("/chat") as ws:
            await ws.send("fail")


async def test_a_websocket_that_is_refused(api):
    with pytest.raises(WebSocketRefusedError, match=r"(?s)/chat: .* status 403\n\nrequest\n  GET .*/chat\?no=1\n"):
        async with api.websocket("/chat", params={"no": 1}):
            pass
    with pytest.raises(WebSocketRefusedError, match="with status 402: members only") as refused:
        async with api.websocket("/chat?denied=1"):
            pass
    assert (refused.value.status, refused.value.body) == (402, b"members only")
    assert str(refused.value).endswith("  402 Payment Required\n  members only")


async def test_a_websocket_that_says_nothing_is_a_time_out(reached):
    async with Api(reached, timeout=30.0) as api:
        with pytest.raises(TimeoutError, match=r"WebSocket /chat: no (message|handshake) within 0\.3 s\n\nrequest"):
            async with api.websocket("/chat", timeout=0.3) as ws:
                await ws.receive()


async def test_calls_of_the_application_are_mocked_and_its_own_are_not(api, reached):
    with respx.mock() as others:
        others.get("https://example.org").respond(json=3)
        (await api.get("/users/1")).expect(200)
        async with httpx.AsyncClient(verify=False) as client:
            assert (await client.get("https://example.org")).json() == 3
    mock = MockHttp("test_it", base_url="https://example.org")
    with mock:
        mock.get("/").respond(json=4)
        (await api.get("/users/1")).expect(200)
        async with httpx.AsyncClient(verify=False) as client:
            assert (await client.get("https://example.org/")).json() == 4
        assert mock.calls.call_count == 1


async def test_many_at_once_have_answers_of_their_own(api):
    async def ask(number):
        response = await api.as_(str(number)).post("/login", json={"name": str(number)})
        response.expect(204)
        (await api.as_(str(number)).get("/me")).expect(200, json={"name": str(number)})
        (await api.post("/echo", content=str(number))).expect(200, json={"body": str(number)})

    async with asyncio.TaskGroup() as group:
        for number in range(64):
            group.create_task(ask(number))


async def test_connections_are_kept_and_stale_ones_are_not_used(sample):
    async with opened_app(serve(sample)) as opened, Api(opened) as api:
        transport = api._shared.transport
        for _ in range(5):
            (await api.get("/me")).expect(200)
        assert len(transport._open) == 1
        (await api.get("/fail")).expect(500)
        assert len(transport._open) == 0
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(api.get("/me"))
        assert 1 <= len(transport._open) <= 8
        task = asyncio.ensure_future(api.get("/stubborn"))
        await sample.state.reached.wait()
        held = len(transport._open)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(transport._open) == held - 1


async def test_a_connection_that_was_closed_meanwhile_is_not_used():
    asked = []

    async def answer(reader, writer):
        while request := await reader.readuntil(b"\r\n\r\n"):
            asked.append(request.split()[0])
            if len(asked) == 2:  # as a server that closes while a request is on its way
                writer.close()
                return
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    server = await asyncio.start_server(answer, "127.0.0.1")
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, Api(url) as api:
        for _ in range(2):
            (await api.get("/")).expect(200, text="ok")
        assert asked == [b"GET", b"GET", b"GET"]
        asked[1:] = []
        with pytest.raises(httpx.RemoteProtocolError, match="Server disconnected without sending a response"):
            await api.post("/")
        assert asked == [b"GET", b"POST"]


async def test_each_call_is_told_with_its_time(sample):
    calls = []
    async with Api(sample, on_call=calls.append) as api:
        await api.get("/users/1")
        async with api.stream("GET", "/users/1"):
            pass
        with pytest.raises(httpx.ReadTimeout) as failed:
            await api.get("/stubborn", timeout=0.05)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await api.get("/stubborn")
        with pytest.raises(LookupError):
            async with api.stream("GET", "/users/1"):
                raise LookupError
        async with api.websocket("/chat") as ws:
            await ws.send("hi")
        with pytest.raises(WebSocketRefusedError):
            async with api.websocket("/chat?no=1"):
                pass
        with pytest.raises(TimeoutError):
            async with api.websocket("/chat", timeout=0.05) as ws:
                await ws.receive()
    assert [(call.method, call.path, call.timed_out) for call in calls] == [
        ("GET", "/users/1", False),
        ("GET", "/users/1", False),
        ("GET", "/stubborn", True),
        ("GET", "/stubborn", False),
        ("GET", "/users/1", False),
        ("WEBSOCKET", "/chat", False),
        ("WEBSOCKET", "/chat", False),
        ("WEBSOCKET", "/chat", True),
    ]
    assert all(call.start <= call.end for call in calls)
    assert "GET http://app.test/stubborn failed after" in failed.value.__notes__[0]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/users/17/orders", "/users/{}/orders"),
        ("/users/0f8fad5b-d9cb-469f-a165-70867728950e", "/users/{}"),
        ("/reset/eyJhbGciOiJIUzI1NiJ9.e30", "/reset/{}"),
        ("/api/v1/user-settings/export_of_everything", "/api/v1/user-settings/export_of_everything"),
    ],
)
def test_calls_that_are_alike_have_one_route(path, route):
    assert route_of(path) == route


async def test_a_process_that_has_ended_is_told():
    async with Api(serve("sample_app:app")) as api:
        (await api.get("/users/1")).expect(200)
        os.kill(api._shared.opened.process.pid, signal.SIGKILL)
        with pytest.raises(AppError, match=r"sample_app:app, in a process of its own, has ended with signal SIGKILL"):
            await calls_until_it_fails(api)


async def calls_until_it_fails(api):
    while True:
        with contextlib.suppress(httpx.HTTPError):  # it dies as it is asked
            await api.get("/me")
        await asyncio.sleep(0.01)


async def test_a_service_is_called_at_its_endpoint(sample):
    async with opened_app(serve(sample)) as opened:
        port = int(opened.base_url.rpartition(":")[2])
        endpoint = Endpoint(
            service="shop", kind="container", provider="docker", scheme="tcp", host="127.0.0.1", port=port
        )
        async with Api(endpoint) as api:
            (await api.get("/users/1")).expect(200, json={"name": "Ada"})


async def test_outside_of_its_block_it_is_told(sample):
    api = Api(sample)
    async with api:
        ann = api.as_("ann")
        (await ann.get("/me")).expect(200)
    for call in (lambda: api.get("/me"), lambda: api.as_("ann").get("/me"), lambda: ann.get("/me")):
        with pytest.raises(AtkError, match=r"This Api isn't open: call it within `async with Api\(\.\.\.\) as api`"):
            await call()


@pytest.mark.parametrize("name", ["jsonpath", "websockets", "uvicorn"])
async def test_a_library_that_is_missing_is_named(monkeypatch, sample, name):
    for module in ("responses", "websocket", "served"):
        monkeypatch.setattr(f"asynctest_kit.http.{module}.find_spec", lambda module: None)
    with pytest.raises(AtkError, match=re.escape("pip install 'asynctest_kit[api]'")):
        async with Api({"jsonpath": sample, "websockets": "http://127.0.0.1:9", "uvicorn": serve(sample)}[name]) as api:
            if name == "jsonpath":
                (await api.get("/me")).expect(jsonpath={"$": ...})
            async with api.websocket("/chat"):
                pass


SUITE = """
import asyncio

import httpx
import pytest
from sample_app import make

from asynctest_kit.http.apps import serve

pytestmark = pytest.mark.anyio

PATIENCE = httpx.Timeout(60, read=0.5)


@pytest.fixture(params=["in process", "socket"])
def app(request):
    return make() if request.param == "in process" else serve(make())


@pytest.mark.parametrize("number", range(32))
async def test_own_user(api, number):
    await api.post("/login", json={"name": str(number)})
    (await api.get("/me")).expect(200, json={"name": str(number)})


@pytest.mark.parametrize("number", range(32))
async def test_own_mocks(api, mock_http, number):
    mock_http.get("https://stock.example.org/").respond(json=number)
    (await api.get("/stock")).expect(200, json=number)


async def test_late(api):
    with pytest.raises(httpx.ReadTimeout):
        await api.get("/stubborn", timeout=httpx.Timeout(60, read=0.05))


async def test_hole(api, faults):
    if api.base_url == "http://app.test":
        return
    proxy = await faults(api.base_url)
    async with proxy.blackhole(), httpx.AsyncClient(verify=False, timeout=PATIENCE) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(proxy.endpoint.url)


async def test_cut_off(api):
    async with api.websocket("/chat") as ws:
        await ws.send("hi")
        await ws.receive()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await api.get("/stubborn")


async def test_status(api):
    (await api.get("/fail")).expect(200)
"""

#: What is called by tests of which there are more, and by those that are run again as they fail.
ODD = {("GET", "/stock"): 64, ("GET", "/fail"): 4}

CONFTEST = """
import pytest

@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"

@pytest.fixture(scope="session")
def api_options():
    return {"headers": {"x-trace": "1"}}
"""


@pytest.mark.parametrize(
    "runner", [["pytest"], ["asynctest_kit", "run", "--report-json", "report.json"]], ids=["pytest", "atk"]
)
async def test_the_fixture_in_a_suite(runner, tmp_path):
    (tmp_path / "test_it.py").write_text(SUITE)
    (tmp_path / "test_none.py").write_text("async def test_none(api, anyio_backend):\n    pass\n")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pyproject.toml").write_text(
        f"[tool.pytest.ini_options]\nfilterwarnings = ['error']\nanyio_mode = 'auto'\n"
        f"pythonpath = ['{Path(__file__).parent}']\n[tool.asynctest_kit]\n"
    )
    command = [sys.executable, "-m", *runner, "-p", "no:cacheprovider", "-p", "no:asyncio", "."]
    ran = await anyio.run_process(command, cwd=tmp_path, check=False, env={**os.environ, "COLUMNS": "200"})
    output = (ran.stdout + ran.stderr).decode()
    assert "3 failed, 134 passed" in output or "2 failed, 134 passed, 1 error" in output, output
    assert "test_none - asynctest_kit.http.lifespan.AppError: There is no application" in output
    assert "status: expected 200, received 500 Internal Server Error" in output
    assert "LookupError: planted" in output
    if "run" in runner:
        assert "\nmoved" not in output
        report = json.loads((tmp_path / "report.json").read_text())
        calls = {(call["method"], call["route"]): call["calls"] for call in report["calls"]}
        assert calls == {
            ("POST", "/login"): 64,
            ("GET", "/me"): 64,
            ("GET", "/stubborn"): 4,
            ("WEBSOCKET", "/chat"): 2,
            **ODD,
        }
        waits = [(one["nodeid"].partition("::")[2], one["what"].partition(":")[0]) for one in report["time_outs"]]
        assert sorted(waits) == [
            ("test_hole[socket]", "127.0.0.1"),
            ("test_late[in process]", "GET /stubborn"),
            ("test_late[socket]", "GET /stubborn"),
        ]
        assert all(one["duration_s"] >= 0.04 for one in report["time_outs"])
