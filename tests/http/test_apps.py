"""The application under test: in process, on a socket of the loop, in a process of its own, or elsewhere."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest
import sample_app

from asynctest_kit.http.apps import AppError, opened_app, serve
from asynctest_kit.provision.service import Endpoint

pytestmark = pytest.mark.anyio

IN_LOOP = pytest.mark.parametrize("reached", [lambda app: app, serve], ids=["in-process", "socket"])

SECRET = "hunter2-and-more"


@asynccontextmanager
async def calling(app, **options):
    async with opened_app(app, **options) as opened:
        transport = opened.transport or httpx.AsyncHTTPTransport(verify=False)
        async with httpx.AsyncClient(transport=transport, base_url=opened.base_url, timeout=60) as client:
            yield client


@IN_LOOP
async def test_lifespan_runs_around_the_calls(reached):
    log = []
    async with calling(reached(sample_app.make(log))) as client:
        assert log == ["up"]
        assert (await client.post("/echo", content=b"hi")).json()["state"] is True
    assert log == ["up", "down"]


@IN_LOOP
async def test_lifespan_ends_in_order_where_the_block_fails(reached):
    log = []
    with pytest.raises(LookupError, match="of the test"):
        async with opened_app(reached(sample_app.make(log, fails="shutdown"))):
            raise LookupError("of the test")
    assert log == ["up", "down"]


@IN_LOOP
async def test_what_is_sent_is_there_when_it_is_sent(reached):
    app = sample_app.make()
    async with calling(reached(app)) as client:
        app.state.may_go_on.set()
        async with client.stream("GET", "/steps") as response:
            parts = []
            async for part in response.aiter_raw():
                parts.append(part)
                app.state.may_go_on.set()
    assert b"".join(parts) == b"012"
    assert len(parts) == 3


@IN_LOOP
async def test_a_client_that_leaves_is_told_to_the_application(reached):
    app = sample_app.make()
    async with calling(reached(app)) as client:
        app.state.may_go_on.set()
        async with client.stream("GET", "/steps") as response:
            async for _ in response.aiter_raw():
                break
        await app.state.ended.wait()


@IN_LOOP
async def test_a_cancelled_caller_leaves_nothing(reached):
    app = sample_app.make()
    async with calling(reached(app)) as client:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(client.get("/stubborn"))
            await app.state.reached.wait()
            task.cancel()
        assert (await client.get("/echo")).status_code == 200
    assert app.state.ended.is_set()


@IN_LOOP
async def test_an_application_doesnt_run_ahead_of_its_reader(reached):
    app = sample_app.make()
    async with calling(reached(app)) as client:
        async with client.stream("GET", "/endless") as response:
            async for _ in response.aiter_raw():
                break
        assert app.state.sent < 10_000


@IN_LOOP
async def test_many_at_once(reached):
    async with calling(reached(sample_app.make())) as client:

        async def ask(number):
            response = await client.post("/echo", content=f"{number}")
            assert response.json()["body"] == f"{number}"

        async with asyncio.TaskGroup() as group:
            for number in range(64):
                group.create_task(ask(number))


async def test_exception_of_the_application_is_known(caplog):
    async with calling(sample_app.make()) as client:
        response = await client.get("/fail")
        assert response.status_code == 500
        assert str(response.error) == "planted"
        assert (await client.get("/echo")).error is None
    assert "Exception in the application under test" in caplog.text


async def test_exception_of_the_application_is_raised_if_asked_for():
    async with calling(sample_app.make(), raise_app_exceptions=True) as client:
        with pytest.raises(LookupError, match="planted"):
            await client.get("/fail")
        with pytest.raises(LookupError, match="planted"):
            await client.get("/fail-midway")


@IN_LOOP
async def test_half_a_response_is_an_error(reached):
    async with calling(reached(sample_app.make())) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/fail-midway")


async def test_half_a_response_tells_why():
    async with calling(sample_app.make()) as client:
        with pytest.raises(httpx.RemoteProtocolError) as failed:
            await client.get("/fail-midway")
        assert isinstance(failed.value.__cause__, LookupError)


async def test_a_request_has_a_context_of_its_own():
    sample_app.NAME.set("the test")
    async with calling(sample_app.make()) as client:
        assert [(await client.get("/echo")).json()["name"] for _ in range(2)] == ["the test"] * 2
    assert sample_app.NAME.get() == "the test"


async def test_background_tasks_are_done_when_the_response_is_there():
    app = sample_app.make()
    async with calling(app) as client:
        assert (await client.post("/later")).status_code == 202
        assert app.state.done


async def test_a_response_that_doesnt_come_is_a_time_out_in_process_too():
    async with calling(sample_app.make()) as client:
        with pytest.raises(httpx.ReadTimeout, match=r"0\.01 s were not enough for the response"):
            await client.get("/stubborn", timeout=0.01)


async def test_a_body_that_comes_in_pieces_arrives():
    async def pieces():
        yield b"on"
        yield b"e"

    async with calling(sample_app.make()) as client:
        assert (await client.post("/echo", content=pieces())).json()["body"] == "one"
        head = await client.head("/echo")
        assert (head.content, head.headers["content-length"] > "0") == (b"", True)


async def no_lifespan(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def silent(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 204})


async def ends_early(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    raise LookupError("planted")


async def breaks_at_once(scope, receive, send):
    await receive()
    raise LookupError("planted")


@IN_LOOP
async def test_an_application_without_a_lifespan_is_used_without(reached):
    async with calling(reached(no_lifespan)) as client:
        assert (await client.get("/")).status_code == 204


async def test_an_application_that_returns_early_is_told():
    async with calling(silent) as client:
        with pytest.raises(httpx.RemoteProtocolError) as failed:
            await client.get("/")
        assert "without a complete response" in str(failed.value.__cause__)


@IN_LOOP
@pytest.mark.parametrize(
    ("app", "message"),
    [
        (sample_app.make(fails="startup"), r"did not start: its lifespan failed: ConnectionError: no database here"),
        (sample_app.make(fails="shutdown"), r"failed in its lifespan's shutdown: ConnectionError: no database any"),
        (ends_early, r"test_apps\.ends_early raised LookupError in its lifespan, before its shutdown .*: planted"),
        (breaks_at_once, r"raised LookupError in its lifespan, before its startup was done: LookupError: planted"),
    ],
    ids=["startup", "shutdown", "between", "unsaid"],
)
async def test_a_lifespan_that_fails_is_told_with_its_cause(reached, app, message):
    with pytest.raises(AppError, match=message) as failed:
        async with opened_app(reached(app)):
            pass
    cause = failed.value.__cause__
    assert isinstance(cause, (ConnectionError, LookupError))
    assert cause.__traceback__ is not None


async def test_what_was_opened_is_used_as_it_is():
    log = []
    async with opened_app(sample_app.make(log)) as opened:
        for _ in range(2):
            async with calling(opened) as client:
                assert (await client.get("/echo")).status_code == 200
        assert log == ["up"]


async def test_a_process_of_its_own(capsys):
    endpoint = Endpoint(
        service="db", kind="postgres", provider="docker", scheme="postgresql", host="h", port=1, password=SECRET
    )
    env = {"DATABASE_URL": endpoint, "MODE": "test"}
    async with opened_app(serve("sample_app:make", factory=True, env=env, ready="/slowly")) as opened:
        async with httpx.AsyncClient(verify=False, base_url=opened.base_url, timeout=60) as client:
            assert (await client.get("/env/MODE")).text == "test"
            assert (await client.get("/env/DATABASE_URL")).text == endpoint.url
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/fail-midway")
        os.kill(opened.process.pid, signal.SIGKILL)
        await until(opened.process.ended)
        assert opened.process.ended() == "signal SIGKILL"
    written = capsys.readouterr()
    assert "Application startup complete" in written.err
    assert "LookupError: planted" in written.err
    assert '"GET /env/MODE HTTP/1.1" 200' in written.out


async def test_a_process_that_doesnt_start_shows_its_last_words():
    env = {"DATABASE_URL": f"postgresql://me:{SECRET}@h/d"}
    with pytest.raises(AppError) as failed:
        async with opened_app(serve("sample_app:broken", factory=True, env=env)):
            pass
    message = str(failed.value)
    assert "sample_app:broken, in a process of its own, did not start: its process ended with exit code 3" in message
    assert "ConnectionError: no database here" in message
    assert "using postgresql://me:***@h/d" in message
    assert SECRET not in message
    assert "Authorization: ***\npassword=*** user=me, redis://:***@cache/0" in message


async def test_an_application_that_is_never_ready_says_what_it_answered():
    with pytest.raises(AppError, match=r"was not ready within 0\.5 s: /nothing answered (status 404|nothing)\."):
        async with opened_app(serve(sample_app.make(), ready="/nothing", timeout=0.5)):
            pass


async def test_a_process_that_never_starts_up_says_so():
    message = (
        r"sample_app:hanging, in a process of its own, was not ready within 0\.5 s: its lifespan's start-up has not"
    )
    with pytest.raises(AppError, match=message):
        async with opened_app(serve("sample_app:hanging", factory=True, timeout=0.5)):
            pass


KILLED = """
import asyncio
import sys

