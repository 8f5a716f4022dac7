"""Exchanges of a real app, held against its OpenAPI document."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asynctest_kit.contracts.documents import parsed_document
from asynctest_kit.contracts.errors import DocumentError
from asynctest_kit.contracts.openapi import ExchangeChecks, OpenApiViolation, Seen
from asynctest_kit.http.client import Api

pytestmark = pytest.mark.anyio

USER = {
    "type": "object",
    "required": ["id", "name", "token"],
    "properties": {
        "id": {"type": "integer", "readOnly": True},
        "name": {"type": "string", "minLength": 1},
        "token": {"type": "string", "writeOnly": True},
        "born": {"type": "string", "format": "date", "nullable": True},
        "age": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
        "friends": {"type": "array", "items": {"$ref": "#/components/schemas/User"}},
    },
    "additionalProperties": False,
}
JSON_USER = {"application/json": {"schema": {"$ref": "#/components/schemas/User"}}}
DOCUMENT = {
    "openapi": "3.0.3",
    "info": {"title": "users", "version": "1"},
    "servers": [{"url": "https://api.example.org/v1"}],
    "paths": {
        "/users": {
            "post": {
                "parameters": [
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 9}},
                    {"name": "tags", "in": "query", "schema": {"type": "array", "items": {"type": "integer"}}},
                    {"name": "X-Tenant", "in": "header", "required": True, "schema": {"enum": ["a", "b"]}},
                ],
                "requestBody": {"required": True, "content": JSON_USER},
                "responses": {
                    "201": {
                        "description": "Made",
                        "headers": {"Location": {"required": True, "schema": {"type": "string", "pattern": "^/"}}},
                        "content": JSON_USER,
                    },
                    "4XX": {"$ref": "#/components/responses/Refused"},
                },
            },
        },
        "/users/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
            "get": {"responses": {"200": {"description": "It", "content": JSON_USER}}},
            "delete": {"responses": {"204": {"description": "Gone"}}},
        },
        "/users/me": {"get": {"responses": {"default": {"description": "You", "content": {"text/*": {}}}}}},
        "/stream": {"get": {"responses": {"200": {"description": "On and on", "content": {"text/event-stream": {}}}}}},
    },
    "components": {
        "schemas": {"User": USER},
        "responses": {
            "Refused": {
                "description": "No",
                "content": {"application/problem+json": {"schema": {"type": "object", "required": ["title"]}}},
            }
        },
    },
}
GOOD = {"status": 201, "headers": {"location": "/users/1"}, "body": {"id": 1, "name": "Ada"}}


async def echo(request: Request) -> Response:
    """Answers as the header ``x-answer`` says."""
    answer = json.loads(request.headers.get("x-answer", "{}"))
    return JSONResponse(answer.get("body"), answer.get("status", 200), answer.get("headers"))


@pytest.fixture
def checks():
    return ExchangeChecks("openapi.json", parsed_document(DOCUMENT, "openapi.json"), seen=Seen())


@pytest.fixture
async def client(checks):
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST", "DELETE", "PUT"])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.test") as client:
        checks.watch(client)
        yield client


def answering(status=200, body=None, **headers):
    return {"x-answer": json.dumps({"status": status, "body": body, "headers": headers})}


async def made(client, answer=None, url="/users", body=None, **headers):
    """Make a user; the parts that aren't given are as documented."""
    answer = GOOD | (answer or {})
    sent = {"x-tenant": "a", "x-answer": json.dumps(answer)} | headers
    return await client.post(url, json={"name": "Ada", "token": "hush"} if body is None else body, headers=sent)


async def test_what_the_code_swallowed_is_told_again(client, checks):
    await made(client)
    checks.check_swallowed()
    with pytest.raises(OpenApiViolation) as swallowed:
        await made(client, {"status": 299})
    with pytest.raises(OpenApiViolation) as again:
        checks.check_swallowed()
    assert again.value is swallowed.value


async def test_what_is_as_documented_passes(client):
    assert (await made(client, url="/v1/users?limit=9&tags=1&tags=2")).status_code == 201
    await made(client, {"body": {"id": 1, "name": "A", "born": None, "friends": [{"id": 2, "name": "B"}]}})
    await client.get("/users/7", headers=answering(200, {"id": 1, "name": "Ada", "age": 1}))
    await client.get("/nowhere", headers=answering(404))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"status": 200}, "undocumented status: 200. Documented: 201, 4XX"),
        ({"body": {"id": "1", "name": "Ada"}}, 'response body, $.id: "1" is not of type "integer"'),
        ({"body": {"id": 1}}, 'response body, $: "name" is a required property'),
        ({"body": {"id": 1, "name": "A", "born": "x"}}, 'response body, $.born: "x" is not a "date"'),
        ({"body": {"id": 1, "name": "A", "age": 0}}, "response body, $.age: 0 is less than or equal to"),
        (
            {"body": {"id": 1, "name": "A", "friends": [{"id": 2, "name": ""}]}},
            'response body, $.friends[0].name: "" is shorter than 1 character',
        ),
        ({"headers": {}}, "response header, Location: is required and not there"),
        ({"headers": {"location": "users"}}, 'response header, Location: "users" does not match "^/"'),
        ({"headers": {"location": "/", "content-type": "text/plain"}}, '"text/plain" is none of application/json'),
        ({"status": 422}, '"application/json" is none of application/problem+json'),
        (
            {"status": 409, "headers": {"content-type": "application/problem+json"}, "body": {}},
            '$: "title" is a required property',
        ),
    ],
)
async def test_what_a_response_breaks_is_told(client, answer, told):
    with pytest.raises(OpenApiViolation) as failure:
        await made(client, answer)

    message = str(failure.value)
    assert message.startswith("POST /users does not keep to openapi.json:\n  ")
    assert told in message


