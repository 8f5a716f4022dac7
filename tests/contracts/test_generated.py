"""Cases that schemathesis makes, sent to a real app."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from contextlib import closing

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asynctest_kit.contracts.case_messages import Make
from asynctest_kit.contracts.documents import parsed_document
from asynctest_kit.contracts.errors import DocumentError
from asynctest_kit.contracts.generated import CaseMaker, GeneratedCases, OpenApiFindings, case_client
from asynctest_kit.contracts.openapi import ExchangeChecks, OpenApiViolation
from asynctest_kit.errors import SettingsError
from asynctest_kit.http.apps import opened_app, serve
from asynctest_kit.settings.contracts import OpenApiSettings

pytestmark = pytest.mark.anyio

NUMBER = {"name": "n", "in": "query", "required": True, "schema": {"type": "integer"}}
HALF = {"200": {"description": "Half", "content": {"application/json": {"schema": {"type": "integer"}}}}}
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "numbers", "version": "1"},
    "paths": {
        "/half": {"get": {"parameters": [NUMBER], "responses": {**HALF, "400": {"description": "No"}}}},
        "/slow": {"get": {"responses": {"200": {"description": "At last"}}}},
        "/raises": {"get": {"responses": {"200": {"description": "Never"}}}},
    },
}
SETTINGS = {"examples": 100, "phases": ("fuzzing",)}


class Numbers:
    """An app that counts who is with it at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.reached = asyncio.Event()
        self.app = Starlette(
            routes=[Route("/half", self.half), Route("/slow", self.slow), Route("/raises", self.raises)]
        )

    async def half(self, request: Request) -> Response:
        try:
            n = int(request.query_params["n"])
        except (KeyError, ValueError):
            return JSONResponse(None, 400)
        return JSONResponse(n / 2 if n > 1000 else n // 2)

    async def slow(self, request: Request) -> Response:
        self.now += 1
        self.most = max(self.most, self.now)
        self.reached.set()
        await asyncio.sleep(0.01)
        self.now -= 1
        return Response("")

    async def raises(self, request: Request) -> Response:
        return JSONResponse(json.loads(await request.body()))


@pytest.fixture(scope="module")
def cases():
    """The same process for all of these tests."""
    with closing(GeneratedCases(parsed_document(DOCUMENT, "numbers.json"), OpenApiSettings(**SETTINGS))) as cases:
        yield cases


@pytest.fixture
def numbers():
    return Numbers()


@pytest.fixture
async def client(numbers):
    async with (
        opened_app(numbers.app, raise_app_exceptions=True) as opened,
        case_client(opened.base_url, opened.transport) as client,
    ):
        yield client


async def found(cases, operation, client, at_once=8, **headers):
    with pytest.raises(OpenApiFindings) as failure:
        await cases.check(operation, client, headers, anyio.CapacityLimiter(at_once))
    return failure.value.findings


async def test_a_fault_is_told_once_by_its_smallest_case(cases, client):
    findings = await found(cases, "GET /half", client, Token="hush-hush")

    assert [(one.operation, one.check) for one in findings] == [("GET /half", "response_schema_conformance")]
    assert findings[0].curl == "curl -X GET -H 'token: ***' 'http://app.test/half?n=1001'"
    assert findings[0].cases > 1


async def test_the_same_seed_makes_the_same_cases(client):
    counts = []
    for seed in (3, 3, 4):
        settings = OpenApiSettings(examples=30, phases=("fuzzing",), seed=seed)
        with closing(GeneratedCases(parsed_document(DOCUMENT, ""), settings)) as cases:
            counts.append((await found(cases, "GET /half", client))[0].cases)

    assert counts[0] == counts[1] != counts[2]


async def test_what_the_app_raises_is_told_with_its_place(cases, client):
    (finding,) = await found(cases, "GET /raises", client)

    assert (finding.check, finding.title) == ("not_a_server_error", "Server error")
    assert finding.message.startswith("The app raised JSONDecodeError: Expecting value: line 1 column 1 (char 0)\nat ")
    assert re.search(r"test_generated\.py:\d+ in raises$", finding.message)
    assert finding.told(0).startswith("GET /raises: Server error (not_a_server_error)\n")


async def test_what_the_app_raises_is_left_out_with_its_check(client):
    settings = OpenApiSettings(without_checks=("not_a_server_error",), **SETTINGS)
    with closing(GeneratedCases(parsed_document(DOCUMENT, ""), settings)) as cases:
        assert await cases.check("GET /raises", client, {}, anyio.CapacityLimiter(1)) == 1


async def test_requests_are_sent_at_once_up_to_the_limit(numbers, client):
    settings = OpenApiSettings(without_checks=("unsupported_method", "allow_header_conformance"))
    with closing(GeneratedCases(parsed_document(DOCUMENT, ""), settings)) as cases:
        assert await cases.check("GET /slow", client, {}, anyio.CapacityLimiter(3)) == 1

    assert numbers.most in (2, 3)


async def test_a_check_that_is_cancelled_leaves_nothing_behind(cases, numbers, client):
    limiter = anyio.CapacityLimiter(1)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(cases.check("GET /slow", client, {}, limiter))
        await numbers.reached.wait()
        task.cancel()
    assert limiter.borrowed_tokens == 0

    assert len(await found(cases, "GET /half", client)) == 1


async def test_a_check_goes_on_though_another_is_cancelled_while_its_cases_are_made(numbers):
    """Both talk with one process, which is ended; what the other has sent already is not sent again."""
    go, half_asked, sent = asyncio.Event(), asyncio.Event(), []

    class Maker(CaseMaker):
        async def ask(self, said):
            if isinstance(said, Make) and said.operation == "GET /half":
                half_asked.set()
            return await super().ask(said)

    async def slow(request):
        sent.append(request)
        numbers.reached.set()
        await go.wait()
        return Response("", 404)

    app = Starlette(routes=[Route("/half", numbers.half), Route("/slow", slow)])
    settings = OpenApiSettings(examples=300)
    async with opened_app(app) as opened, case_client(opened.base_url, opened.transport) as client:
        with closing(GeneratedCases(parsed_document(DOCUMENT, "x.json"), settings, Maker(settings))) as cases:
            going_on = asyncio.create_task(found(cases, "GET /slow", client))
            await numbers.reached.wait()
            cancelled = asyncio.create_task(cases.check("GET /half", client, {}, anyio.CapacityLimiter(8)))
            await half_asked.wait()
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            go.set()
            findings = await going_on
            count = len(sent)
            assert [one.check for one in await found(cases, "GET /slow", client)] == [one.check for one in findings]

    assert "status_code_conformance" in {one.check for one in findings}
    assert len(sent) == 2 * count


@pytest.mark.parametrize(
    ("document", "settings", "error", "told"),
    [
        (DOCUMENT, {"without_checks": ("unsupported_metod",)}, SettingsError, r"no check .* mean unsupported_method\?"),
        (
            DOCUMENT | {"paths": {"/a": {"get": {"requestBody": {"$ref": "#/x"}}}}},
            {},
            DocumentError,
            "can't make cases of x.json",
        ),
    ],
)
async def test_what_can_not_be_tried(client, document, settings, error, told):
    cases = GeneratedCases(parsed_document(document, "x.json"), OpenApiSettings(**settings))

    with closing(cases), pytest.raises(error, match=told):
        await cases.check(None, client, {}, anyio.CapacityLimiter(1))


def test_operations_are_chosen():
    document = parsed_document(DOCUMENT, "")

    assert GeneratedCases(document, OpenApiSettings(include=("GET /[hr]*",))).operations == ("GET /half", "GET /raises")
    assert GeneratedCases(document, OpenApiSettings(exclude=("*/slow", "* /raises"))).operations == ("GET /half",)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"include": ("GET /half", "PUT *")},
            r'include: "PUT \*" fits no operation\. .*: GET /half, GET /slow, GET /raises',
        ),
        ({"exclude": ("* /hafl",)}, r'exclude: "\* /hafl" fits no operation\.'),
        ({"include": ("GET *",), "exclude": ("GET *",)}, "no operation is included and not excluded"),
    ],
)
def test_globs_that_leave_nothing(settings, told):
    with pytest.raises(SettingsError, match=told):
        GeneratedCases(parsed_document(DOCUMENT, "x.json"), OpenApiSettings(**settings))


async def test_what_is_not_installed_is_told(monkeypatch):
    document = parsed_document(DOCUMENT, "x.json")
    for module in ("schemathesis", "jsonschema_rs"):
        monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(DocumentError, match=r"pip install 'asynctest_kit\[openapi\]'"):
        GeneratedCases(document, OpenApiSettings())
    checks = ExchangeChecks("x.json", document)
    request = httpx.Request("GET", "http://app.test/half?n=1")
    with pytest.raises((DocumentError, OpenApiViolation), match=r"pip install 'asynctest_kit\[openapi\]'"):
        checks.check(httpx.Response(200, json=1, request=request))


async def test_an_app_on_a_socket(cases, numbers):
    async with opened_app(serve(numbers.app)) as opened, case_client(opened.base_url, opened.transport) as client:
        (finding,) = await found(cases, "GET /half", client)

    assert finding.curl == f"curl -X GET '{opened.base_url}/half?n=1001'"