from asynctest_kit.http.apps import opened_app, serve


async def main():
    async with opened_app(serve("sample_app:app")) as opened:
        sys.stdout.write(f"pid {opened.process.pid}\\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


asyncio.run(main())
"""


async def test_a_process_ends_with_a_runner_that_is_killed():
    command, folder = [sys.executable, "-c", KILLED], Path(__file__).parent
    async with await anyio.open_process(command, cwd=folder, stderr=subprocess.DEVNULL) as runner:
        said = ""
        while not (found := re.search(r"pid (\d+)\n", said)):
            said += (await runner.stdout.receive()).decode()
        runner.kill()
    await until(lambda: has_ended(found[1]))


def has_ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def until(holds):
    while not holds():  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (lambda: 3, "3 is no application. The fixture app may return an ASGI application, "),
        (lambda: "shop.main:app", r"'shop.main:app', which is no URL .* Is serve\('shop.main:app'\) meant\?"),
        (lambda: "ftp://example.org", "no URL with http:// or https:// and a host"),
        (lambda: serve("shop"), r"serve\('shop'\): an application's name is module:name"),
        (lambda: serve(3), "takes an ASGI application or its name, and 3 is neither"),
        (lambda: serve(sample_app.app, process=True), "another process can't get an object of this one"),
        (lambda: serve(sample_app.app, env={"A": "b"}), "variables are those of a process of its own"),
        (lambda: serve("a:b", env={"A": 3}), "A is a int. Give a text or a service's endpoint"),
        (lambda: serve("sample_app:nothing", process=False), "has no attribute 'nothing'"),
        (
            lambda: Endpoint(service="db", kind="redis", provider="docker", scheme="redis", host="h", port=1),
            "The service 'db' is at redis://h:1, and speaks no HTTP",
        ),
    ],
)
async def test_what_is_no_application_is_told(app, message):
    with pytest.raises(AppError, match=message):
        async with opened_app(app()):
            pass


@pytest.mark.parametrize(
    ("scheme", "url"), [("tcp", "http://127.0.0.1:8080"), ("http", "http://127.0.0.1:8080"), ("https", "https://127.0.0.1:8080")]
)  # fmt: skip
async def test_a_service_is_called_where_it_is(scheme, url):
    endpoint = Endpoint(service="shop", kind="container", provider="docker", scheme=scheme, host="127.0.0.1", port=8080)
    async with opened_app(endpoint) as opened:
        assert (opened.base_url, opened.transport) == (url, None)
