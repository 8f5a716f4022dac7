"""Rows that every test starts with, loaded into the template once: SQL scripts, and tables as CSV, JSON or YAML.

A file of rows is named after its table, with or without a number before it for the order: ``users.csv``,
``02_shop.orders.json``. JSON and YAML hold a list of rows, each a mapping of columns, or such lists by table. Rows go
in by COPY, text as PostgreSQL reads it; a column that a row leaves out gets its default. At the end each sequence of
a serial or identity column is moved behind the rows that are there.
"""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import io
import itertools
import json
import re
from typing import TYPE_CHECKING, Any

import asyncpg

from asynctest_kit.errors import IsolationError, MigrationError
from asynctest_kit.isolation.postgres import connect
from asynctest_kit.isolation.scripts import run_script
from asynctest_kit.isolation.seed_places import Copied, told
from asynctest_kit.isolation.table_state import qualified
from asynctest_kit.provision.migration_files import seed_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from asynctest_kit.provision.service import Endpoint

__all__ = ["load"]

#: The columns of a table: whether one is an array, or JSON.
_COLUMNS = """
    SELECT attname, typcategory = 'A', pg_type.oid IN ('json'::regtype, 'jsonb'::regtype)
    FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
    WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped
"""

_WHERE = """
    SELECT nspname, relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE pg_class.oid = $1::text::regclass
"""

_MOVE_SEQUENCES = """
    DO $$
    DECLARE found record;
    BEGIN
        FOR found IN
            SELECT attrelid::regclass AS owner, quote_ident(attname) AS counted,
                pg_get_serial_sequence(attrelid::regclass::text, attname) AS sequence
            FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
            WHERE relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped
                AND relnamespace::regnamespace::text !~ '^(pg_|information_schema$)'
        LOOP
            IF found.sequence IS NOT NULL THEN
                EXECUTE format('SELECT setval(%L, highest) FROM (SELECT max(%s) AS highest FROM %s) AS present, %s'
                    ' WHERE highest >= last_value', found.sequence, found.counted, found.owner, found.sequence);
            END IF;
        END LOOP;
    END $$
"""


async def load(seeds: Sequence[Path], endpoint: Endpoint) -> None:
    """Load the files, and those in the folders, in this order.

    Raises:
        MigrationError: A file can't be loaded; the message names it, the line or record, and what the server said.
    """
    files = seed_files(seeds)
    if not files:
        raise MigrationError(f"There is nothing to seed {endpoint.service} with: {seeds[0]} holds no seeds")
    connection = await connect(endpoint)
    try:
        for path in files:
            await _load_file(path, connection, endpoint)
        await connection.execute(_MOVE_SEQUENCES)
    finally:
        connection.terminate()


async def _load_file(path: Path, connection: asyncpg.Connection, endpoint: Endpoint) -> None:
    if path.suffix == ".sql":
        await run_script(path, connection, endpoint, what="seed")
        return
    sent: list[Copied] = []
    try:
        text = await asyncio.to_thread(path.read_text, encoding="utf-8-sig")  # spreadsheets write a mark first
        async with connection.transaction():
            if path.suffix == ".csv":
                header = next(csv.reader(io.StringIO(text)), [])
                await _copy(connection, Copied(*await _named(connection, _table_of(path)), header, text), sent)
                return
            for table, rows in _tables(path, text).items():
                await _load_rows(connection, table, rows, sent)
    except asyncpg.PostgresError as error:
        raise MigrationError(f"The seed of {endpoint.service} failed in {path}{told(error, sent)}") from error
    except (IsolationError, ValueError, OSError) as error:
        raise MigrationError(f"The seed of {endpoint.service} failed in {path}: {error}") from error


def _table_of(path: Path) -> str:
    return re.sub(r"^\d+[-_]", "", path.stem)


def _tables(path: Path, text: str) -> dict[str, list[dict[str, Any]]]:
    content = json.loads(text) if path.suffix == ".json" else _yaml(text)
    tables = content if isinstance(content, dict) else {_table_of(path): content}
    for table, rows in tables.items():
        listed = rows if isinstance(rows, list) else ()
        wrong = [number for number, row in enumerate(listed, 1) if not isinstance(row, dict)]
        if wrong or not isinstance(rows, list):
            which = f"; record {wrong[0]} is something else" if wrong else ""
            raise ValueError(f"{table}: a list of rows is needed, each a mapping of columns to values{which}")
    return tables


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ValueError("reading YAML needs PyYAML: python -m pip install pyyaml") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


async def _load_rows(
    connection: asyncpg.Connection, table: str, rows: list[dict[str, Any]], sent: list[Copied]
) -> None:
    schema, name = await _named(connection, table)
    quoted = await qualified(connection, table)
    types = {column: (array, is_json) for column, array, is_json in await connection.fetch(_COLUMNS, quoted)}
    for columns, numbered in itertools.groupby(enumerate(rows, 1), key=_columns_of):
        group = list(numbered)
        records = [f"record {number} of {table}" for number, _ in group]
        if columns:
            lines = [
                ",".join(_field(row[column], types.get(column, (False, False))) for column in columns)
                for _, row in group
            ]
            text = "\n".join([",".join(columns), *lines])
            await _copy(connection, Copied(schema, name, columns, text, records), sent)
            continue
        for record in records:
            sent.append(Copied(schema, name, (), "", [record]))
            await connection.execute(f"INSERT INTO {quoted} DEFAULT VALUES")


def _columns_of(numbered: tuple[int, dict[str, Any]]) -> tuple[str, ...]:
    return tuple(numbered[1])


async def _named(connection: asyncpg.Connection, table: str) -> tuple[str, str]:
    """A table's schema and name, neither quoted."""
    schema, name = await connection.fetchrow(_WHERE, await qualified(connection, table))
    return schema, name


async def _copy(connection: asyncpg.Connection, copied: Copied, sent: list[Copied]) -> None:
    sent.append(copied)
    source = io.BytesIO(copied.text.encode())
    await connection.copy_to_table(
        copied.table, schema_name=copied.schema, source=source, columns=copied.columns, format="csv", header=True
    )


def _field(value: object, kind: tuple[bool, bool]) -> str:
    """A value in CSV; NULL is what isn't quoted."""
    return "" if value is None else '"{}"'.format(_text(value, *kind).replace('"', '""'))


def _text(value: object, is_array: bool, is_json: bool) -> str:
    """A value as PostgreSQL reads it."""
    if isinstance(value, list) and is_array:
        return "{{{}}}".format(",".join(_element(element) for element in value))
    if is_json or isinstance(value, dict | list):
        return json.dumps(value)
    match value:
        case bool():
            return str(value).lower()
        case dt.date() | dt.time():
            return value.isoformat()
        case bytes():
            return f"\\x{value.hex()}"
    return str(value)


def _element(value: object) -> str:
    """An element in the text of an array."""
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return _text(value, is_array=True, is_json=False)
    return '"{}"'.format(_text(value, is_array=False, is_json=False).replace("\\", "\\\\").replace('"', '\\"'))