async def test_no_json(checks):
    request = httpx.Request("GET", "http://app.test/users/1")
    response = httpx.Response(200, headers={"content-type": "application/json"}, content=b"{", request=request)

    with pytest.raises(OpenApiViolation, match="response body: is no JSON"):
        checks.check(response)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"body": {"token": "hush"}}, 'request body, $: "name" is a required property'),
        ({"url": "/users?limit=10"}, 'request parameter, query "limit": 10 is greater than the maximum of 9, and the'),
        ({"url": "/users?tags=1&tags=x"}, 'request parameter, query "tags": "x" is not of type "integer"'),
        ({"x-tenant": "c"}, 'request parameter, header "X-Tenant": "c" is not one of "a" or "b"'),
    ],
)
async def test_what_a_request_breaks_is_told_if_the_app_took_it(client, how, told):
    with pytest.raises(OpenApiViolation) as failure:
        await made(client, **how)
    assert told in str(failure.value)

    refused = {"status": 422, "headers": {"content-type": "application/problem+json"}, "body": {"title": "No"}}
    assert (await made(client, refused, **how)).status_code == 422


async def test_what_is_missing_in_a_request(client):
    with pytest.raises(OpenApiViolation, match='header "X-Tenant": is required and not given'):
        await client.post("/users", json={"name": "A", "token": ""}, headers={"x-answer": json.dumps(GOOD)})
    with pytest.raises(OpenApiViolation, match="request body: there is none, it is required"):
        await client.post("/users", headers={"x-tenant": "a", "x-answer": json.dumps(GOOD)})
    with pytest.raises(OpenApiViolation, match='path "id": "x" is not of type "integer"'):
        await client.get("/users/x", headers=answering(200, {"id": 1, "name": "Ada"}))


async def test_unknown_operations(client):
    with pytest.raises(OpenApiViolation, match="unknown operation: the document has none, and the answer is 200"):
        await client.get("/orders")
    with pytest.raises(OpenApiViolation, match="PUT /users does not keep"):
        await client.put("/users")
    await client.put("/users", headers=answering(405))


async def test_concrete_paths_come_first(client):
    told = r'GET /users/me does not keep.*\n.*"application/json" is none of text/\*'
    with pytest.raises(OpenApiViolation, match=told):
        await client.get("/users/me")


async def test_secrets_are_starred(client):
    body = {"name": 3, "token": "hush-hush"}
    with pytest.raises(OpenApiViolation) as failure:
        await made(client, body=body, authorization="Bearer hush-hush", url="/users?api_key=hush-hush")
    told = str(failure.value)

    assert "hush-hush" not in told
    assert '"token": "***"' in told and "authorization: ***" in told and "201 Created" in told

    with pytest.raises(OpenApiViolation, match=r'\$.token: breaks "type"') as failure:
        await made(client, body={"name": "A", "token": 31337})
    assert "31337" not in str(failure.value)


async def test_all_but_a_block_is_checked(client, checks):
    with checks.unchecked():
        await client.get("/orders")
    with pytest.raises(OpenApiViolation):
        await client.get("/orders")


async def test_streams_are_not_read(checks):
    async def forever():
        yield b"data: 1\n\n"
        await asyncio.Event().wait()

    def answer(request):
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=forever())

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://app.test") as client:
        checks.watch(client)
        async with client.stream("GET", "/stream") as response:
            assert await anext(response.aiter_bytes()) == b"data: 1\n\n"


async def test_coverage_is_told(client, checks):
    await client.delete("/users/7", headers=answering(204))
    await made(client)

    assert checks._seen.told() == [
        "openapi.json: 2 of 5 operations called, 2 of 6 documented answers seen",
        "never called: GET /users/{id}, GET /users/me, GET /stream",
    ]


async def test_the_document_is_asked_of_the_app():
    app = Starlette(
        routes=[
            Route("/openapi.json", lambda request: JSONResponse(DOCUMENT)),
            Route("/users/7", lambda request: JSONResponse({"id": "7"})),
        ]
    )
    kept = []
    checks = ExchangeChecks("/openapi.json", None, keep=kept.append)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.test") as client:
        checks.watch(client)
        with pytest.raises(OpenApiViolation, match=r"does not keep to /openapi\.json"):
            await client.get("/users/7")
    assert kept[0].content == DOCUMENT


async def test_an_app_without_a_document():
    checks = ExchangeChecks("/openapi.json", None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(Starlette()), base_url="http://app.test") as client:
        checks.watch(client)
        with pytest.raises(DocumentError, match=r"no OpenAPI document at /openapi.json: it answers 404"):
            await client.get("/users/7")


async def test_sessions_of_the_kits_client_are_checked_too(checks):
    app = Starlette(routes=[Route("/{path:path}", echo)])
    async with Api(app) as api:
        checks.watch(api)
        for session in (api, api.session(), api.as_("ada")):
            with pytest.raises(OpenApiViolation, match="GET /orders does not keep"):
                await session.get("/orders")


async def test_many_at_once_are_told_apart(client):
    async def one(number):
        answer = {"id": number, "name": "Ada"} if number % 2 else {"id": f"no {number}", "name": "Ada"}
        try:
            await client.get(f"/users/{number}", headers=answering(200, answer))
        except OpenApiViolation as failure:
            return f"no {number}" in str(failure)
        return number % 2 == 1

    assert all(await asyncio.gather(*map(one, range(64))))
