"""The tables ``openapi`` and ``graphql`` of the settings: where the promises of the app stand, and how they are tried.

Every value is checked here, where it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asynctest_kit.errors import SettingsError
from asynctest_kit.setting_errors import shown, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["PHASES", "GraphQLSettings", "OpenApiSettings", "graphql_settings", "openapi_settings"]

#: In which order cases are made: the document's own examples, each bound once, at random.
PHASES: Final = ("examples", "coverage", "fuzzing")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenApiSettings:
    """What the app has promised over HTTP.

    Attributes:
        schema: Its document: a file, a path in the app, or ``module:attribute``; empty for none.
        examples: Random cases of each operation.
        seed: From which they are made.
        phases: Which of :data:`PHASES` there are.
        include: Globs of the operations that cases are made for, such as ``GET /users*``; none for all.
        exclude: Globs of those that they are not made for.
        without_checks: Names of schemathesis' checks that are left out.
    """

    schema: str = ""
    examples: int = 50
    seed: int = 0
    phases: tuple[str, ...] = PHASES
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    without_checks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphQLSettings:
    """What the app has promised in GraphQL.

    Attributes:
        path: Where it answers.
        schema: Absolute path of the snapshot of its schema, or None.
    """

    path: str = "/graphql"
    schema: Path | None = None


def openapi_settings(value: object, place: str) -> OpenApiSettings:
    """The table ``openapi``, as TOML has it; ``place`` is where it stands, for errors.

    Raises:
        SettingsError: A key is unknown, or a value is not allowed.
    """
    return OpenApiSettings(**_read(value, place, _OPENAPI))


def graphql_settings(value: object, place: str, folder: Path) -> GraphQLSettings:
    """The table ``graphql``; relative paths start from ``folder``.

    Raises:
        SettingsError: A key is unknown, or a value is not allowed.
    """
    found = _read(value, place, _GRAPHQL)
    return GraphQLSettings(**found | ({"schema": folder / found["schema"]} if "schema" in found else {}))


def _read(value: object, place: str, readers: Mapping[str, Callable[[object, str], Any]]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError(f"{place}: must be a table of keys, not a value of type {type(value).__name__}.")
    for key in value:
        if key not in readers:
            raise SettingsError(f'{place}: unknown key "{key}".{suggestion(key, readers)}')
    return {key.replace("-", "_"): readers[key](one, f"{place}, {key}") for key, one in value.items()}


def _text(value: object, place: str) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise SettingsError(f"{place}: {shown(value)} must be a text that is not empty.")


def _path(value: object, place: str) -> str:
    text = _text(value, place)
    if text.startswith("/"):
        return text
    raise SettingsError(f'{place}: {shown(value)} must be a path in the app, e.g. "/graphql".')


def _number(value: object, place: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise SettingsError(f"{place}: {shown(value)} must be a whole number from 0 on.")


def _texts(value: object, place: str) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(one, str) and one.strip() for one in value):
        return tuple(value)
    raise SettingsError(f'{place}: {shown(value)} must be a list of texts, e.g. ["GET /users*"].')


def _phases(value: object, place: str) -> tuple[str, ...]:
    given = _texts(value, place)
    for one in given:
        if one not in PHASES:
            raise SettingsError(f"{place}: {shown(one)} is no phase.{suggestion(one, PHASES)}")
    return tuple(phase for phase in PHASES if phase in given)


_OPENAPI: Final[Mapping[str, Callable[[object, str], Any]]] = {
    "examples": _number,
    "exclude": _texts,
    "include": _texts,
    "phases": _phases,
    "schema": _text,
    "seed": _number,
    "without-checks": _texts,
}
_GRAPHQL: Final[Mapping[str, Callable[[object, str], Any]]] = {"path": _path, "schema": _text}
