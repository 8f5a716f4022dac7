"""A migrated template database, built once for each state of the migrations, and clones of it.

The problem. Migrations take seconds, a clone takes milliseconds, and several runs and workers share one server.

The path is one line: fingerprint, lock, look, build, mark, clone. The rules:

1. A template is ``atk_template_<fingerprint>``. It is built under an advisory lock, so that one builds and the others
   wait. Such a lock is the maintenance database's, the endpoint's, and a template's tables are its builder's: on a
   server of others, where endpoints differ in both, a template is for those alone that connect to the same database as
   the same user, and its name ends with what tells them; so each of the services that share a server has its own. What
   is built there over other databases is built before or after it, for migrations may make roles: under a lock in the
   database ``postgres``, where that may be connected to.
2. It is complete when the catalogue says so: IS_TEMPLATE true and ALLOW_CONNECTIONS false are set together, last. What
   is found without them was left by a builder that died: it is dropped and built again. A comment says of one whose
   migrations have changed what is the server's, as roles: such a server is no place for other migrations any more.
   Nothing else is recorded.
3. This run's own database, and a test's, is ``atk_run_<random>``. As long as it is used, a session whose application
   name is the database's name is connected to the server, from before it is created: its keeper. One session keeps
   several that are called ``<its name>_<number>``.
4. A run database with no keeper and no session of its own belongs to a run that died. The next run drops it, with what
   was prepared in it; the drop isn't forced, so it can't hit a database that is in use after all.

5. Copying a template takes a server of ours a tenth of a second or more, so one that is kept has the next run's
   database before anybody waits for it: ``atk_next_<the template's oid>``. A run takes it by giving it a name of its
   own, which one run only can; the others clone. It goes with its template.

A pooler in front of the server (PgBouncer) hides sessions from each other: point the URL at the server itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import asyncpg
import msgspec

from asynctest_kit.errors import MigrationError
from asynctest_kit.isolation.databases import Template, create, drop, drop_orphans, needs_privilege
from asynctest_kit.isolation.postgres import connect
from asynctest_kit.isolation.preparation import make_roles
from asynctest_kit.isolation.template_building import CLAIM, Plan, build, only_builder
from asynctest_kit.provision.migration_files import digest_of
from asynctest_kit.settings import Preparation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from asynctest_kit.provision.service import Endpoint
    from asynctest_kit.settings import Migrations

__all__ = ["ensure_template", "is_of", "make_next", "open_clone", "open_run_database", "open_run_database_if_ready"]

_NOTHING = Preparation()

#: Of a template that is complete: whether it is claimed, and the next run's database, unless somebody has connected to
#: that, for to rename it would wait for the session's end.
_LOOK = """
SELECT template.oid, shobj_description(template.oid, 'pg_database') IS NOT DISTINCT FROM $2 AS is_claimed, (
    SELECT next.datname FROM pg_database AS next
    WHERE next.datname = 'atk_next_' || template.oid
        AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE datid = next.oid)
) AS made
FROM pg_database AS template WHERE template.datname = $1 AND template.datistemplate AND NOT template.datallowconn
"""


async def _ignore(_digest: str) -> None:
    pass


def _unclaimed(_digest: str) -> None:
    pass


async def ensure_template(  # noqa: PLR0913 (who is told of what)
    server: Endpoint,
    migrations: Migrations | None,
    *,
    root: Path,
    preparation: Preparation = _NOTHING,
    built: Callable[[str], Awaitable[None]] = _ignore,
    claimed: Callable[[str], None] = _unclaimed,
    begun: Callable[[str], None] = _unclaimed,
) -> Template:
    """Return the template of these migrations, built if need be.

    Args:
        server: An endpoint whose user may create databases.
        migrations: What makes the schema; None for an empty database.
        root: Where a migration command runs.
        preparation: What the database has before its migrations.
        built: Called with the migrations' digest if it was not there before, while nobody else has it yet.
        claimed: Called with it if they have changed more than their database: the server is theirs alone from then on.
            If they failed in the middle of that, with a word that is nobody's digest; if they changed nothing else,
            with an empty one.
        begun: Called with that word before they run: if we are killed, nobody knows what they have changed.

    Raises:
        MigrationError: The migrations failed. The next call tries again.
    """
    settings = preparation.settings if server.provider == "external" else _NOTHING.settings
    digest = await asyncio.to_thread(digest_of, migrations, preparation, root=root)
    if not digest and not preparation.roles:
        return Template(server, None, settings)

    name = _name(server, digest)
    connection = await connect(server, name=name)
    try:
        await connection.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", name)
        await make_roles(connection, preparation.roles, server)
        if not digest:
            return Template(server, None, settings)
        found = await _look(connection, name)
        if found is None:
            planned = Plan(name, digest, migrations, preparation, settings, root)
            async with only_builder(server):
                await build(connection, server, planned, begun, claimed)
            await built(digest)
        elif found["is_claimed"]:
            claimed(digest)
        if preparation.roles:
            claimed(digest)  # who comes with other ones must not find these
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(needs_privilege(server, error)) from error
    finally:
        # Ends the session, and with it the lock.
        connection.terminate()
    return Template(server, name, settings)


async def is_of(template: Template, migrations: Migrations | None, *, root: Path, preparation: Preparation) -> bool:
    """Whether a template is that of these migrations as they are now."""
    digest = await asyncio.to_thread(digest_of, migrations, preparation, root=root)
    return template.name == _name(template.server, digest)


@asynccontextmanager
async def open_run_database(template: Template) -> AsyncIterator[Endpoint]:
    """This run's own database, cloned from the template; databases of runs that died are dropped.

    On a server of others it is dropped at the end. A server of ours ends by itself, or the next run clears up.

    Raises:
        MigrationError: The server's user may not create databases.
    """
    async with _keeper(template) as (keeper, name):
        found = await _look(keeper, template.name)
        async with _run_database(keeper, name, template, found and found["made"]) as endpoint:
            yield endpoint


@asynccontextmanager
async def open_run_database_if_ready(
    server: Endpoint, migrations: Migrations | None, *, root: Path, preparation: Preparation = _NOTHING
) -> AsyncIterator[tuple[Template, Endpoint] | None]:
    """The template of these migrations and this run's own database, if nothing has to be built or claimed for that."""
    settings = preparation.settings if server.provider == "external" else _NOTHING.settings
    digest = await asyncio.to_thread(digest_of, migrations, preparation, root=root)
    template = Template(server, _name(server, digest), settings)
    async with _keeper(template) as (keeper, name):
        found = await _look(keeper, template.name)
        if found is None or found["is_claimed"]:
            yield None
            return
        async with _run_database(keeper, name, template, found["made"]) as endpoint:
            yield template, endpoint


