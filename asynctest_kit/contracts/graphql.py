"""What a GraphQL schema has promised its clients, and which promises another one breaks."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynctest_kit.errors import AtkError

if TYPE_CHECKING:
    from pathlib import Path

    from graphql import GraphQLSchema

__all__ = ["Change", "SchemaBroken", "SchemaError", "changes", "printed_schema", "promised_schema", "schema_in"]

_EXAMPLE = '[tool.asynctest_kit.graphql] schema = "schema.graphql"'


class SchemaError(AtkError):
    """There is no GraphQL schema where one was looked for, or it is none."""


class SchemaBroken(AtkError, AssertionError):  # noqa: N818  # it is read in failures
    """The app's schema breaks what its snapshot has promised."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that a client may feel.

    Attributes:
        kind: What graphql-core calls it, such as ``FIELD_REMOVED``.
        description: What it says of it.
        is_breaking: Whether a client that was right before fails; else it may be surprised.
    """

    kind: str
    description: str
    is_breaking: bool

    def __str__(self) -> str:
        return f"{'breaking' if self.is_breaking else 'dangerous'}  {self.kind}: {self.description}"


def changes(old: GraphQLSchema, new: GraphQLSchema) -> list[Change]:
    """What clients of ``old`` may feel of ``new``, the breaking ones first."""
    from graphql.utilities import find_breaking_changes, find_dangerous_changes

    breaking = [Change(one.type.name, one.description, is_breaking=True) for one in find_breaking_changes(old, new)]
    dangerous = [Change(one.type.name, one.description, is_breaking=False) for one in find_dangerous_changes(old, new)]
    return breaking + dangerous


def printed_schema(schema: GraphQLSchema) -> str:
    """A schema as a snapshot has it: in the order of names."""
    from graphql import lexicographic_sort_schema, print_schema

    return print_schema(lexicographic_sort_schema(schema)) + "\n"


def schema_in(text: str, name: str) -> GraphQLSchema:
    """The schema that ``text`` defines.

    Raises:
        SchemaError: It is none.
    """
    from graphql import GraphQLError, build_schema

    try:
        return build_schema(text)
    except (GraphQLError, TypeError) as error:
        raise SchemaError(f"{name} is no GraphQL schema: {error}") from None


def promised_schema(against: str | None, snapshot: Path | None, root: Path) -> tuple[str, GraphQLSchema]:
    """The schema to be kept to, and what it is called.

    Args:
        against: A file, a commit of git (whose snapshot is meant) or ``COMMIT:path``; None for the snapshot.
        snapshot: The file that the settings name.
        root: The settings' folder.

    Raises:
        SchemaError: There is none.
    """
    if against is None and snapshot is None:
        raise SchemaError(f"It isn't said where the snapshot of the GraphQL schema is. Say it: {_EXAMPLE}")
    file = snapshot if against is None else root / against
    if file is not None and file.is_file():
        name = str(file.relative_to(root)) if file.is_relative_to(root) else str(file)
        return name, schema_in(file.read_text(encoding="utf-8"), name)
    if against is None:
        raise SchemaError(f"There is no snapshot {snapshot} yet. `atk graphql check --update` writes it.")
    return against, schema_in(_of_git(against, snapshot, root), against)


def _of_git(against: str, snapshot: Path | None, root: Path) -> str:
    if ":" not in against and snapshot is None:
        raise SchemaError(f'"{against}" is no file, and of a commit it isn\'t said which file. Say it: {_EXAMPLE}')
    named = against if ":" in against or snapshot is None else f"{against}:./{snapshot.relative_to(root)}"
    try:
        shown = subprocess.run(  # noqa: S603  # git shows a file
            ["git", "show", "--end-of-options", named],  # noqa: S607  # the user's own
            cwd=root,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise SchemaError(f'"{against}" is no file, and git can\'t be asked: {error}') from None
    if shown.returncode:
        told = shown.stderr.decode(errors="replace").strip()
        raise SchemaError(f'"{against}" is no file, and git has no {named}: {told}')
    return shown.stdout.decode()
