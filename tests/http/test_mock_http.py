"""``mock_http``: one test's answers, in a suite of its own under both runners, and what its errors say."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import anyio
import httpx
import pytest
import respx

from asynctest_kit.fixtures.written import WrittenFiles
from asynctest_kit.http.mocks import MockHttp, RouteNotCalledError, UnmockedCallError

pytestmark = pytest.mark.anyio

STOCK = "https://api.example.org/stock"

SUITE = r"""
import asyncio
import os
import sys
from pathlib import Path

import httpx
import pytest
import respx

pytestmark = pytest.mark.anyio

URL = "https://api.example.org/stock"
MEETING = asyncio.Event()
HERE = set()


@pytest.fixture(scope="session")
async def client():
    async with httpx.AsyncClient(verify=False) as client:
        yield client


@pytest.fixture
def stock(mock_http, number):
    return mock_http.get(URL).respond(json={"left": number})


async def left(client):
    return (await client.get(URL)).json()["left"]


async def meet(number):
    # Under the engine each asks with a number of others' mocks open; alone there is nobody to wait for.
    HERE.add(number)
    if len(HERE) >= 32 or "asynctest_kit.engine.dispatcher" not in sys.modules:
        MEETING.set()
    await MEETING.wait()


@pytest.mark.parametrize("number", range(200))
async def test_own_answer(stock, client, number):
    await meet(number)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(left(client)) for _ in range(2)]
    assert {task.result() for task in tasks} | {await left(client)} == {number}
    assert stock.call_count == 3


@pytest.mark.parametrize("number", range(5))
async def test_with_respx_inside(mock_http, client, number):
    mock_http.get(URL).respond(json={"left": number})
    with respx.mock() as inner:
        inner.get("https://other.example.org/").respond(text=str(number))
        assert (await client.get("https://other.example.org/")).text == str(number)
        assert await left(client) == number


