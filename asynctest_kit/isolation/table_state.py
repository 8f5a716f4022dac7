"""What tables hold, as plain data in an order that doesn't change, and what two states of them differ in."""

from __future__ import annotations

from difflib import SequenceMatcher, get_close_matches
from typing import TYPE_CHECKING, Any

import asyncpg

from asynctest_kit.errors import IsolationError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["Row", "TableState", "qualified", "rows_difference", "state_difference", "table_names"]

#: A failure is shown where the test called us; our own frames say nothing about it.
__tracebackhide__ = True

Row = dict[str, Any]

_TABLES = """
    SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind IN ('r', 'p') AND NOT relispartition AND nspname !~ '^(pg_|information_schema$)'
    ORDER BY 1
"""

_KEY = """
    SELECT array_agg(quote_ident(attname) ORDER BY array_position(conkey, attnum))
    FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey)
    WHERE conrelid = $1::text::regclass AND contype = 'p'
"""


class TableState:
    """What a test asks for the contents of tables; ``connection`` is asyncpg's, or stands in for one."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def __call__(self, table: str, *, without: Collection[str] = ()) -> list[Row]:
        """All rows of a table, in the order of its primary key, or of the rows' texts where it has none.

        Args:
            table: Its name, as in SQL: ``users``, ``shop.users``.
            without: Columns that are left out, ``created_at`` for example.

        Raises:
            IsolationError: There is no such table, or no such column.
        """
        name = await qualified(self._connection, table)
        key = await self._connection.fetchval(_KEY, name)
        order = ", ".join(key) if key else "CAST(ROW(atk_row.*) AS text)"
        rows = await self._connection.fetch(f"SELECT * FROM {name} AS atk_row ORDER BY {order}")  # noqa: S608  # quoted
        if rows and not set(without) <= set(rows[0].keys()):
            unknown = ", ".join(sorted(set(without) - set(rows[0].keys())))
            raise IsolationError(f"{table} has no column {unknown}. It has: {', '.join(rows[0].keys())}.")
        return [{column: value for column, value in row.items() if column not in without} for row in rows]

    async def tables(self, *names: str) -> dict[str, list[Row]]:
        """The rows of several tables by the tables' names; without names, of all that are not the server's own."""
        wanted = names or await table_names(self._connection)
        return {name: await self(name) for name in wanted}

    def diff(
        self, before: Sequence[Row] | Mapping[str, Sequence[Row]], after: Sequence[Row] | Mapping[str, Sequence[Row]]
    ) -> str:
        """What two states differ in, a line for each row that came (+) or went (-); empty if they are the same."""
        if isinstance(before, dict) and isinstance(after, dict):
            return state_difference(before, after)
        return rows_difference(list(before), list(after))  # type: ignore[arg-type]  # of one kind, both


async def table_names(connection: Any) -> list[str]:
    """The tables of a database, qualified where they need it, without the server's own and partitions."""
    return [row[0].removeprefix("public.") for row in await connection.fetch(_TABLES)]


async def qualified(connection: Any, table: str) -> str:
    """The table's name as the server quotes it.

    Raises:
        IsolationError: There is no such table.
    """
    try:
        found = await connection.fetchval("SELECT to_regclass($1::text)::text", table)
    except asyncpg.PostgresError:  # before PostgreSQL 16, of what is no name at all
        found = None
    if found is None:
        known = await table_names(connection)
        close = get_close_matches(table, known, n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        raise IsolationError(f"No table is called {table!r}.{meant} There are: {', '.join(known) or 'none'}.")
    return str(found)


def state_difference(before: Mapping[str, Sequence[Row]], after: Mapping[str, Sequence[Row]]) -> str:
    """As :func:`rows_difference`, each table with differences under its name."""
    parts = []
    for table in sorted({*before, *after}):
        if table not in after:
            parts.append(f"{table}: the table is gone, with {len(before[table])} row(s)")
        elif table not in before:
            parts.append(f"{table}: the table is new, with {len(after[table])} row(s)")
        elif found := rows_difference(before[table], after[table]):
            parts.append(f"{table}:\n{found}")
    return "\n".join(parts)


def rows_difference(before: Sequence[Row], after: Sequence[Row]) -> str:
    """A line for each row that came (+) or went (-); empty if the rows are the same."""
    old, new = [repr(row) for row in before], [repr(row) for row in after]
    lines = []
    for kind, start, end, first, last in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            lines += [f"- {row}" for row in old[start:end]]
            lines += [f"+ {row}" for row in new[first:last]]
    return "\n".join(lines)
