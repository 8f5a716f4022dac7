"""Documents that are spread over several files."""

from __future__ import annotations

import json
from contextlib import closing

import anyio
import httpx
import pytest

from asynctest_kit.contracts.documents import parsed_document, read_document
from asynctest_kit.contracts.errors import DocumentError
from asynctest_kit.contracts.generated import GeneratedCases, OpenApiFindings, case_client
from asynctest_kit.contracts.openapi import ExchangeChecks, OpenApiViolation
from asynctest_kit.settings.contracts import OpenApiSettings

pytestmark = pytest.mark.anyio

ROOT = {
    "openapi": "3.1.0",
    "info": {"title": "shop", "version": "1"},
    "paths": {"/orders": {"$ref": "paths/orders%20of%20all.json"}},
    "components": {
        "schemas": {"Name": {"type": "string", "minLength": 1}},
        "examples": {"one": {"value": {"$ref": "no reference, but what the app answers"}}},
    },
}

ORDERS = {
    "get": {
        "parameters": [{"$ref": "../shared.yaml#/limit"}],
        "responses": {"200": {"$ref": "#/x~1answers/default"}, "default": {"description": "No"}},
    },
    "x/answers": {"default": {"description": "All", "content": {"application/json": {"schema": {"$ref": "#/list"}}}}},
    "list": {"type": "array", "items": {"$ref": "../schemas/order.json#/$defs/Order"}},
}

ORDER = {
    "$id": "https://shop.example.org/order.json",
    "$defs": {
        "Order": {
            "type": "object",
            "required": ["by"],
            "properties": {
                "by": {"$ref": "../openapi.json#/components/schemas/Name"},
                "value": {"$ref": "#/$defs/Price"},
                "parts": {"type": "array", "items": {"$ref": "order.json#/$defs/Order"}},
            },
        },
        "Price": {"type": "integer"},
    },
}

SHARED = "limit:\n  name: limit\n  in: query\n  schema: {type: integer, maximum: 9}\n"


@pytest.fixture
def root(tmp_path):
    for name, content in (
        ("openapi.json", ROOT),
        ("paths/orders of all.json", ORDERS),
        ("schemas/order.json", ORDER),
        ("shared.yaml", SHARED),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path


def answered(orders, url="/orders"):
    return httpx.Response(200, json=orders, request=httpx.Request("GET", f"http://app.test{url}"))


def test_what_is_as_documented_passes(root):
    checks = ExchangeChecks("openapi.json", read_document("openapi.json", root))

    checks.check(answered([{"by": "Ada", "value": 3, "parts": [{"by": "Bob"}]}]))
    checks.check(answered([], "/orders?limit=9"))


@pytest.mark.parametrize(
    ("orders", "url", "told"),
    [
        ([{"by": ""}], "/orders", r'\$\[0\]\.by: "" is shorter than 1 character'),
        ([{"by": "Ada", "value": "x"}], "/orders", r'\$\[0\]\.value: "x" is not of type "integer"'),
        ([{"by": "Ada", "parts": [{}]}], "/orders", r'\$\[0\]\.parts\[0\]: "by" is a required property'),
        ([], "/orders?limit=10", r'query "limit": 10 is greater than the maximum of 9'),
    ],
)
def test_what_another_file_says_is_checked(root, orders, url, told):
    checks = ExchangeChecks("openapi.json", read_document("openapi.json", root))

    with pytest.raises(OpenApiViolation, match=told):
        checks.check(answered(orders, url))


async def test_cases_are_made_of_it(root):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b'[{"by": ""}]'})

    settings = OpenApiSettings(examples=1, phases=("fuzzing",))
    with closing(GeneratedCases(read_document("openapi.json", root), settings)) as cases:
        async with case_client("http://app.test", httpx.ASGITransport(app)) as client:
            with pytest.raises(OpenApiFindings, match=r"GET /orders: .*\(response_schema_conformance\)"):
                await cases.check(None, client, {}, anyio.CapacityLimiter(1))


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        (
            "schemas/user.json#/User",
            r'schemas/user.json#/User" in openapi.json can.* no file /\S+/user\.json\.',
        ),
        ("schemas/order.json#/$defs/User", r"in openapi\.json can't be followed: there is nothing at that place"),
        ("schemas/order.json#User", r'"#User" is no JSON pointer'),
        ("https://example.org/user.json", r"in openapi\.json can't be followed: nothing is fetched"),
        ("//example.org/user.json", r"nothing is fetched"),
        ("schemas/more.json", r"\"user\.json\" in /\S+/schemas/more\.json can't be followed: there is no file"),
        ("shared.json", r"shared\.json is no JSON"),
    ],
)
def test_a_reference_that_leads_nowhere_is_told(root, reference, told):
    (root / "schemas/more.json").write_text('{"allOf": [{"$ref": "user.json"}]}')
    (root / "shared.json").write_text("{")
    content = ROOT | {"components": {"schemas": {"User": {"$ref": reference}}}}
    (root / "openapi.json").write_text(json.dumps(content))

    with pytest.raises(DocumentError, match=told):
        read_document("openapi.json", root)


def test_a_document_of_the_app_has_no_files_beside_it():
    with pytest.raises(DocumentError, match=r'%20all\.json" in /openapi\.json can.* the document is in none'):
        parsed_document(ROOT, "/openapi.json")
