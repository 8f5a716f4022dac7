"""Making and dropping databases on a server: empty ones, clones of a template, and those that nobody keeps any more.

What they are for is told in :mod:`asynctest_kit.isolation.templates`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import asyncpg

from asynctest_kit.isolation.postgres import connect
from asynctest_kit.isolation.preparation import set_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asynctest_kit.provision.service import Endpoint

__all__ = ["SESSION_LOST", "Template", "create", "drop", "drop_orphans", "forced", "needs_privilege"]

#: Versions from which on the server knows ``CREATE DATABASE ... STRATEGY``, and ``DROP DATABASE ... WITH (FORCE)``.
_STRATEGY = (15, 0)
_FORCE = (13, 0)

#: What comes of a session that has been ended from outside: told by the server, or found closed by asyncpg.
SESSION_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)


@dataclass(frozen=True, slots=True)
class Template:
    """A database that is complete and closed for connections, and can be cloned.

    Attributes:
        server: The endpoint with its maintenance database.
        name: The template's name; None for an empty database.
        settings: What is set for each clone.
    """

    server: Endpoint
    name: str | None
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


async def create(connection: asyncpg.Connection, name: str, template: Template) -> None:
    """Make a clone.

    Raises:
        MigrationError: A setting isn't a database's to have.
    """
    source = "" if template.name is None else f' TEMPLATE "{template.name}"{_strategy(connection, template)}'
    await connection.execute(f'CREATE DATABASE "{name}"{source}')
    await set_settings(connection, name, template.settings, template.server)


def _strategy(connection: asyncpg.Connection, template: Template) -> str:
    # Copying files is twice as fast where a checkpoint costs nothing; on a server of others' it might cost them much.
    ours = template.server.provider != "external" and tuple(connection.get_server_version()[:2]) >= _STRATEGY
    return " STRATEGY FILE_COPY" if ours else ""


def forced(connection: asyncpg.Connection) -> str:
    """What ends a DROP DATABASE that ends others' sessions first, where the server knows it."""
    return " WITH (FORCE)" if tuple(connection.get_server_version()[:2]) >= _FORCE else ""


def needs_privilege(server: Endpoint, error: Exception) -> str:
    """What to tell of a user who may not create databases."""
    return (
        f"{server.safe_url} doesn't let {server.username} create the databases that tests need: {error}. "
        f'Grant it: ALTER ROLE "{server.username}" CREATEDB'
    )


async def drop(connection: asyncpg.Connection, server: Endpoint, name: str) -> tuple[str, ...]:
    """Drop a database by force, with what force alone doesn't end.

    Returns:
        The names of the transactions that were left prepared in it.
    """
    statement = f'DROP DATABASE IF EXISTS "{name}"{forced(connection)}'
    try:
        await connection.execute(statement)
    except asyncpg.ObjectInUseError:
        prepared = await _roll_back_prepared(connection, server, name)
        if not prepared:
            raise
        await connection.execute(statement)
        return prepared
    return ()


async def _roll_back_prepared(connection: asyncpg.Connection, server: Endpoint, name: str) -> tuple[str, ...]:
    """Only a session of their database can do it."""
    found = await connection.fetch("SELECT gid, quote_literal(gid) FROM pg_prepared_xacts WHERE database = $1", name)
    if found:
        inside = await connect(server, database=name)
        try:
            for _, quoted in found:
                await inside.execute(f"ROLLBACK PREPARED {quoted}")
        finally:
            inside.terminate()
    return tuple(gid for gid, _ in found)


#: Another run is at an orphan too, or somebody has connected to look into it.
_NOT_OURS = (
    asyncpg.ObjectInUseError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.UndefinedObjectError,
    asyncpg.InternalServerError,
)


async def drop_orphans(connection: asyncpg.Connection, server: Endpoint) -> None:
    """Drop what runs that have ended left, and what was made for the next run from templates that are gone."""
    orphans = await connection.fetch(
        r"""
        SELECT datname FROM pg_database AS database
        WHERE datname LIKE 'atk\_run\_%' AND pg_has_role(datdba, 'USAGE') AND NOT EXISTS (
            SELECT FROM pg_stat_activity
            WHERE datid = database.oid OR application_name = substring(database.datname, 'atk_run_[0-9a-f]+')
        )
        UNION ALL
        SELECT datname FROM pg_database AS database
        WHERE datname LIKE 'atk\_next\_%' AND pg_has_role(datdba, 'USAGE') AND NOT EXISTS (
            SELECT FROM pg_database AS template
            WHERE datistemplate AND 'atk_next_' || template.oid = database.datname
        )
        """
    )
    for (name,) in orphans:
        try:
            await _roll_back_prepared(connection, server, name)  # with one, the server would wait for seconds first
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}"')
        except _NOT_OURS:
            continue
