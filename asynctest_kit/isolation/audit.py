"""What a server's state is, and in what two states differ: the proof that a suite has left everything as it was.

A state is a mapping of things, each told so that a person knows it (``rows of public.users``), to what they are. Two
states are compared thing by thing. What no rung isolates is told apart: that sequences go on is as expected.

Of a database: its schema, and of each table how many rows it has and a checksum over them in whatever order; sequences
and large objects. Of the server: roles, databases, settings, advisory locks, replication slots, subscriptions, prepared
transactions, and the sessions that are still connected to the run's database.
"""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from asynctest_kit.isolation import advisory
from asynctest_kit.isolation.postgres import connect
from asynctest_kit.isolation.schema import describe
from asynctest_kit.isolation.templates import open_clone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from asynctest_kit.isolation.databases import Template
    from asynctest_kit.provision.service import Endpoint

__all__ = ["Change", "DatabaseAudit", "ServerAudit", "State", "changes"]

#: What there is, by its name in words.
State = dict[str, str]

_NAME = "atk audit"

#: How the things are called that are not isolated by any rung.
_KNOWN = ("value of sequence ",)

_THERE = "there"

#: Each gives names and what is there.
_SERVER = (
    """
    SELECT 'role ' || rolname, concat_ws(' ', CASE WHEN rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END,
        CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END,
        CASE WHEN rolcreaterole THEN 'CREATEROLE' END, CASE WHEN rolreplication THEN 'REPLICATION' END,
        CASE WHEN rolbypassrls THEN 'BYPASSRLS' END, CASE WHEN NOT rolinherit THEN 'NOINHERIT' END,
        CASE WHEN rolconnlimit <> -1 THEN 'CONNECTION LIMIT ' || rolconnlimit END, 'VALID UNTIL ' || rolvaliduntil)
    FROM pg_roles WHERE rolname !~ '^pg_'
    """,
    """
    SELECT format('membership of %s in %s', member::regrole, roleid::regrole), count(*)::text FROM pg_auth_members
    GROUP BY 1
    """,
    r"""
    SELECT 'database ' || datname, (to_jsonb(pg_database) - 'oid' - 'datname' - 'datfrozenxid' - 'datminmxid')::text
    FROM pg_database WHERE datname NOT LIKE 'atk\_%'
    """,
    "SELECT 'tablespace ' || spcname, (to_jsonb(pg_tablespace) - 'oid')::text FROM pg_tablespace",
    r"""
    SELECT format('settings of %s in %s', CASE setrole WHEN 0 THEN 'all roles' ELSE setrole::regrole::text END,
        CASE setdatabase WHEN 0 THEN 'all databases' ELSE datname END), setconfig::text
    FROM pg_db_role_setting LEFT JOIN pg_database ON pg_database.oid = setdatabase
    WHERE setdatabase = 0 OR datname NOT LIKE 'atk\_%'
    """,
    """
    SELECT 'setting ' || name, setting FROM pg_settings
    WHERE source NOT IN ('session', 'client', 'database', 'user', 'database user')
        AND name !~ '^(transaction_|in_hot_standby)'
    """,
    """
    SELECT 'ALTER SYSTEM SET ' || name, setting FROM pg_file_settings WHERE sourcefile LIKE '%/postgresql.auto.conf'
    ORDER BY seqno
    """,
    "SELECT 'replication slot ' || slot_name, concat_ws(' ', slot_type, plugin, database) FROM pg_replication_slots",
    "SELECT 'subscription ' || subname, subenabled::text FROM pg_subscription",
    "SELECT 'prepared transaction ' || gid, concat_ws(' ', owner, database) FROM pg_prepared_xacts",
)

#: The same of the run's database.
_OF_THE_RUN = (
    """
    SELECT format('settings of %s in the run''s database', CASE setrole WHEN 0 THEN 'all roles'
        ELSE setrole::regrole::text END), setconfig::text
    FROM pg_db_role_setting JOIN pg_database ON pg_database.oid = setdatabase WHERE datname = current_database()
    """,
    """
    SELECT format('session of %s in the run''s database, application "%s"', usename, application_name),
        string_agg(DISTINCT state, ', ')
    FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND application_name !~ '^atk'
    GROUP BY 1
    """,
)