async def answer(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nreal")
    await writer.drain()
    writer.close()


async def test_recorded(mock_http, client):
    port = Path(__file__).with_name("port")
    if "ATK_RECORD" in os.environ:
        server = await asyncio.start_server(answer, "127.0.0.1")
        port.write_text(str(server.sockets[0].getsockname()[1]))
    mock_http.replay("recorded.json")
    assert (await client.get(f"http://127.0.0.1:{port.read_text()}/")).text == "real"
    if "ATK_RECORD" in os.environ:
        server.close()


async def test_unmocked(mock_http, client):
    mock_http.get("https://api.example.org/stocks").respond()
    await client.get(URL)


async def test_swallowed(mock_http, client):
    with pytest.raises(Exception, match="which nothing mocks"):
        await client.get(URL)


async def test_not_called(mock_http):
    mock_http.post(URL).respond(201)


async def test_fault_where_nothing_connects(faults):
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1")
    proxy = await faults(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with proxy.reset():
        pass
    server.close()


async def test_not_called_and_failed(mock_http):
    mock_http.post(URL).respond(201)
    raise LookupError
"""

PYPROJECT = "[tool.pytest.ini_options]\nfilterwarnings = ['error']\n[tool.asynctest_kit]\n"
CONFTEST = """
import pytest

@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"
"""

#: What becomes of a test's call and tear-down, for those that don't pass.
ODD = {
    "FAILED test_it.py::test_not_called_and_failed",
    "FAILED test_it.py::test_unmocked",
    "ERROR test_it.py::test_fault_where_nothing_connects",
    "ERROR test_it.py::test_not_called",
    "ERROR test_it.py::test_swallowed",
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mock-http")
    (folder / "test_it.py").write_text(SUITE)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "conftest.py").write_text(CONFTEST)
    return folder


async def run(folder, *command, **environment):
    argv = [sys.executable, "-m", *command, "-p", "no:cacheprovider", "--tb=short", "-rfE"]
    return (await anyio.run_process(argv, cwd=folder, env=os.environ | environment, check=False)).stdout.decode()


def odd(output):
    lines = {line.partition(" - ")[0] for line in output.splitlines()}
    return {line for line in lines if line.startswith(("FAILED", "ERROR"))}


@pytest.fixture(scope="module")
async def together(suite):
    return await run(suite, "asynctest_kit", "run", "--concurrency", "64", "--shuffle", "5", ATK_RECORD="1")


async def test_none_of_200_at_once_gets_anothers_answer(suite, together):
    assert odd(together) == ODD, together
    (kept,) = json.loads((suite / "recorded.json").read_text())["exchanges"]
    assert kept["test"] == "test_it.py::test_recorded"
    assert re.search(r"2 failed, 209 passed, 3 errors", together)
    assert re.search(r"files that were written =+\nrecorded\.json  new\n", together)
    assert "interference" not in together
    assert "exclusive" not in together
    assert "touched process-global state" not in together


async def test_outcomes_are_the_same_under_pytest_and_what_was_recorded_is_replayed(suite, together):
    elsewhere = suite / "elsewhere"  # a path is relative to rootdir, wherever the run is started
    elsewhere.mkdir()
    output = await run(elsewhere, "pytest", "-q", "..")
    assert {line.replace("../", "") for line in odd(output)} == ODD, output
    assert "2 failed, 209 passed, 3 errors" in output


async def test_an_unmocked_call_names_the_test_and_the_nearest_routes(together):
    assert "test_it.py::test_unmocked called GET https://api.example.org/stock, which nothing mocks." in together
    assert "GET https://api.example.org/stocks  differs in: path" in together


async def test_a_swallowed_error_is_told_again(together):
    assert "test_it.py::test_swallowed called GET https://api.example.org/stock, which nothing mocks." in together


async def test_what_was_not_called_is_told(together):
    assert "test_it.py::test_not_called mocked what nothing called:" in together


@pytest.fixture
async def client():
    async with httpx.AsyncClient(verify=False) as client:
        yield client


@pytest.fixture
def mock():
    with MockHttp("test_shop") as mock:
        yield mock


async def test_the_nearest_route_comes_first(mock, client):
    mock.post("https://other.example.org/far").respond()
    mock.get(STOCK, params={"page": "1"}, headers={"Authorization": "secret"}).respond()
    with pytest.raises(UnmockedCallError) as caught:
        await client.get(STOCK, params={"page": "2", "api_key": "secret"}, headers={"Authorization": "secret"})
    *told, help_with_it = str(caught.value).splitlines()
    assert told == [
        f"test_shop called GET {STOCK}?page=2&api_key=***, which nothing mocks.",
        "Nearest routes:",
        f"  GET {STOCK}?page=1 with headers  differs in: params",
        "  POST https://other.example.org/far  differs in: method, host, path",
    ]
    assert help_with_it.startswith("Answer it with mock_http.get(...).respond(...), or let it reach the real server")
    assert help_with_it.endswith(" with mock_http.let_through('https://api.example.org/').")
    with pytest.raises(UnmockedCallError):
        mock.check()


async def test_a_call_without_any_route(mock, client):
    with pytest.raises(UnmockedCallError, match=r"(?s)called DELETE .*There are no routes"):
        await client.delete(STOCK)


async def test_a_sync_client_is_refused_too(mock):
    with pytest.raises(UnmockedCallError, match=r"test_shop called GET"):
        await asyncio.to_thread(httpx.get, STOCK, verify=False)


async def test_routes_may_go_without_a_call(mock, client):
    route = mock.get(STOCK).respond(204)
    other = mock.get(f"{STOCK}/other").respond(204)
    await client.get(STOCK)
    with pytest.raises(RouteNotCalledError) as caught:
        mock.check()
    assert str(caught.value).splitlines() == [
        "test_shop mocked what nothing called:",
        f"  GET {STOCK}/other",
        "It called:",
        f"  GET {STOCK}",
        "A route that may go without a call is told to mock_http.optional(route).",
    ]
    mock.optional(other)
    mock.check()
    mock.post(STOCK)
    mock.optional()
    mock.check()
    assert route.called


async def test_what_is_let_through_reaches_the_server(mock, client, web):
    mock.get(STOCK).respond(text="mocked")
    mock.let_through(web, "https://never.example.org/")
    assert (await client.get(web)).text == "real"
    assert (await client.get(STOCK)).text == "mocked"
    mock.check()


async def test_what_another_router_answers_is_not_unmocked(mock, client):
    mock.optional()
    with respx.mock() as other:
        other.get(STOCK).respond(text="other")
        assert (await client.get(STOCK)).text == "other"
    mock.check()


@pytest.fixture
async def web():
    async def answer(reader, writer):
        while await reader.readline() not in {b"\r\n", b""}:
            pass
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nreal")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    server.close()


def test_a_file_that_one_worker_made_and_others_changed_is_new():
    written = WrittenFiles(SimpleNamespace(stash=pytest.Stash()))
    for what in ("changed", "new", "changed"):
        written.pytest_testnodedown(SimpleNamespace(workeroutput={"asynctest_kit_written": {"/recorded.json": what}}))
    lines = []
    reporter = SimpleNamespace(section=lines.append, line=lines.append)
    written.pytest_terminal_summary(reporter, SimpleNamespace(invocation_params=SimpleNamespace(dir=Path("/"))))
    assert lines[1:] == ["recorded.json  new"]
