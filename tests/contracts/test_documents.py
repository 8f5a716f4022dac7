"""Where OpenAPI documents are, and what is none."""

from __future__ import annotations

import json

import pytest

from asynctest_kit.contracts.documents import parsed_document, read_document
from asynctest_kit.contracts.errors import DocumentError

DOCUMENT = {"openapi": "3.1.0", "info": {}, "paths": {"/a": {"get": {"responses": {"200": {"description": ""}}}}}}


@pytest.mark.parametrize("name", ["api.json", "api.yaml"])
def test_files(tmp_path, name):
    yaml = "openapi: 3.1.0\npaths: {/a: {get: {}}}"
    (tmp_path / name).write_text(json.dumps(DOCUMENT) if name == "api.json" else yaml)

    assert [one.name for one in read_document(name, tmp_path).operations] == ["GET /a"]


def test_keys_of_yaml_are_text_as_they_are_written(tmp_path):
    """A status is a number in YAML, and so are other names; a reference names them as text."""
    (tmp_path / "api.yaml").write_text(
        "openapi: 3.1.0\n"
        "x-any: &any\n"
        "  404: {description: None of them}\n"
        "paths:\n"
        "  /a:\n"
        "    get:\n"
        "      parameters: [{$ref: '#/components/lists/0'}]\n"
        "      responses:\n"
        "        <<: *any\n"
        "        200: {description: Done}\n"
        "  /b: {$ref: 'b.yaml'}\n"
        "components: {lists: [{name: on, in: query, schema: {enum: [2024-01-01, 7]}}]}\n"
    )
    (tmp_path / "b.yaml").write_text(
        "get: {responses: {200: {$ref: 'api.yaml#/paths/~1a/get/responses/200'}, "
        "404: {$ref: 'answers.yaml#/404'}, default: {$ref: 'answers.yaml#/on'}}}\n"
    )
    (tmp_path / "answers.yaml").write_text("404: {description: None}\non: {description: Else}\n")

    document = read_document("api.yaml", tmp_path)

    first, second = document.operations
    assert set(first.content["responses"]) == {"200", "404"}
    assert first.parameters[0]["schema"] == {"enum": ["2024-01-01", 7]}
    told = [document.resolved(one)["description"] for one in second.content["responses"].values()]
    assert told == ["Done", "None", "Else"]


def test_objects_and_functions(tmp_path):
    document = read_document(f"{__name__}:DOCUMENT", tmp_path)

    assert document.operations[0].statuses == ("200",)
    assert parsed_document(lambda: DOCUMENT, "made").operations == document.operations


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is no JSON"),
        ("[]", "is no OpenAPI document: a table with openapi and paths"),
        ('{"swagger": "2.0"}', r"of Swagger 2\.0\. Convert it"),
        ('{"openapi": "4.0", "paths": {}}', "of a version known here"),
    ],
)
def test_what_is_none(content, told):
    with pytest.raises(DocumentError, match=told):
        parsed_document(content, "api.json")


@pytest.mark.parametrize("content", ["a: [", "!!map [a]", "{[a]: b}", "!nobody's {}"])
def test_what_is_no_yaml(content):
    with pytest.raises(DocumentError, match=r"The OpenAPI document api\.yaml is no YAML: "):
        parsed_document(content, "api.yaml")


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("", r'It isn\'t said where .* schema = "openapi.json"'),
        ("nowhere.json", "can't be read"),
        ("no_such_module:schema", "can't be imported: No module named"),
        ("json:nothing", "can't be imported: module 'json' has no attribute"),
    ],
)
def test_where_none_is(tmp_path, location, told):
    with pytest.raises(DocumentError, match=told):
        read_document(location, tmp_path)


def test_references_lead_somewhere():
    document = parsed_document({**DOCUMENT, "paths": {"/a": {"$ref": "#/components/pathItems/x"}}}, "api.json")

    with pytest.raises(DocumentError, match=r'"#/components/pathItems/x" in the OpenAPI document leads nowhere'):
        _ = document.operations
