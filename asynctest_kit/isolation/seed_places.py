"""Where in a file of rows that is which the server refused: it tells a line of what COPY was given, or only a key."""

from __future__ import annotations

import csv
import io
import itertools
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Copied", "told"]

#: Columns and values, as the server tells which key is taken or lacking.
_KEY = re.compile(r"\((.+?)\)=\((.*)\)", re.DOTALL)

#: What the server was at: the outermost of its context, so the last.
_COPYING = r"(?sm)^COPY {}, line (\d+)(?:, column (.+?))?(?:: (.+))?\Z"

#: What no COPY reads a line for, or a row alone raises, at once.
_OF_THE_LAST = (
    asyncpg.CheckViolationError,
    asyncpg.DuplicateColumnError,
    asyncpg.NotNullViolationError,
    asyncpg.UndefinedColumnError,
)


@dataclass(frozen=True, slots=True)
class Copied:
    """What COPY was given, in CSV, its first line the columns.

    Attributes:
        schema: The table's, as it is, not quoted.
        table: Whose rows they are; so, too.
        columns: Of the rows; a row without any is inserted alone.
        text: All of it.
        records: What each row is in the file, if the file isn't this text.
    """

    schema: str
    table: str
    columns: Sequence[str]
    text: str
    records: Sequence[str] = ()

    def at(self, line: int) -> str:
        """What to call the row that ends with a line of the text."""
        if not self.records:
            return f"line {line}"
        quotes = itertools.accumulate(part.count('"') for part in self.text.split("\n")[1 : line - 1])
        return self.records[sum(count % 2 == 0 for count in quotes)]  # an odd one is in the middle of a value

    def with_key(self, key: Mapping[str, str]) -> str:
        """What to call the first row with these values; empty if none has them as they are told."""
        reader = csv.reader(io.StringIO(self.text))
        with suppress(csv.Error):  # a value that is too long for this reader
            next(reader, None)
            for index, values in enumerate(reader):
                if key and key.items() <= dict(zip(self.columns, values, strict=False)).items():
                    return self.records[index] if self.records else f"line {reader.line_num}"
        return ""


def told(error: asyncpg.PostgresError, sent: Sequence[Copied]) -> str:
    """What the server said, after the place in the file as far as it is known, as ``, line 3, column born: "soon"``.

    Args:
        error: Of a COPY, or at the end of its transaction.
        sent: What the file became, the last of it what was being sent.
    """
    context = error.context or ""
    key = _key(error)
    value = _value(error, key)
    if sent and (found := re.search(_COPYING.format(re.escape(sent[-1].table)), context)):
        if found[2]:
            value = f", column {found[2]}: {found[3]}"
        elif isinstance(error, asyncpg.BadCopyFileFormatError) and not sent[-1].records:
            value = f": {found[3]}"
        return _joined(f", {sent[-1].at(int(found[1]))}{value}: {error}", context[: found.start()])
    if sent and not context and isinstance(error, _OF_THE_LAST):
        return f", {sent[-1].records[0] if sent[-1].records else 'line 1'}{value}: {error}"
    for copied in sent:
        if copied.table == error.table_name and (name := copied.with_key(key)):
            return _joined(f", {name}{value}: {error}", context)
    return _joined(f": {error}", context)


def _key(error: asyncpg.PostgresError) -> dict[str, str]:
    found = _KEY.search(error.detail or "")
    if found is None:
        return {}
    columns, values = found[1].split(", "), found[2].split(", ")
    return dict(zip(columns, values, strict=True)) if len(columns) == len(values) else {}


def _value(error: asyncpg.PostgresError, key: Mapping[str, str]) -> str:
    if isinstance(error, asyncpg.NotNullViolationError):
        return f", column {error.column_name}: null"
    return "".join(f', column {name}: "{value}"' for name, value in key.items())


def _joined(*parts: str) -> str:
    return "\n".join(stripped for part in parts if (stripped := part.strip()))
