"""Tests that mock the same URL with respx, each in its own way and with its own answer, beside each other."""

import asyncio
import threading
from functools import partial

import httpx
import pytest
import respx

pytestmark = pytest.mark.anyio

URL = "https://example.org/stock"
#: Routers that many tests share.
LOCAL = respx.mock(base_url="https://example.org", assert_all_called=False)
WITH_ROUTE = respx.mock(assert_all_called=False)
WITH_ROUTE.get(URL, name="stock").respond(json={"number": -1})
THREADS = 5


async def asked():
    """The answer that a client gets, one time after another, so that others come in between."""
    numbers = set()
    async with httpx.AsyncClient(verify=False) as client:
        for _ in range(3):
            await asyncio.sleep(0.005)
            numbers.add((await client.get(URL)).json()["number"])
    return numbers


@pytest.fixture
async def stubbed(number):
    """Opened by a fixture."""
    async with respx.mock() as router:
        router.get(URL).respond(json={"number": number})
        yield router


@respx.mock
@pytest.mark.parametrize("number", range(10))
async def test_decorated(number):
    route = respx.get(URL).respond(json={"number": number})
    assert await asked() == {number}
    assert route.call_count == respx.calls.call_count == len(respx.mock.calls) == len(respx.calls) == 3
    assert [call.request.url for call in respx.calls] == [URL] * 3
    assert list(respx.routes) == [route]


@respx.mock(base_url="https://example.org")
async def test_decorated_with_a_router(respx_mock):
    route = respx_mock.get("/stock").respond(json={"number": 11})
    assert await asked() == {11}
    assert route.call_count == respx_mock.calls.call_count == 3


@pytest.mark.parametrize("number", range(10))
async def test_context(number):
    async with respx.mock(using="httpx" if number % 2 else "httpcore") as router:
        router.get(URL).respond(json={"number": number})
        assert await asked() == {number}
    assert not router.routes


@pytest.mark.parametrize("number", range(10))
async def test_shared_router(number):
    assert not LOCAL.routes
    with LOCAL:
        LOCAL.get("/stock").respond(json={"number": number})
        assert await asked() == {number}
        assert LOCAL.calls.call_count == 3


@pytest.mark.parametrize("number", range(10))
async def test_fixture(stubbed, number):
    assert await asked() == {number}


@pytest.mark.parametrize("number", range(3))
async def test_plugins_fixture(respx_mock, number):
    respx_mock.get(URL).respond(json={"number": number})
    assert await asked() == {number}


@pytest.mark.parametrize("number", range(3))
async def test_child_tasks_and_threads(number):
    loop = asyncio.get_running_loop()
    with respx.mock() as router:
        router.get(URL).respond(json={"number": number})
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asked()) for _ in range(2)]
        assert [task.result() for task in tasks] == [{number}] * 2
        found = [
            await asyncio.to_thread(partial(httpx.get, verify=False), URL),
            await loop.run_in_executor(None, partial(httpx.get, verify=False), URL),
        ]
        thread = threading.Thread(target=lambda: found.append(httpx.get(URL, verify=False)))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert [answer.json()["number"] for answer in found] == [number] * 3


@pytest.fixture(scope="session")
async def real():
    """A server: what is not mocked gets there."""

    async def answer(reader, writer):
        while await reader.readline() not in {b"\r\n", b""}:
            pass
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nreal")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@pytest.mark.parametrize("number", range(10))
async def test_not_mocked(real, number):
    async with httpx.AsyncClient(verify=False) as client:
        for _ in range(3):
            assert (await client.get(real)).text == "real"


@pytest.mark.parametrize("number", range(3))
async def test_mocked_there(real, number):
    async with httpx.AsyncClient(verify=False) as client:
        with respx.mock() as router:
            router.get(real).respond(text=str(number))
            await asyncio.sleep(0.01)
            assert (await client.get(real)).text == str(number)
        assert (await client.get(real)).text == "real"


@pytest.mark.parametrize("number", range(2))
async def test_route_of_all(number):
    with WITH_ROUTE:
        assert await asked() == {-1}
        assert WITH_ROUTE.calls.call_count == 3


@pytest.fixture(scope="session")
async def relay():
    """A server of the session that asks another: no test's context."""
    queue = asyncio.Queue()

    async def serve():
        async with httpx.AsyncClient(verify=False) as client:
            while True:
                url, future = await queue.get()
                try:
                    future.set_result((await client.get(url)).text)
                except httpx.TransportError as error:
                    future.set_exception(error)

    async def ask(url):
        future = asyncio.get_running_loop().create_future()
        await queue.put((url, future))
        return await future

    task = asyncio.create_task(serve())
    yield ask
    task.cancel()


@pytest.mark.parametrize("number", range(2))
async def test_called_by_a_shared_fixture(relay, real, number):
    with respx.mock() as router:
        router.get(real).respond(text=str(number))
        await asyncio.sleep(0.01)
        assert await relay(real) == str(number)


async def test_not_mocked_by_a_shared_fixture(relay, real):
    with respx.mock(assert_all_called=False) as router:
        router.get(URL).respond(500)
        router.route(host="127.0.0.1").pass_through()
        assert await relay(f"{real}elsewhere") == "real"


@pytest.fixture(scope="class")
def of_a_class():
    with respx.mock(assert_all_called=False) as router:
        router.get(URL).respond(json={"number": -2})
        yield router


class TestOfAClass:
    async def test_one(self, of_a_class):
        assert await asked() == {-2}

    async def test_two(self, of_a_class):
        assert await asked() == {-2}


@respx.mock
def test_sync():
    respx.get(URL).respond(json={"number": 12})
    assert httpx.get(URL, verify=False).json() == {"number": 12}
    assert respx.calls.call_count == 1


async def test_alone(monkeypatch, respx_mock):
    respx_mock.get(URL).respond(json={"number": 13})
    assert await asked() == {13}
    assert respx.calls.call_count == 3
