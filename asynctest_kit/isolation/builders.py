"""Rows for a test, of which it says only what matters to it.

    order = await pg_make("orders", status="paid")

The rest is filled in from the catalogue: what is NOT NULL and has no default gets a value of its type, and a foreign
key a new row of the other table. What is filled in is unique where an index says so, and text is always: tests that run
at once don't wait for each other's keys. It is plain, and knows nothing of what a CHECK asks for: give such columns.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import asyncpg

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.table_state import qualified

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RowMaker"]

#: A failure is shown where the test called us; our own frames say nothing about it.
__tracebackhide__ = True

#: A column, with the type below its domains.
_COLUMNS = """
    WITH RECURSIVE columns AS (
        SELECT attnum, attname AS name, format_type(atttypid, atttypmod) AS type, atttypid AS base,
            atttypmod AS modifier,
            attnotnull AND NOT atthasdef AND attidentity = '' AS required, attidentity = 'a' AS is_identity,
            EXISTS (
                SELECT FROM pg_index WHERE indrelid = attrelid AND indisunique AND attnum = ANY (indkey)
            ) AS is_unique
        FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped
    ), based AS (
        SELECT * FROM columns
        UNION ALL
        SELECT attnum, name, type, typbasetype, typtypmod, required OR (typnotnull AND typdefault IS NULL), is_identity,
            is_unique
        FROM based JOIN pg_type ON pg_type.oid = base WHERE typtype = 'd'
    )
    SELECT name, based.type, typname AS base, typtype::text AS kind, typcategory::text AS category,
        CASE WHEN typname IN ('varchar', 'bpchar') AND modifier > 4 THEN modifier - 4 END AS length,
        bool_or(required) OVER (PARTITION BY attnum) AS required, is_identity, is_unique,
        (SELECT enumlabel FROM pg_enum WHERE enumtypid = based.base ORDER BY enumsortorder LIMIT 1) AS label
    FROM based JOIN pg_type ON pg_type.oid = base WHERE typtype <> 'd' ORDER BY attnum
"""

_FOREIGN = """
    SELECT confrelid::regclass::text AS table,
        ARRAY(SELECT attname::text FROM unnest(conkey) WITH ORDINALITY AS key (number, place)
            JOIN pg_attribute ON attrelid = conrelid AND attnum = number ORDER BY place) AS columns,
        ARRAY(SELECT attname::text FROM unnest(confkey) WITH ORDINALITY AS key (number, place)
            JOIN pg_attribute ON attrelid = confrelid AND attnum = number ORDER BY place) AS others
    FROM pg_constraint WHERE conrelid = $1::text::regclass AND contype = 'f' ORDER BY conname
