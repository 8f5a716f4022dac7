"""A migrated template database, built once for each state of the migrations, and clones of it.

The problem. Migrations take seconds, a clone takes milliseconds, and several runs and workers share one server.

The path is one line: fingerprint, lock, look, build, mark, clone. The rules:

1. A template is ``atk_template_<fingerprint>``. It is built under an advisory lock, so that one builds and the others
   wait; all sessions must use the same maintenance database for that, and do, for it is the endpoint's.
2. It is complete when the catalogue says so: IS_TEMPLATE true and ALLOW_CONNECTIONS false are set together, last. What
   is found without them was left by a builder that died: it is dropped and built again. A comment says of one whose
   migrations have changed what is the server's, as roles: such a server is no place for other migrations any more.
   Nothing else is recorded.
3. This run's own database, and a test's, is ``atk_run_<random>``. As long as it is used, a session whose application
   name is the database's name is connected to the server, from before it is created: its keeper.
4. A run database with no keeper and no session of its own belongs to a run that died. The next run drops it; the drop
   isn't forced, so it can't hit a database that is in use after all.

A pooler in front of the server (PgBouncer) hides sessions from each other: point the URL at the server itself.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
import msgspec

from asynctest_kit.errors import MigrationError
from asynctest_kit.isolation.migrations import apply
from asynctest_kit.isolation.postgres import connect
from asynctest_kit.provision.migration_files import fingerprint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from asynctest_kit.provision.service import Endpoint
    from asynctest_kit.settings import Migrations

__all__ = ["Template", "ensure_template", "open_clone", "open_run_database"]

#: Versions from which on the server knows ``CREATE DATABASE ... STRATEGY``, and ``DROP DATABASE ... WITH (FORCE)``.
_STRATEGY = (15, 0)
_FORCE = (13, 0)


#: What all databases of a server have in common, and migrations can change.
_OF_THE_SERVER = r"""
SELECT concat_ws(
    E'\n',
    (SELECT string_agg(role::text, ' ' ORDER BY role::text) FROM pg_roles AS role),
    (SELECT string_agg(concat(roleid, ' ', member), ' ' ORDER BY roleid, member) FROM pg_auth_members),
    (SELECT string_agg(spcname, ' ' ORDER BY spcname) FROM pg_tablespace),
    (SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname NOT LIKE 'atk\_%')
)
"""

_CLAIM = "changes the server, too"

#: No migrations' digest: for a server that some have left in the middle.
_NOBODY = "nobody"

_IS_THERE = re.compile(r'\b(?:role|tablespace|database) "[^"]+" already exists')


@dataclass(frozen=True, slots=True)
class Template:
    """A database that is complete and closed for connections, and can be cloned.

    Attributes:
        server: The endpoint with its maintenance database.
        name: The template's name; None for an empty database.
    """

    server: Endpoint
    name: str | None


async def _ignore(_digest: str) -> None:
    pass


def _unclaimed(_digest: str) -> None:
    pass


async def ensure_template(
    server: Endpoint,
    migrations: Migrations | None,
    *,
    root: Path,
    built: Callable[[str], Awaitable[None]] = _ignore,
    claimed: Callable[[str], None] = _unclaimed,
) -> Template:
    """Return the template of these migrations, built if need be.

    Args:
        server: An endpoint whose user may create databases.
        migrations: What makes the schema; None for an empty database.
        root: Where a migration command runs.
        built: Called with the migrations' digest if it was not there before, while nobody else has it yet.
        claimed: Called with it if they have changed more than their database: the server is theirs alone from then on.
            If they failed, with a word that is nobody's digest.

    Raises:
        MigrationError: The migrations failed. The next call tries again.
    """
    if migrations is None:
        return Template(server, None)

    digest = await asyncio.to_thread(fingerprint, migrations, root=root)
    name = f"atk_template_{digest}"
    connection = await connect(server, name=name)
    try:
        await connection.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", name)
        if not await _is_complete(connection, name):
            await _build(connection, server, name, migrations, root, claimed)
            if await _is_claimed(connection, name):
                claimed(digest)
            await built(digest)
        elif await _is_claimed(connection, name):
            claimed(digest)
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(_needs_privilege(server, error)) from error
    finally:
        # Ends the session, and with it the lock.
        connection.terminate()
    return Template(server, name)


@asynccontextmanager
async def open_run_database(template: Template) -> AsyncIterator[Endpoint]:
    """This run's own database, cloned from the template; databases of runs that died are dropped.

    On a server of others it is dropped at the end. A server of ours ends by itself, or the next run clears up.

    Raises:
        MigrationError: The server's user may not create databases.
    """
    async with _keeper(template) as (keeper, name):
        await _drop_orphans(keeper)
        yield await _clone(keeper, name, template)
        if template.server.provider == "external":
            await _drop(template.server, keeper, name)


@asynccontextmanager
async def open_clone(template: Template) -> AsyncIterator[Endpoint]:
    """A database of one test's own, cloned from the template and dropped at the end.

    Raises:
        MigrationError: The server's user may not create databases.
    """
    async with _keeper(template) as (keeper, name):
        try:
            yield await _clone(keeper, name, template)
        finally:
            await _drop(template.server, keeper, name)


@asynccontextmanager
async def _keeper(template: Template) -> AsyncIterator[tuple[asyncpg.Connection, str]]:
    """A session that keeps the database of its name from being taken for an orphan."""
    name = f"atk_run_{secrets.token_hex(6)}"
    keeper = await connect(template.server, name=name)
    try:
        yield keeper, name
    finally:
        keeper.terminate()


async def _clone(keeper: asyncpg.Connection, name: str, template: Template) -> Endpoint:
    try:
        await keeper.execute(_create(keeper, name, template))
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(_needs_privilege(template.server, error)) from error

    return msgspec.structs.replace(template.server, database=name)


async def _is_complete(connection: asyncpg.Connection, name: str) -> bool:
    complete: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1 AND datistemplate AND NOT datallowconn)", name
    )
    return complete


async def _build(  # noqa: PLR0913, PLR0917  # what makes a template
    connection: asyncpg.Connection,
    server: Endpoint,
    name: str,
    migrations: Migrations,
    root: Path,
    claimed: Callable[[str], None],
) -> None:
    await connection.execute(f'DROP DATABASE IF EXISTS "{name}"{_forced(connection)}')
    await connection.execute(f'CREATE DATABASE "{name}"')
    before = await connection.fetchval(_OF_THE_SERVER)
    try:
        await apply(migrations, msgspec.structs.replace(server, database=name), root=root)
    except MigrationError as error:
        if await connection.fetchval(_OF_THE_SERVER) != before:
            claimed(_NOBODY)
        raise MigrationError(f"{error}{_mend(str(error), server)}") from error
    if await connection.fetchval(_OF_THE_SERVER) != before:
        await connection.execute(f'COMMENT ON DATABASE "{name}" IS {_CLAIM!r}')
    await connection.execute(f'ALTER DATABASE "{name}" WITH IS_TEMPLATE true ALLOW_CONNECTIONS false')


async def _is_claimed(connection: asyncpg.Connection, name: str) -> bool:
    comment = await connection.fetchval(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1", name
    )
    return bool(comment == _CLAIM)


def _mend(problem: str, server: Endpoint) -> str:
    """What to do about a migration that meets what another one has left on the server; empty if it is not that."""
    if not _IS_THERE.search(problem):
        return ""
    others = "" if server.provider == "external" else ", or begin with a fresh server: `atk down`"
    return (
        "\nThat is the server's and not the database's: it was there before, and stays when the database goes. "
        f"Make it only where it is missing (with a DO block that looks into pg_roles){others}."
    )


async def _drop_orphans(connection: asyncpg.Connection) -> None:
    orphans = await connection.fetch(
        r"""
        SELECT datname FROM pg_database AS database
        WHERE datname LIKE 'atk\_run\_%' AND pg_has_role(datdba, 'USAGE') AND NOT EXISTS (
            SELECT FROM pg_stat_activity
            WHERE datid = database.oid OR application_name = database.datname
        )
        """
    )
    for (name,) in orphans:
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}"')
        except (asyncpg.ObjectInUseError, asyncpg.InvalidCatalogNameError, asyncpg.InternalServerError):
            # Another run is at it too, or somebody has connected to look into it.
            continue


async def _drop(server: Endpoint, keeper: asyncpg.Connection, name: str) -> None:
    connection = await connect(server) if keeper.is_closed() else keeper
    try:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}"{_forced(connection)}')
    finally:
        connection.terminate()


def _create(connection: asyncpg.Connection, name: str, template: Template) -> str:
    if template.name is None:
        return f'CREATE DATABASE "{name}"'

    # Copying files is twice as fast where a checkpoint costs nothing; on a server of others' it might cost them much.
    ours = template.server.provider != "external" and tuple(connection.get_server_version()[:2]) >= _STRATEGY
    return f'CREATE DATABASE "{name}" TEMPLATE "{template.name}"{" STRATEGY FILE_COPY" if ours else ""}'


def _forced(connection: asyncpg.Connection) -> str:
    return " WITH (FORCE)" if tuple(connection.get_server_version()[:2]) >= _FORCE else ""


def _needs_privilege(server: Endpoint, error: Exception) -> str:
    return (
        f"{server.safe_url} doesn't let {server.username} create the databases that tests need: {error}. "
        f'Grant it: ALTER ROLE "{server.username}" CREATEDB'
    )
