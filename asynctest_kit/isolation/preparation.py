"""What a PostgreSQL database has before its migrations: extensions, roles and settings, as the service asks for them.

Extensions are made in the template, so every clone has them. Roles are the server's: they are looked for, and made,
each time a run comes, also where the template is there already. Settings are given to a server of ours when it is
started; on one that is the user's they are set for each database that is made there.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

import asyncpg

from asynctest_kit.errors import MigrationError
from asynctest_kit.isolation.postgres import connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asynctest_kit.provision.service import Endpoint

__all__ = ["make_extensions", "make_roles", "set_settings"]

#: How an extension comes to a server.
_WAYS = {
    "docker": 'Take an image that has it, by the key "image", or build one: container = { build = ... }.',
    "embedded": "Install it beside these binaries, or use Docker with an image that has it.",
    "external": "Install it on that server.",
}


async def make_roles(connection: asyncpg.Connection, roles: Mapping[str, str], server: Endpoint) -> None:
    """Make those that are missing, and give those of a server of ours what is asked for.

    Args:
        connection: Of a user who may make roles, for the time of one template.
        roles: What each is, in the words of CREATE ROLE, by name.
        server: Where.

    Raises:
        MigrationError: One can't be made.
    """
    if not roles:
        return
    await connection.execute("SELECT pg_advisory_lock(hashtextextended('atk_roles', 0))")
    there = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
    for name, words in roles.items():
        if name in there and server.provider == "external":
            continue
        statement = f"{'ALTER' if name in there else 'CREATE'} ROLE {_quoted(name)} {words}".rstrip()
        try:
            await connection.execute(statement)
        except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
            continue  # made meanwhile over another database of that server: the lock is this one's
        except asyncpg.PostgresError as error:
            raise MigrationError(
                f'The role "{name}" can\'t be made in {server.service} at {server.safe_url}: {error}. '
                f"What stands after its name is the words of CREATE ROLE: {words!r}."
            ) from error
    await connection.execute("SELECT pg_advisory_unlock(hashtextextended('atk_roles', 0))")


async def make_extensions(database: Endpoint, extensions: Iterable[str]) -> None:
    """Make them in a database, with what they need.

    Raises:
        MigrationError: One isn't there, or this user may not make it; the message says what there is.
    """
    connection = await connect(database)
    try:
        for name in extensions:
            try:
                await connection.execute(f"CREATE EXTENSION IF NOT EXISTS {_quoted(name)} CASCADE")
            except asyncpg.InsufficientPrivilegeError as error:
                raise MigrationError(
                    f'The extension "{name}" can\'t be made in {database.service} by {database.username}: {error}. '
                    "Have a superuser make it in template1 of that server, or let tests connect as one."
                ) from error
            except asyncpg.PostgresError as error:
                raise MigrationError(await _missing(connection, database, name, error)) from error
    finally:
        connection.terminate()


async def set_settings(
    connection: asyncpg.Connection, database: str, settings: Mapping[str, str], server: Endpoint
) -> None:
    """Set them for one database.

    Raises:
        MigrationError: One isn't a database's to have.
    """
    for name, value in settings.items():
        try:
            text = await connection.fetchval("SELECT quote_literal($1::text)", value)
            await connection.execute(f"ALTER DATABASE {_quoted(database)} SET {_quoted(name)} TO {text}")
        except asyncpg.PostgresError as error:
            raise MigrationError(
                f'The setting "{name}" can\'t be given to a database of {server.service} at {server.safe_url}: '
                f"{error}. That server is yours: what only a whole server can have must be set there."
            ) from error


async def _missing(connection: asyncpg.Connection, database: Endpoint, name: str, error: Exception) -> str:
    rows = await connection.fetch("SELECT name FROM pg_available_extensions ORDER BY name")
    known = [row["name"] for row in rows]
    close = get_close_matches(name, known, n=1)
    meant = f" Did you mean {close[0]}?" if close else ""
    what = str(error).splitlines()[0]
    return (
        f'The extension "{name}" can\'t be made in {database.service} ({database.provider}, {database.detail}): '
        f"{what}.{meant} {_WAYS[database.provider]}\nAvailable there: {', '.join(known)}."
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
