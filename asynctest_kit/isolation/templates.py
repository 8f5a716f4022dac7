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
4. A run database with no keeper and no session of its own belongs to a run that died. The next run drops it; the drop
   isn't forced, so it can't hit a database that is in use after all.

5. Copying a template takes a server of ours a tenth of a second or more, so one that is kept has the next run's
   database before anybody waits for it: ``atk_next_<the template's oid>``. A run takes it by giving it a name of its
   own, which one run only can; the others clone. It goes with its template.

A pooler in front of the server (PgBouncer) hides sessions from each other: point the URL at the server itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import asyncpg
import msgspec

from asynctest_kit.errors import MigrationError
from asynctest_kit.isolation.migrations import apply
from asynctest_kit.isolation.postgres import connect
from asynctest_kit.isolation.preparation import make_extensions, make_roles, set_settings
from asynctest_kit.provision.migration_files import digest_of
from asynctest_kit.settings import Preparation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from asynctest_kit.provision.service import Endpoint
    from asynctest_kit.settings import Migrations

__all__ = [
    "NOBODY",
    "SESSION_LOST",
    "Template",
    "create",
    "ensure_template",
    "forced",
    "is_of",
    "make_next",
    "needs_privilege",
    "only_user",
    "open_clone",
    "open_run_database",
    "open_run_database_if_ready",
]

#: Versions from which on the server knows ``CREATE DATABASE ... STRATEGY``, and ``DROP DATABASE ... WITH (FORCE)``.
_STRATEGY = (15, 0)
_FORCE = (13, 0)


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

_CLAIM = "changes the server, too"

#: No migrations' digest: for a server that some have left in the middle.
NOBODY = "nobody"

NOTHING = Preparation()

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

_IS_THERE = re.compile(r'\b(?:role|tablespace|database) "[^"]+" already exists')


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


async def _ignore(_digest: str) -> None:
    pass


def _unclaimed(_digest: str) -> None:
    pass


#: What comes of a session that has been ended from outside: told by the server, or found closed by asyncpg.
SESSION_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)


async def ensure_template(  # noqa: PLR0913 (who is told of what)
    server: Endpoint,
    migrations: Migrations | None,
    *,
    root: Path,
    preparation: Preparation = NOTHING,
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
    settings = preparation.settings if server.provider == "external" else NOTHING.settings
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
            planned = _Plan(digest, migrations, preparation, settings, root)
            async with _only_builder(server):
                await _build(connection, server, planned, begun, claimed)
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
    server: Endpoint, migrations: Migrations | None, *, root: Path, preparation: Preparation = NOTHING
) -> AsyncIterator[tuple[Template, Endpoint] | None]:
    """The template of these migrations and this run's own database, if nothing has to be built or claimed for that."""
    settings = preparation.settings if server.provider == "external" else NOTHING.settings
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
    dropping = asyncio.create_task(_drop_orphans(keeper))  # nobody waits for that
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
    server: Endpoint, migrations: Migrations | None, *, root: Path, preparation: Preparation = NOTHING
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
        await _drop_orphans(connection)
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
    return await connection.fetchrow(_LOOK, name, _CLAIM)


def _name(server: Endpoint, digest: str) -> str:
    name = f"atk_template_{digest}"
    if server.provider != "external" and not server.shares:
        return name
    service = f"\0{server.service}" if server.shares else ""
    whose = hashlib.sha256(f"{server.database}\0{server.username}{service}".encode()).hexdigest()[:8]
    return f"{name}_{whose}"


@dataclass(frozen=True, slots=True)
class _Plan:
    """What makes a template."""

    digest: str
    migrations: Migrations | None
    preparation: Preparation
    settings: Mapping[str, str]
    root: Path


@asynccontextmanager
async def _only_builder(server: Endpoint) -> AsyncIterator[None]:
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


async def _build(
    connection: asyncpg.Connection,
    server: Endpoint,
    plan: _Plan,
    begun: Callable[[str], None],
    claimed: Callable[[str], None],
) -> None:
    name = _name(server, plan.digest)
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
            await connection.execute(f'COMMENT ON DATABASE "{name}" IS {_CLAIM!r}')
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


async def _drop_orphans(connection: asyncpg.Connection) -> None:
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
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}"')
        except (asyncpg.ObjectInUseError, asyncpg.InvalidCatalogNameError, asyncpg.InternalServerError):
            # Another run is at it too, or somebody has connected to look into it.
            continue


async def _drop(server: Endpoint, keeper: asyncpg.Connection, name: str) -> None:
    connection = await connect(server) if keeper.is_closed() else keeper
    try:
        await drop(connection, server, name)
    finally:
        connection.terminate()


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
