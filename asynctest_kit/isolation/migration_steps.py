"""A history of migrations that can be walked, revision by revision: of alembic, or a folder of SQL scripts.

A folder's revisions are its ``NAME.sql`` (or ``NAME.up.sql``), in the order of their names; what undoes one is
``NAME.down.sql``.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from asynctest_kit.errors import MigrationError
from asynctest_kit.isolation.alembic_process import open_alembic
from asynctest_kit.isolation.postgres import connect
from asynctest_kit.isolation.scripts import run_script
from asynctest_kit.provision.migration_files import down_file, revision_of, sql_files

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import asyncpg

    from asynctest_kit.isolation.alembic_process import Alembic
    from asynctest_kit.provision.service import Endpoint
    from asynctest_kit.settings import Migrations

__all__ = ["AlembicSteps", "Revision", "SqlSteps", "Steps", "history_of", "open_steps"]


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of a history.

    Attributes:
        name: As alembic calls it, or the script's without its ending.
        path: The file that makes it.
        undo: The file that undoes it; None if there is none.
        is_head: Whether nothing comes after it.
        labels: Of its branches.
    """

    name: str
    path: Path
    undo: Path | None
    is_head: bool
    labels: tuple[str, ...] = ()


class Steps(Protocol):
    """A history on one database, which is empty at first."""

    @property
    def revisions(self) -> tuple[Revision, ...]:
        """All of them, in an order in which they can be made."""

    @property
    def own_tables(self) -> tuple[str, ...]:
        """Qualified names of tables in which the tool itself keeps what it did."""

    async def up(self, revision: Revision) -> None:
        """Make one revision; those before it have been made."""

    async def down(self, revision: Revision) -> None:
        """Undo one; those after it have been undone."""

    async def up_all(self) -> None:
        """Make what has not been made."""


@asynccontextmanager
async def open_steps(migrations: Migrations, endpoint: Endpoint) -> AsyncIterator[AlembicSteps | SqlSteps | None]:
    """The history on the endpoint's database; None if it is a command's, which nobody knows the steps of.

    Raises:
        MigrationError: It can't be read.
    """
    if migrations.alembic is not None:
        async with open_alembic(migrations.alembic, endpoint) as alembic:
            yield await _alembic_steps(alembic)
    elif migrations.sql is not None:
        connection = await connect(endpoint)
        try:
            yield SqlSteps(_sql_revisions(migrations.sql, endpoint), connection, endpoint)
        finally:
            connection.terminate()
    else:
        yield None


async def history_of(alembic: Alembic) -> tuple[Revision, ...]:
    """Alembic's revisions, in an order in which they can be made.

    Raises:
        MigrationError: There is none.
    """
    folder = alembic.ini.parent
    revisions = tuple(
        Revision(each["name"], folder / each["path"], folder / each["path"], each["is_head"], tuple(each["labels"]))
        for each in await alembic.do("history")
    )
    if not revisions:
        raise MigrationError(f"{alembic.ini}: there is no revision to migrate {alembic.endpoint.service} with")
    return revisions


async def _alembic_steps(alembic: Alembic) -> AlembicSteps:
    return AlembicSteps(await history_of(alembic), alembic, (await alembic.do("table"),))


def _sql_revisions(folder: Path, endpoint: Endpoint) -> tuple[Revision, ...]:
    files = sql_files(folder)
    if not files:
        raise MigrationError(f"{folder} holds no *.sql file to migrate {endpoint.service} with")
    return tuple(Revision(revision_of(path), path, down_file(path), path == files[-1]) for path in files)


@dataclass(frozen=True, slots=True)
class AlembicSteps:
    """Alembic's revisions."""

    revisions: tuple[Revision, ...]
    alembic: Alembic
    own_tables: tuple[str, ...]

    async def up(self, revision: Revision) -> None:
        """Have alembic make it, alone."""
        await self.alembic.do("up", revision.name)

    async def down(self, revision: Revision) -> None:
        """Have alembic undo it, alone."""
        await self.alembic.do("down", revision.name)

    async def up_all(self) -> None:
        """``alembic upgrade heads``."""
        await self.alembic.do("upgrade", "heads")


@dataclass(frozen=True, slots=True)
class SqlSteps:
    """A folder's scripts."""

    revisions: tuple[Revision, ...]
    connection: asyncpg.Connection
    endpoint: Endpoint
    own_tables: tuple[str, ...] = ()

    async def up(self, revision: Revision) -> None:
        """Run its script."""
        await run_script(revision.path, self.connection, self.endpoint)

    async def down(self, revision: Revision) -> None:
        """Run the script that undoes it."""
        if revision.undo is None:
            raise MigrationError(f"Nothing undoes {revision.path}: no {revision.name}.down.sql is beside it")
        await run_script(revision.undo, self.connection, self.endpoint)

    async def up_all(self) -> None:
        """Run all scripts."""
        for revision in self.revisions:
            await self.up(revision)
