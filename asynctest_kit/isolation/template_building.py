"""Building a template: its migrations applied, sealed when they are, and claimed if they have changed the server.

When one is built, and by whom, is told in :mod:`asynctest_kit.isolation.templates`.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
import msgspec

from asynctest_kit.errors import MigrationError
from asynctest_kit.isolation.databases import SESSION_LOST, Template, create, forced
from asynctest_kit.isolation.migrations import apply
from asynctest_kit.isolation.postgres import connect
from asynctest_kit.isolation.preparation import make_extensions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from asynctest_kit.provision.service import Endpoint
    from asynctest_kit.settings import Migrations, Preparation

__all__ = ["CLAIM", "NOBODY", "Plan", "build", "only_builder", "only_user"]

#: What all databases of a server have in common, and migrations can change.
_OF_THE_SERVER = r"""
WITH others AS (SELECT oid, datname, datdba, datacl FROM pg_database WHERE datname NOT LIKE 'atk\_%')
SELECT concat_ws(
    E'\n',
    (SELECT string_agg(role::text, ' ' ORDER BY role::text) FROM pg_roles AS role),
    (SELECT string_agg(membership::text, ' ' ORDER BY membership::text) FROM pg_auth_members AS membership),
    (SELECT string_agg(space::text, ' ' ORDER BY space::text) FROM pg_tablespace AS space),
    (SELECT string_agg(others::text, ' ' ORDER BY others::text) FROM others),
    (
        SELECT string_agg(setting::text, ' ' ORDER BY setting::text) FROM pg_db_role_setting AS setting
        WHERE setdatabase = 0 OR setdatabase IN (SELECT oid FROM others)
    )
)
"""

#: More of it: what ALTER SYSTEM has set, where we may look, and who may set what, where servers know that.
_MAY_SEE_FILES = """
SELECT has_table_privilege('pg_file_settings', 'SELECT')
    AND has_function_privilege('pg_show_all_file_settings()', 'EXECUTE')
"""
_SET = r"""
SELECT string_agg(concat(name, '=', setting), ' ' ORDER BY name, seqno) FROM pg_file_settings
WHERE sourcefile LIKE '%postgresql.auto.conf'
"""
_GRANTED = "SELECT string_agg(parameter::text, ' ' ORDER BY parameter::text) FROM pg_parameter_acl AS parameter"
_WITH_GRANTS = (15, 0)

CLAIM = "changes the server, too"

#: No migrations' digest: for a server that some have left in the middle.
NOBODY = "nobody"

_IS_THERE = re.compile(r'\b(?:role|tablespace|database) "[^"]+" already exists')


@dataclass(frozen=True, slots=True)
class Plan:
    """What makes a template, and what it is called."""

    name: str
    digest: str
    migrations: Migrations | None
    preparation: Preparation
    settings: Mapping[str, str]
    root: Path


async def build(
    connection: asyncpg.Connection,
    server: Endpoint,
    plan: Plan,
    begun: Callable[[str], None],
    claimed: Callable[[str], None],
) -> None:
    """Build a template that isn't there, or was left by a builder that died.

    Args:
        connection: A session of the maintenance database.
        server: Where it is built.
        plan: What makes it.
        begun: Called before the migrations run; see :func:`asynctest_kit.isolation.templates.ensure_template`.
        claimed: Called at the end, however it went; see there.

    Raises:
        MigrationError: The migrations failed.
    """
    name = plan.name
    await connection.execute(f'DROP DATABASE IF EXISTS "{name}"{forced(connection)}')
    await create(connection, name, Template(server, None, plan.settings))
    database = msgspec.structs.replace(server, database=name)
    await make_extensions(database, plan.preparation.extensions)
    before = await _state(connection)
    begun(NOBODY)
    whose = NOBODY  # until more is known
    try:
        try:
            if plan.migrations is not None:
                await apply(plan.migrations, database, root=plan.root)
        except MigrationError as error:
            with suppress(asyncpg.PostgresError, *SESSION_LOST):
                whose = "" if await _state(connection) == before else NOBODY
            raise MigrationError(f"{error}{_mend(str(error), server)}") from error
        has_changed = await _seal(connection, name, before, server)
        whose = plan.digest if has_changed else ""
    finally:
        claimed(whose)


async def _seal(connection: asyncpg.Connection, name: str, before: str, server: Endpoint) -> bool:
    """Mark a template as complete; whether its migrations have changed the server."""
    try:
        has_changed = await _state(connection) != before
        if has_changed:
            await connection.execute(f'COMMENT ON DATABASE "{name}" IS {CLAIM!r}')
        await connection.execute(f'ALTER DATABASE "{name}" WITH IS_TEMPLATE true ALLOW_CONNECTIONS false')
    except SESSION_LOST as error:
        raise MigrationError(
            f"The migration of {server.service} was made, but the session that keeps others from it was ended "
            f"meanwhile: {error}. If the migration ends sessions (pg_terminate_backend), let it do so in its own "
            "database only."
        ) from error
    return has_changed


async def _state(connection: asyncpg.Connection) -> str:
    """What all databases of the server have in common, as far as this user may see it."""
    queries = [_OF_THE_SERVER]
    if await connection.fetchval(_MAY_SEE_FILES):
        queries.append(_SET)
    if tuple(connection.get_server_version()[:2]) >= _WITH_GRANTS:
        queries.append(_GRANTED)
    return "\n".join([await connection.fetchval(query) or "" for query in queries])


def _mend(problem: str, server: Endpoint) -> str:
    """What to do about a migration that meets what another one has left on the server; empty if it is not that."""
    if not _IS_THERE.search(problem):
        return ""
    others = "" if server.provider == "external" else ", or begin with a fresh server: `atk down`"
    return (
        "\nThat is the server's and not the database's: it was there before, and stays when the database goes. "
        f"Make it only where it is missing (with a DO block that looks into pg_roles){others}."
    )


@asynccontextmanager
async def only_builder(server: Endpoint) -> AsyncIterator[None]:
    """On a server of others, wait until nobody else builds there; on one of ours the template's lock does."""
    if server.provider != "external":
        yield
        return
    async with _locked(server, "atk_builder"):
        yield


@asynccontextmanager
async def only_user(server: Endpoint) -> AsyncIterator[None]:
    """Wait until nobody else makes the templates of all services that share the server."""
    async with _locked(server, "atk_shared_server"):
        yield


@asynccontextmanager
async def _locked(server: Endpoint, name: str) -> AsyncIterator[None]:
    """Hold a lock in the database that all services of a server have in common."""
    try:
        connection = await connect(server, database="postgres", name=name)
    except asyncpg.PostgresError:  # there is none, or it isn't for this user
        connection = await connect(server, name=name)
    try:
        await connection.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", name)
        yield
    finally:
        connection.terminate()