@asynccontextmanager
async def _run_database(
    keeper: asyncpg.Connection, name: str, template: Template, made: str | None
) -> AsyncIterator[Endpoint]:
    endpoint = await _taken(keeper, name, template.server, made) or await _clone(keeper, name, template)
    dropping = asyncio.create_task(drop_orphans(keeper, template.server))  # nobody waits for that
    try:
        yield endpoint
    finally:
        dropping.cancel()
        await asyncio.wait((dropping,))  # not its outcome: the next run drops what this one can't
        if not dropping.cancelled():
            dropping.exception()
    if template.server.provider == "external":
        await _drop(template.server, keeper, name)


async def make_next(
    server: Endpoint, migrations: Migrations | None, *, root: Path, preparation: Preparation = _NOTHING
) -> str:
    """Make the next run's database, and drop those of runs that have ended, while nobody waits for either.

    No-op on a server of others, and where the template is not there; all is as it was where another does it, too.

    Returns:
        Why there is none; empty if it is there.
    """
    if server.provider == "external":
        return "nothing is made ahead on a server of yours"
    template = Template(server, _name(server, digest_of(migrations, preparation, root=root)))
    connection = await connect(server, name="atk_next")
    try:
        await drop_orphans(connection, server)
        if (found := await _look(connection, template.name)) is not None:
            with suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
                await create(connection, f"atk_next_{found['oid']}", template)
            return ""
        return "its template for these migrations is not there yet: the next run makes it"
    finally:
        connection.terminate()


async def _taken(keeper: asyncpg.Connection, name: str, server: Endpoint, made: str | None) -> Endpoint | None:
    """The database that was made for the next run; None if there is none, or another one has it."""
    if made is None or server.provider == "external":
        return None
    try:
        await keeper.execute(f'ALTER DATABASE "{made}" RENAME TO "{name}"')
    except asyncpg.PostgresError:  # another was first; whatever else it may be, a clone meets it, too
        return None
    return msgspec.structs.replace(server, database=name)


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
        await create(keeper, name, template)
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(needs_privilege(template.server, error)) from error

    return msgspec.structs.replace(template.server, database=name)


async def _look(connection: asyncpg.Connection, name: str | None) -> asyncpg.Record | None:
    """What there is of a template; None if it isn't complete, or isn't there. In one question, for a run waits."""
    return await connection.fetchrow(_LOOK, name, CLAIM)


def _name(server: Endpoint, digest: str) -> str:
    name = f"atk_template_{digest}"
    if server.provider != "external" and not server.shares:
        return name
    service = f"\0{server.service}" if server.shares else ""
    whose = hashlib.sha256(f"{server.database}\0{server.username}{service}".encode()).hexdigest()[:8]
    return f"{name}_{whose}"


async def _drop(server: Endpoint, keeper: asyncpg.Connection, name: str) -> None:
    connection = await connect(server) if keeper.is_closed() else keeper
    try:
        await drop(connection, server, name)
    finally:
        connection.terminate()
