"""``atk openapi`` and ``atk graphql check``, as a user runs them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.anyio

SHOP = Path(__file__).parents[2] / "examples" / "shop"
EMBEDDED = {"ATK_PROVIDER": "embedded", "PYTEST_ADDOPTS": f"{os.environ['PYTEST_ADDOPTS']} -p no:cacheprovider"}

APP = """
    import json
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    def answer(description, schema):
        return {"200": {"description": description, "content": {"application/json": {"schema": schema}}}}

    NUMBER = {"name": "n", "in": "query", "required": True, "schema": {"type": "integer"}}
    HALF = {**answer("Half", {"type": "integer"}), "400": {"description": "No"}}
    DOCUMENT = {
        "openapi": "3.1.0",
        "info": {"title": "numbers", "version": "1"},
        "paths": {
            "/half": {"get": {"parameters": [NUMBER], "responses": HALF}},
            "/caller": {"get": {"responses": answer("Who", {"type": "string"})}},
        },
    }

    async def half(request):
        try:
            n = int(request.query_params["n"])
        except (KeyError, ValueError):
            return JSONResponse(None, 400)
        return JSONResponse(n / 2 if n > 1000 else n // 2)

    async def caller(request):
        return JSONResponse(request.headers.get("authorization"))

    async def openapi(request):
        return JSONResponse(DOCUMENT)

    app = Starlette(routes=[Route("/half", half), Route("/caller", caller), Route("/openapi.json", openapi)])
"""


def findings(finished):
    """What was found, by operation and check."""
    return sorted(re.findall(r"^((?:GET|POST|PUT|PATCH|DELETE) \S+: .+)$", finished.out, re.MULTILINE))


@pytest.mark.once
async def test_planted_bugs_are_found_and_no_others(atk):
    planted = await atk("openapi", "tests/planted", "--phase", "coverage", cwd=SHOP, **EMBEDDED)
    true = await atk("openapi", "--examples", "5", cwd=SHOP, **EMBEDDED)

    assert planted.code == 1, planted.out + planted.err
    assert findings(planted) == [
        "DELETE /api/users/{id}: Undocumented status code",
        "GET /api/products: Server error",
        "GET /healthz: Response violates schema",
    ]
    assert "curl -X DELETE http://app.test/api/users/1\n" in planted.out
    assert "--seed 0 --include 'GET /api/products'" in planted.out
    assert true.code == 0, true.out
    assert "15 passed" in true.out


async def test_an_app_that_is_named(project, atk):
    root = project(halving__py=APP)
    options = [f"--without-check={name}" for name in ("unsupported_method", "allow_header_conformance")]
    found = await atk(
        "openapi",
        "halving:app",
        "--schema=/openapi.json",
        *options,
        "-H",
        "Authorization: hush-hush",
        cwd=root,
        **EMBEDDED,
    )

    assert found.code == 1, found.err
    assert findings(found) == ["GET /half: Response violates schema"]
    assert "curl -X GET -H 'authorization: ***' 'http://app.test/half?n=1001'" in found.out
    assert "hush-hush" not in found.out + found.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nothing",), '"nothing" is nothing to try. Give a URL'),
        (("no_such:app",), "can't be imported: No module named"),
        (("-H", "hush"), '--header: no colon in what should be "Name: value"'),
        (("--seed", "x"), '--seed: "x" is no number, and not "random".'),
        ((), "It isn't said where the OpenAPI document is"),
        (("--schema", "nowhere.json"), "can't be read"),
    ],
)
async def test_what_can_not_be_tried(project, atk, arguments, told):
    finished = await atk("openapi", *arguments, cwd=project(), **EMBEDDED)

    assert finished.code in (2, 4), finished.out
    assert told in finished.out + finished.err


GRAPHQL = """
    import strawberry
    from strawberry.asgi import GraphQL

    @strawberry.type
    class Query:
        @strawberry.field
        def hello(self) -> str:
            return ""

        @strawberry.field
        def FIELD(self) -> int:
            return 0

    def app():
        return GraphQL(strawberry.Schema(Query))
"""


async def test_changes_of_a_schema(project, atk):
    setting = '[tool.asynctest_kit.graphql]\npath = "/"\nschema = "schema.graphql"\n'
    root = project(pyproject__toml=setting, shop__py=GRAPHQL.replace("FIELD", "price"))
    none = await atk("graphql", "check", "shop:app", cwd=root, **EMBEDDED)
    assert none.code == 1
    assert "`atk graphql check --update` writes it" in none.out

    written = await atk("graphql", "check", "shop:app", "--update", cwd=root, **EMBEDDED)
    assert written.code == 0, written.out
    assert "price: Int!" in (root / "schema.graphql").read_text()

    project(pyproject__toml=setting, shop__py=GRAPHQL.replace("FIELD", "cost"))
    broken = await atk("graphql", "check", "shop:app", cwd=root, **EMBEDDED)
    assert broken.code == 1
    assert "breaking  FIELD_REMOVED: " in broken.out and "Query.price was removed." in broken.out
