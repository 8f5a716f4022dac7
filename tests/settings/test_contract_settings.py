"""The tables ``openapi`` and ``graphql``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asynctest_kit.errors import SettingsError
from asynctest_kit.settings import Settings, load
from asynctest_kit.settings.contracts import GraphQLSettings, OpenApiSettings

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = """
[tool.asynctest_kit.openapi]
schema = "openapi.json"
examples = 7
seed = 3
phases = ["fuzzing", "examples"]
include = ["GET *"]
exclude = ["* /health"]
without-checks = ["positive_data_acceptance"]
[tool.asynctest_kit.graphql]
path = "/api/graphql"
schema = "schema.graphql"
"""


def read(folder: Path, toml: str) -> Settings:
    (folder / "pyproject.toml").write_text(toml)
    return load(paths=[], directory=folder, environ={}, options={})


def test_the_whole_file(tmp_path: Path) -> None:
    settings = read(tmp_path, WHOLE)

    assert settings.openapi == OpenApiSettings(
        schema="openapi.json",
        examples=7,
        seed=3,
        phases=("examples", "fuzzing"),
        include=("GET *",),
        exclude=("* /health",),
        without_checks=("positive_data_acceptance",),
    )
    assert settings.graphql == GraphQLSettings(path="/api/graphql", schema=tmp_path / "schema.graphql")


def test_nothing_is_given(tmp_path: Path) -> None:
    settings = read(tmp_path, "[tool.asynctest_kit]\n")

    assert (settings.openapi, settings.graphql) == (OpenApiSettings(), GraphQLSettings())


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('openapi]\nshema = "a"', r'\[tool.asynctest_kit.openapi\]: unknown key "shema". Did you mean schema\?'),
        ("openapi]\nexamples = -1", r"openapi\], examples: -1 must be a whole number from 0 on"),
        ("openapi]\nexamples = true", "examples: true must be a whole number"),
        ('openapi]\nphases = ["fuzz"]', r'phases: "fuzz" is no phase. Did you mean fuzzing\?'),
        ('openapi]\ninclude = "GET *"', r'include: "GET \*" must be a list of texts'),
        ('openapi]\nschema = ""', 'schema: "" must be a text that is not empty'),
        ('graphql]\npath = "graphql"', r'graphql\], path: "graphql" must be a path in the app, e.g. "/graphql"'),
        ("graphql]\nschema = 3", r"graphql\], schema: 3 must be a text"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, table: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        read(tmp_path, f"[tool.asynctest_kit.{table}\n")


def test_a_table_is_needed(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\[tool.asynctest_kit.openapi\]: must be a table of keys"):
        read(tmp_path, '[tool.asynctest_kit]\nopenapi = "openapi.json"\n')