#: For those who may read them: whether a password is another one.
_PASSWORDS = """
SELECT 'password of role ' || rolname, left(md5(rolpassword), 8) FROM pg_authid WHERE rolpassword IS NOT NULL
"""

_LOCKS = r"""
SELECT classid::bigint AS classid, objid::bigint AS objid, objsubid, application_name
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND application_name NOT LIKE 'atk\_%' AND application_name <> 'atk audit'
"""

_TABLES = """
SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relkind IN ('r', 'm') AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%' ORDER BY 1
"""
_ROWS = """
SELECT count(*), coalesce(sum(hashtextextended("atk row"::text, 0)), 0)::text FROM {table} AS "atk row"
"""

_DATABASE = (
    """
    SELECT format('value of sequence %I.%I', schemaname, sequencename), coalesce(last_value::text, 'never used')
    FROM pg_sequences
    """,
    "SELECT 'large object ' || oid, left(md5(lo_get(oid)), 8) FROM pg_largeobject_metadata",
)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not what it was.

    Attributes:
        what: Its name.
        before: What it was; empty if it wasn't there.
        after: What it is; empty if it is gone.
        is_known: Whether it is something that no rung isolates.
    """

    what: str
    before: str
    after: str
    is_known: bool = False

    def __str__(self) -> str:
        if not self.before:
            return f"new: {self.what}" + ("" if self.after == _THERE else f": {self.after}")
        if not self.after:
            return f"gone: {self.what}" + ("" if self.before == _THERE else f": {self.before}")
        return f"changed: {self.what}: {self.before} before, {self.after} after"


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Change, ...]:
    """In what two states differ, sorted by name."""
    names = sorted({name for name in (*before, *after) if before.get(name) != after.get(name)})
    return tuple(
        Change(name, before.get(name, ""), after.get(name, ""), is_known=name.startswith(_KNOWN)) for name in names
    )


class DatabaseAudit:
    """The states of a run's database.

    Args:
        endpoint: The database.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def state(self) -> State:
        """What is in it, and who is connected to it."""
        async with _connected(self._endpoint) as connection:
            return {**await _database(connection), **await _asked(connection, _OF_THE_RUN)}


class ServerAudit:
    """The states of a server, and of the template on it.

    Args:
        template: The template.
    """

    def __init__(self, template: Template) -> None:
        self._template = template

    async def state(self) -> State:
        """What all databases have in common."""
        async with _connected(self._template.server) as connection:
            return await _server(connection)

    async def state_of_template(self) -> State:
        """What is in the template; a clone is looked at, for nobody may connect to the template itself."""
        if self._template.name is None:
            return {}
        async with open_clone(self._template) as clone, _connected(clone) as connection:
            return {f"template: {name}": value for name, value in (await _database(connection)).items()}


@asynccontextmanager
async def _connected(endpoint: Endpoint) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(endpoint, name=_NAME)
    try:
        yield connection
    finally:
        await connection.close()


async def _server(connection: asyncpg.Connection) -> State:
    state = await _asked(connection, (*_SERVER, _PASSWORDS))
    for row in await connection.fetch(_LOCKS):
        key = advisory.key(row["classid"], row["objid"], row["objsubid"])
        state[f"advisory lock {key}"] = f'held by application "{row["application_name"]}"'
    return state


async def _asked(connection: asyncpg.Connection, queries: Iterable[str]) -> State:
    state: State = {}
    for query in queries:
        with suppress(asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError):  # what it may not see, or lacks
            state.update(await connection.fetch(query))
    return state


async def _database(connection: asyncpg.Connection) -> State:
    lines = Counter(line.strip() for line in await describe(connection))
    state = {f"schema: {line}": _THERE if count == 1 else f"{count} times" for line, count in lines.items()}
    state |= await _asked(connection, _DATABASE)
    for (table,) in await connection.fetch(_TABLES):
        count, checksum = await connection.fetchrow(_ROWS.format(table=table))
        state[f"rows of {table}"] = f"{count} row{'' if count == 1 else 's'}, checksum {int(checksum) % 16**8:08x}"
    return state
