"""What a failure shows of calls: the test's line and the message first, and no frame of what carried the call."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.anyio

SUITE = """
    from contextlib import suppress

    import httpx
    import pytest
    import strawberry
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Mount, Route, WebSocketRoute
    from strawberry.asgi import GraphQL as GraphQLApp

    from asynctest_kit.http.graphql import GraphQL

    pytestmark = pytest.mark.anyio

    @strawberry.type
    class Query:
        @strawberry.field
        def book(self) -> str | None:
            raise LookupError("it is lent")

    async def stock():
        async with httpx.AsyncClient() as client:
            return (await client.get("https://stock.test/left")).json()

    async def order(request):
        return JSONResponse(await stock())

    async def user(request):
        return JSONResponse({"name": 5})

    async def crash(ws):
        await ws.accept()
        raise LookupError(await ws.receive_text())

    async def leave(ws):
        await ws.accept()
        while True:  # as many do: it raises when the client has gone
            await ws.receive_text()

    @pytest.fixture
    def app():
        graphql_app = GraphQLApp(strawberry.Schema(Query))
        routes = [WebSocketRoute("/crash", crash), WebSocketRoute("/leave", leave)]
        routes += [Route("/order", order), Route("/user", user), Mount("/graphql", graphql_app)]
        return Starlette(routes=routes)

    @pytest.fixture(scope="session")
    def api_options():
        return {"raise_app_exceptions": True}

    async def test_the_app_calls_what_is_not_mocked(api, mock_http):
        await api.get("/order")

    async def test_it_calls_what_is_not_mocked(mock_http):
        await stock()

    async def test_api_is_watched(api, openapi):
        openapi.watch(api)
        await api.get("/user")

    async def test_a_client_is_watched(app, openapi):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.test") as client:
            openapi.watch(client)
            await client.get("/user")

    async def test_the_code_swallows_it(api, openapi):
        openapi.watch(api)
        with suppress(Exception):
            await api.get("/user")

    async def test_a_websocket_is_not_read(api):
        async with api.websocket("/crash") as ws:
            await ws.send("on")

    async def test_a_websocket_leaves_a_loop(api):
        async with api.websocket("/leave") as ws:
            await ws.send("on")

    async def test_a_route_is_not_called(mock_http):
        mock_http.get("https://stock.test/left").respond(json=1)

    async def test_errors_are_not_looked_at(graphql):
        await graphql("{ book }")

    async def test_nor_are_those_of_a_session(api):
        await GraphQL(api.as_("ada"), path="/graphql/")("{ book }")

    async def test_fails_before(graphql, mock_http):
        mock_http.get("https://stock.test/left").respond(json=1)
        await graphql("{ book }")
        assert not "the test's own"

    async def tidy(connection):
        await connection.execute("VACUUM")

    async def test_vacuums(pg):
        await tidy(pg)

    async def test_tells_it_in_other_words(pg):
        try:
            await tidy(pg)
        except Exception as error:
            raise RuntimeError("not tidied") from error
"""

DOCUMENT = """
    DOCUMENT = {
        "openapi": "3.1.0",
        "info": {"title": "shop", "version": "1"},
        "paths": {"/user": {"get": {"responses": {"200": {"description": "who", "content": {"application/json": {
            "schema": {"properties": {"name": {"type": "string"}}}}}}}}}},
    }
"""

SETTINGS = '[tool.asynctest_kit]\ngraphql.path = "/graphql/"\nopenapi.schema = "document:DOCUMENT"\n'


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


def parts(said):
    """What is said of each test, by its name."""
    found = re.split(
        r"^_+ (?:ERROR at teardown of )?(test_\w+) _+$", said.partition("short test summary")[0], flags=re.MULTILINE
    )
    return dict(zip(found[1::2], found[2::2], strict=True))


@pytest.mark.parametrize("runner", ["atk", "pytest"])
async def test_a_failure_begins_with_the_test_s_line_and_its_message(project, atk, run_pytest, runner):
    root = project(test_shop__py=SUITE, document__py=DOCUMENT, pyproject__toml=SETTINGS)
    options = ["-p", "no:logging", "-p", "no:cacheprovider", "--show-capture=no"]
    if runner == "atk":
        finished = await atk("run", "--report", "none", *options, cwd=root, ATK_PROVIDER="embedded")
        code, said = finished.code, finished.out + finished.err
    else:
        code, said = await run_pytest("-p", "anyio", *options, cwd=root, ATK_PROVIDER="embedded")
    told = parts(said)

    assert code == 1, said
    assert len(told) == 12, said
    assert "/site-packages/" not in said.partition("short test summary")[0]
    assert "asynctest_kit/" not in said.partition("warnings summary")[0].partition("FAILURES")[2]

    assert '>       await api.get("/order")' in told["test_the_app_calls_what_is_not_mocked"]
    for name in ("test_the_app_calls_what_is_not_mocked", "test_it_calls_what_is_not_mocked"):
        assert re.search(r">\s+return \(await client.get.*\n(?:.*\^+\n)?E\s+.*UnmockedCallError: test_shop", told[name])
    assert re.search(
        r'>\s+await api.get\("/user"\)\nE\s+.*OpenApiViolation: GET /user does not keep', told["test_api_is_watched"]
    )
    assert re.search(
        r'>\s+await client.get\("/user"\)\nE\s+.*OpenApiViolation: GET /user does', told["test_a_client_is_watched"]
    )
    assert told["test_the_code_swallows_it"].startswith("\nGET /user does not keep to document:DOCUMENT:\n")
    assert re.match(
        r"(?s)\nThe application raised what the test has not looked at, in WebSocket /crash:\n .*in crash\n.*: on\n",
        told["test_a_websocket_is_not_read"],
    )
    assert told["test_a_route_is_not_called"].startswith(
        "\ntest_shop.py::test_a_route_is_not_called mocked what nothing"
    )
    for name in ("test_errors_are_not_looked_at", "test_nor_are_those_of_a_session"):
        assert re.match(
            rf"\nThe answer to the call at test_shop\.py:\d+ in {name} has errors that the test has not looked at:\n"
            r"  it is lent, at book\nName those that are meant .*\nrequest\n  POST http://app\.test/graphql/\n",
            told[name],
        )
    assert 'assert not "the test\'s own"' in told["test_fails_before"]
    assert "has errors" not in told["test_fails_before"]
    for name in ("test_vacuums", "test_tells_it_in_other_words"):
        assert told[name].startswith(
            "\nasyncpg.exceptions.ActiveSQLTransactionError: VACUUM cannot run inside a transaction block\n\nThe above"
        )
        assert re.search(
            r'>\s+await connection.execute\("VACUUM"\)\nE\s+.*IsolationError: It can\'t run inside a transaction, .*'
            r"Give this test a database of its own: ",
            told[name],
        )


async def test_full_trace_shows_drivers_too(project, run_pytest):
    root = project(test_shop__py=SUITE, pyproject__toml=SETTINGS)
    options = ["-p", "anyio", "-p", "no:cacheprovider", "--full-trace", "-k", "test_vacuums"]
    _, said = await run_pytest(*options, cwd=root, ATK_PROVIDER="embedded")
    assert re.search(r"^\S*/site-packages/asyncpg/connection\.py:\d+: $", said, re.MULTILINE), said
