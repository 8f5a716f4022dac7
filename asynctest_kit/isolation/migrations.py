"""How a service's migrations, and the rows that every test starts with, get into an empty database."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from asynctest_kit.errors import MigrationError
from asynctest_kit.isolation.alembic_process import last_words, open_alembic
from asynctest_kit.isolation.migration_steps import history_of
from asynctest_kit.isolation.postgres import connect
from asynctest_kit.isolation.scripts import run_script
from asynctest_kit.isolation.seeds import load
from asynctest_kit.provision.migration_files import sql_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from asynctest_kit.isolation.migration_steps import Revision
    from asynctest_kit.provision.service import Endpoint
    from asynctest_kit.settings import Migrations

__all__ = ["apply"]


async def apply(
    migrations: Migrations,
    endpoint: Endpoint,
    *,
    root: Path,
    approve: Callable[[Sequence[Revision]], object] | None = None,
) -> None:
    """Bring the empty database of ``endpoint`` up to date, and load its seeds.

    Args:
        migrations: What to apply.
        endpoint: The database.
        root: Where a command runs.
        approve: Is given alembic's history first, and raises if it isn't to be applied.

    Raises:
        MigrationError: They failed; the message ends with their output, passwords starred out.
    """
    if migrations.alembic is not None:
        await _run_alembic(migrations.alembic, endpoint, approve)
    elif migrations.sql is not None:
        await _run_sql(migrations.sql, endpoint)
    elif migrations.command is not None:
        await _run(migrations.command, endpoint, folder=root, environment=dict(os.environ))
    if migrations.seeds:
        await load(migrations.seeds, endpoint)


async def _run_sql(folder: Path, endpoint: Endpoint) -> None:
    files = sql_files(folder)
    if not files:
        raise MigrationError(f"{folder} holds no *.sql file to migrate {endpoint.service} with")

    connection = await connect(endpoint)
    try:
        for path in files:
            await run_script(path, connection, endpoint)
    finally:
        connection.terminate()


async def _run_alembic(ini: Path, endpoint: Endpoint, approve: Callable[[Sequence[Revision]], object] | None) -> None:
    async with open_alembic(ini, endpoint) as alembic:
        if approve is not None:
            approve(await history_of(alembic))
        await alembic.do("upgrade", "heads")
    connection = await connect(endpoint)
    try:
        migrated = await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_class WHERE relkind IN ('r', 'p')"
            " AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)')"
        )
    finally:
        connection.terminate()
    if not migrated:
        raise MigrationError(
            f"alembic with {ini} ended without an error, but {endpoint.service} has no table: env.py migrated another "
            "database. It must take its URL from sqlalchemy.url of its config, or from DATABASE_URL in the environment."
        )


async def _run(command: tuple[str, ...], endpoint: Endpoint, *, folder: Path, environment: Mapping[str, str]) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env={**environment, "DATABASE_URL": endpoint.url},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise MigrationError(f"The migration of {endpoint.service} can't be started: {command[0]}: {error}") from error

    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise MigrationError(
            f"The migration of {endpoint.service} failed: {' '.join(command)} ended with {process.returncode}. "
            f"Its last words:\n{last_words(output, endpoint)}"
        )
