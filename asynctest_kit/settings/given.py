"""Values as they were given, before they are looked at: each knows its place, for errors and for people who ask."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from asynctest_kit.errors import SettingsError
from asynctest_kit.setting_errors import shown, suggestion
from asynctest_kit.settings.keys import TABLE, TABLES

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Given", "Givens", "add_keys", "last", "table_of", "wrong"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was given: ``source`` for people who ask where, ``place`` for errors, ``folder`` for paths."""

    value: object
    source: str
    place: str
    folder: Path


Givens = dict[str, list[Given]]
Parser = Callable[[Given], _T]


def add_keys(file: Path, header: str, table: Mapping[str, object], allowed: Collection[str], givens: Givens) -> None:
    """Add what a table gives; raises SettingsError if a key is none of those that are allowed."""
    where = f"{file}, [{header}]" if "]" not in header else f"{file}, [[{header}"
    for key, value in table.items():
        if key not in allowed:
            names = (*allowed, *TABLES) if header == TABLE else allowed
            raise SettingsError(f'{where}: unknown key "{key}".{suggestion(key, names)}')

        given = Given(value, f"{file.name} [{header}]", f"{where}, {key}", file.parent)
        givens.setdefault(key, []).append(given)


def last(givens: Givens, key: str, parse: Parser[_T], default: _T) -> _T:
    """Parse all that was given for ``key``, so that no bad value hides, and return the last."""
    value = default
    for given in givens.get(key, ()):
        value = parse(given)
    return value


def table_of(value: object, place: str) -> Mapping[str, object]:
    """The value, if it is a table; raises SettingsError if not."""
    if isinstance(value, dict):
        return value

    raise SettingsError(f"{place}: must be a table of keys, not a value of type {type(value).__name__}.")


def wrong(given: Given, what: str) -> SettingsError:
    """An error that says what is wrong with a value, and where it stands."""
    return SettingsError(f"{given.place}: {shown(given.value)} {what}.")
