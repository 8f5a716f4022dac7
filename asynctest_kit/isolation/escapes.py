"""What was committed to a run's database: nothing should be, for every test's transaction is rolled back.

Rows that a run has committed are younger than its database. PostgreSQL keeps with each row the transaction that wrote
it, and with the database the one that made it; what was cloned from the template is older. So one look finds them,
without a record of how things were before. Rows that are gone leave no trace: for those see the audit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from asynctest_kit.isolation.postgres import connect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asynctest_kit.provision.service import Endpoint

__all__ = ["Committed"]

_LOST = (asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.InterfaceError, OSError)

_NAME = "atk look at commits"

_TABLES = """
SELECT format('%I.%I', nspname, relname) AS quoted, pg_class.oid::regclass::text AS name, relkind::text AS kind,
    age(pg_class.xmin) < (SELECT age(xmin) FROM pg_database WHERE datname = current_database()) AS is_new
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relkind IN ('r', 'v', 'm', 'S', 'f') AND relpersistence <> 't'
    AND nspname NOT IN ('pg_catalog', 'information_schema') AND nspname NOT LIKE 'pg\\_%'
ORDER BY 2
"""

_YOUNG = """
SELECT count(*) FROM {table} AS written
WHERE age(written.xmin) < (SELECT age(xmin) FROM pg_database WHERE datname = current_database())
"""

_KINDS = {"r": "table", "v": "view", "m": "materialized view", "S": "sequence", "f": "foreign table"}


class Committed:
    """Looks for what a run has committed to its database.

    Args:
        endpoint: The run's database.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._known: Mapping[str, int] = {}
        self._connection: asyncpg.Connection | None = None

    async def look(self) -> Sequence[str]:
        """What is there that wasn't at the last look, in words.

        A table that is locked altogether is left for the next look. A connection that was cut is replaced once.
        """
        try:
            return await self._look()
        except _LOST:
            self.close()
            return await self._look()

    async def _look(self) -> Sequence[str]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._endpoint, name=_NAME)
            await self._connection.execute("SET lock_timeout = '100ms'; SET statement_timeout = '10s'")
        found: dict[str, int] = {}
        for table in await self._connection.fetch(_TABLES):
            kind, name = _KINDS[table["kind"]], table["name"]
            if table["is_new"]:
                found[f"the {kind} {name} (new or changed)"] = 1
            if table["kind"] == "r":
                count = await self._young(table["quoted"], name)
                if count:
                    found[name] = count
        told = [_told(what, count - self._known.get(what, 0)) for what, count in found.items()]
        self._known = {**self._known, **found}
        return [text for text in told if text]

    async def _young(self, quoted: str, name: str) -> int:
        assert self._connection is not None  # noqa: S101  # opened above
        try:
            count: int = await self._connection.fetchval(_YOUNG.format(table=quoted))
        except (asyncpg.LockNotAvailableError, asyncpg.UndefinedTableError):
            return self._known.get(name, 0)
        return count

    def close(self) -> None:
        """Leave the server."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def _told(what: str, more: int) -> str:
    if more <= 0:
        return ""
    if what.startswith("the "):
        return what
    return f"{more} row{'' if more == 1 else 's'} of {what}"