"""

#: A text of the type's base, where a value needn't be unique; the types are told by PostgreSQL's own names.
_PLAIN = {
    "bool": "false", "bytea": "\\x00", "json": "{}", "jsonb": "{}", "time": "12:00", "timetz": "12:00+00",
    "interval": "1 day", "inet": "192.0.2.1", "cidr": "192.0.2.0/24", "point": "(0,0)", "xml": "<a/>", "bit": "0",
    "varbit": "0", "tsvector": "word", "date": "now", "timestamp": "now", "timestamptz": "now", "money": "1",
}  # fmt: skip
_OF_KINDS = {"e": "", "r": "empty", "m": "{}"}
_TEXTS = frozenset({"text", "varchar", "bpchar", "citext", "name"})
_WHOLE = {
    "int2": 2**15,
    "int4": 2**31,
    "int8": 2**53,
    "numeric": 2**31,
    "float4": 2**24,
    "float8": 2**53,
}


@dataclass(frozen=True, slots=True)
class _Table:
    """What the catalogue says of a table."""

    name: str
    columns: Mapping[str, Any]
    foreign: tuple[Any, ...]


class RowMaker:
    """What a test makes rows with; ``connection`` is asyncpg's, or stands in for one."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._tables: dict[str, _Table] = {}

    async def __call__(self, table: str, /, **values: Any) -> asyncpg.Record:
        """Insert one row and return all of it, as the server has it.

        Args:
            table: Its name, as in SQL: ``users``, ``shop.users``.
            values: What the test says of the row, as asyncpg takes it.

        Raises:
            IsolationError: There is no such table or column, or no value is known for one that needs one.
            asyncpg.PostgresError: The server refuses the row; a note says what had been filled in.
        """
        return await self._make(table, values, ())

    async def _make(self, table: str, values: Mapping[str, Any], above: tuple[str, ...]) -> asyncpg.Record:
        found = await self._table(table)
        if found.name in above:
            raise IsolationError(
                f"Rows of {' and '.join(dict.fromkeys(above))} need each other, so none can be made first. Give the "
                f"columns of one of the foreign keys to {found.name}."
            )
        for column in values:
            if column not in found.columns:
                close = get_close_matches(column, found.columns, n=1)
                meant = f" Did you mean {close[0]}?" if close else ""
                raise IsolationError(f"{found.name} has no column {column}.{meant} It has: {', '.join(found.columns)}.")
        given = {**values, **await self._parents(found, values, (*above, found.name))}
        filled = {
            name: _value(found.name, column)
            for name, column in found.columns.items()
            if column["required"] and name not in given
        }
        try:
            return await self._connection.fetchrow(_insert(found, given, filled), *given.values(), *filled.values())
        except asyncpg.PostgresError as error:
            told = ", ".join(f"{name} = {value!r}" for name, value in filled.items()) or "nothing"
            error.add_note(f"atk: pg_make({found.name!r}) had filled in: {told}")
            raise

    async def _parents(self, table: _Table, values: Mapping[str, Any], above: tuple[str, ...]) -> dict[str, Any]:
        """A new row for each foreign key that must be there and is not given."""
        found: dict[str, Any] = {}
        for key in table.foreign:
            missing = [name for name in key["columns"] if name not in values and name not in found]
            if not any(table.columns[name]["required"] for name in missing):
                continue
            known = {
                other: {**values, **found}[name]
                for name, other in zip(key["columns"], key["others"], strict=True)
                if name not in missing
            }
            parent = await self._make(key["table"], known, above)
            found |= {
                name: parent[other]
                for name, other in zip(key["columns"], key["others"], strict=True)
                if name in missing
            }
        return found

    async def _table(self, table: str) -> _Table:
        if table not in self._tables:
            name = await qualified(self._connection, table)
            columns = {row["name"]: row for row in await self._connection.fetch(_COLUMNS, name)}
            self._tables[table] = _Table(name, columns, tuple(await self._connection.fetch(_FOREIGN, name)))
        return self._tables[table]


def _insert(table: _Table, given: Mapping[str, Any], filled: Mapping[str, str]) -> str:
    names = [*given, *filled]
    if not names:
        return f"INSERT INTO {table.name} DEFAULT VALUES RETURNING *"  # noqa: S608  # quoted
    columns = ", ".join(f'"{name.replace(chr(34), chr(34) * 2)}"' for name in names)
    places = [f"${place}" for place in range(1, len(given) + 1)]
    places += [
        f"CAST(${place}::text AS {table.columns[name]['type']})" for place, name in enumerate(filled, len(given) + 1)
    ]
    overriding = "OVERRIDING SYSTEM VALUE " if any(table.columns[name]["is_identity"] for name in given) else ""
    return f"INSERT INTO {table.name} ({columns}) {overriding}VALUES ({', '.join(places)}) RETURNING *"


def _value(table: str, column: Any) -> str:
    """A text that the server reads as a value of the column's type."""
    base, kind, token = column["base"], column["kind"], secrets.token_hex(4)
    text: str | None
    if base in _TEXTS:
        text = f"{column['name']}-{token}"
        text = text[-column["length"] :] if column["length"] else text
    elif base in _WHOLE:
        text = str(secrets.randbelow(_WHOLE[base] - 1) + 1) if column["is_unique"] else "1"
    elif kind in _OF_KINDS or column["category"] == "A":
        text = column["label"] or _OF_KINDS.get(kind, "{}")
    else:
        text = secrets.token_hex(16) if base == "uuid" else _PLAIN.get(base)
    if text is None:
        raise IsolationError(
            f"No value is known for {table}.{column['name']}, which is of the type {column['type']}: give it."
        )
    return text
