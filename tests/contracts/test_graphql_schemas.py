"""What a change of a GraphQL schema does to clients."""

from __future__ import annotations

import subprocess

import pytest

from asynctest_kit.contracts.graphql import SchemaError, changes, printed_schema, promised_schema, schema_in

OLD = """
type Query { book(id: ID!): Book, books(first: Int = 5): [Book!]! }
type Book { id: ID!, title: String!, state: State }
enum State { LENT, THERE }
"""


def told(new):
    return [str(change) for change in changes(schema_in(OLD, "old"), schema_in(new, "new"))]


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("title: String!", "name: String!", "breaking  FIELD_REMOVED: "),
        ("title: String!", "title: String", "breaking  FIELD_CHANGED_KIND: "),
        ("id: ID!):", "id: ID!, shop: ID!):", "breaking  REQUIRED_ARG_ADDED: "),
        ("LENT, THERE", "LENT", "breaking  VALUE_REMOVED_FROM_ENUM: "),
        ("LENT, THERE", "LENT, THERE, LOST", "dangerous  VALUE_ADDED_TO_ENUM: "),
        ("= 5", "= 6", "dangerous  ARG_DEFAULT_VALUE_CHANGE: "),
        ("id: ID!):", "id: ID!, shop: ID):", "dangerous  OPTIONAL_ARG_ADDED: "),
    ],
)
def test_changes_are_named(old, new, change):
    found = told(OLD.replace(old, new))

    assert len(found) == 1
    assert found[0].startswith(change)


def test_what_no_client_feels():
    assert told(OLD.replace("state: State", "state: State, pages: Int")) == []


def test_a_snapshot_is_in_order():
    text = printed_schema(schema_in(OLD, "old"))

    assert text.index("type Book") < text.index("type Query") < len(text)
    assert told(text) == []


def test_promises_are_found(tmp_path):
    snapshot = tmp_path / "schema.graphql"
    with pytest.raises(SchemaError, match=r"There is no snapshot .*--update` writes it"):
        promised_schema(None, snapshot, tmp_path)
    with pytest.raises(SchemaError, match="It isn't said where the snapshot"):
        promised_schema(None, None, tmp_path)
    snapshot.write_text("type {")
    with pytest.raises(SchemaError, match=r"schema.graphql is no GraphQL schema: Syntax Error"):
        promised_schema(None, snapshot, tmp_path)

    snapshot.write_text(OLD)
    assert promised_schema(None, snapshot, tmp_path)[0] == "schema.graphql"
    (tmp_path / "other.graphql").write_text("type Query { a: Int }")
    assert promised_schema("other.graphql", snapshot, tmp_path)[1].get_type("Book") is None


def test_promises_of_a_commit(tmp_path):
    snapshot = tmp_path / "schema.graphql"
    snapshot.write_text(OLD)
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm first"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    snapshot.write_text("type Query { a: Int }")

    for against in ("HEAD", "HEAD:schema.graphql"):
        assert promised_schema(against, snapshot, tmp_path)[1].get_type("Book") is not None
    with pytest.raises(SchemaError, match=r'"nowhere" is no file, and git has no nowhere:\./schema.graphql'):
        promised_schema("nowhere", snapshot, tmp_path)
    with pytest.raises(SchemaError, match="isn't said which file"):
        promised_schema("HEAD", None, tmp_path)
