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
        "DELETE /api/users/{id}: Undocumented status code (status_code_conformance)",
        "GET /api/products: Server error (not_a_server_error)",
        "GET /healthz: Response violates schema (response_schema_conformance)",
    ]
    assert "curl -X DELETE http://app.test/api/users/1\n" in planted.out
    assert "--seed 0 --include 'GET /api/products'" in planted.out
    assert true.code == 0, true.out
    assert "18 passed" in true.out


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
    assert findings(found) == ["GET /half: Response violates schema (response_schema_conformance)"]
    assert "curl -X GET -H 'authorization: ***' 'http://app.test/half?n=1001'" in found.out
    assert "hush-hush" not in found.out + found.err
    assert "PytestAssertRewriteWarning" not in found.out + found.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nothing",), '"nothing" is nothing to try. Give a URL'),
        (("no_such:app",), "can't be imported: No module named"),
        (("-H", "hush"), '--header: no colon in what should be "Name: value"'),
        (("--seed", "x"), '--seed: "x" is no number, and not "random".'),
        ((), "It isn't said where the OpenAPI document is"),
        (("--schema", "nowhere.json"), "can't be read"),
        (
            ("--include", "GET /hafl"),
            'include: "GET /hafl" fits no operation. Operations of halving:DOCUMENT: GET /half, GE',
        ),
        (
            ("--without-check", "a"),
            'there is no check "a". Allowed: allow_header_conformance, content_type_conformance,',
        ),
        (
            ("halving:app", "--schema", "/openapi.json", "--include", "PUT *"),
            '"PUT *" fits no operation. Operations of /op',
        ),
    ],
)
async def test_what_can_not_be_tried(project, atk, arguments, told):
    setting = '[tool.asynctest_kit.openapi]\nschema = "halving:DOCUMENT"\n' if arguments else ""
    root = project(halving__py=APP, pyproject__toml=setting)
    finished = await atk("openapi", *arguments, cwd=root, **EMBEDDED)

    said = finished.out + finished.err
    assert finished.code == 4, said
    assert said.count(told) == 1, said
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [(("openapi",), "schemathesis", "openapi"), (("graphql", "check"), "gql", "graphql")],
)
async def test_what_is_not_installed(project, atk, arguments, module, extra):
    without = f"import sys\nsys.modules[{module!r}] = None\n"
    finished = await atk(*arguments, cwd=project(conftest__py=without), **EMBEDDED)

    assert finished.code == 4, finished.out
    (line,) = (finished.out + finished.err).strip().splitlines()
    assert line.startswith("ERROR: ")
    assert line.endswith(f"which is not installed: pip install 'asynctest_kit[{extra}]'")


async def test_a_wrong_setting_fails_a_file_of_tests_in_a_line(project, run_pytest):
    root = project(
        halving__py=APP,
        test_contract__py="from asynctest_kit.openapi import *",
        pyproject__toml='[tool.asynctest_kit.openapi]\nschema = "halving:DOCUMENT"\ninclude = ["PUT *"]\n',
    )
    code, said = await run_pytest("-p", "anyio", cwd=root, **EMBEDDED)

    assert code == 2, said
    assert '"PUT *" fits no operation' in said
    assert "pytest_generate_tests" not in said


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
    assert "schema.graphql  new\n" in written.out
    assert "price: Int!" in (root / "schema.graphql").read_text()

    project(pyproject__toml=setting, shop__py=GRAPHQL.replace("FIELD", "cost"))
    broken = await atk("graphql", "check", "shop:app", cwd=root, **EMBEDDED)
    assert broken.code == 1
    assert "PytestAssertRewriteWarning" not in broken.out + broken.err
    assert "breaking  FIELD_REMOVED: " in broken.out and "Query.price was removed." in broken.out
