"""How a service's migrations are applied to an empty database, and what tells one state of them from another.

Alembic runs in a process of its own. Its env.py configures logging, reads the environment and may start an event loop:
all of it process-global, and none of it the tests' business. It costs half a second once, on another core.
"""

from __future__ import annotations

import asyncio
import configparser
import hashlib
import os
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote

import asyncpg

from asynctest_kit.errors import MigrationError
from asynctest_kit.isolation.postgres import connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from asynctest_kit.provision.service import Endpoint
    from asynctest_kit.settings import Migrations

__all__ = ["apply", "fingerprint"]

_OUTPUT_LINES = 40


def fingerprint(migrations: Migrations, *, root: Path | None = None) -> str:
    """Return 16 hex digits that change with the content of the migrations.

    What a command reads is unknown: its words count, and the content of the files below ``root`` that they name.

    Raises:
        MigrationError: A file can't be read.
    """
    digest = hashlib.sha256()
    if migrations.command is not None:
        digest.update("\0".join(("command", *migrations.command)).encode())
        for word in migrations.command:
            if root is not None and os.path.isfile(root / word):  # noqa: PTH113  # Path's raises for what can't be one
                digest.update((root / word).read_bytes())
        return digest.hexdigest()[:16]

    try:
        for name, path in _files(migrations):
            digest.update(f"{name}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    except OSError as error:
        raise MigrationError(f"The migrations can't be read: {error}") from error

    return digest.hexdigest()[:16]


async def apply(migrations: Migrations, endpoint: Endpoint, *, root: Path) -> None:
    """Bring the empty database of ``endpoint`` up to date.

    Args:
        migrations: What to apply.
        endpoint: The database.
        root: Where a command runs.

    Raises:
        MigrationError: They failed; the message ends with their output, passwords starred out.
    """
    if migrations.alembic is not None:
        await _run_alembic(migrations.alembic, endpoint)
    elif migrations.sql is not None:
        await _run_sql(migrations.sql, endpoint)
    elif migrations.command is not None:
        await _run(migrations.command, endpoint, folder=root, environment=dict(os.environ))


def _files(migrations: Migrations) -> Iterable[tuple[str, Path]]:
    """Yield every file that the migrations consist of, named relative to its folder, in a fixed order."""
    if migrations.alembic is not None:
        yield migrations.alembic.name, migrations.alembic
        yield from _below(_script_location(migrations.alembic))
    elif migrations.sql is not None:
        yield from ((path.name, path) for path in _sql_files(migrations.sql))


def _below(folder: Path) -> Iterable[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(folder).as_posix(), path


def _script_location(ini: Path) -> Path:
    parser = configparser.RawConfigParser()
    try:
        parser.read(ini, encoding="utf-8")
        location = parser.get("alembic", "script_location")
    except configparser.Error as error:
        raise MigrationError(f"{ini} has no script_location in [alembic]: {error}") from error

    folder = ini.parent / location.replace("%(here)s", str(ini.parent))
    if not folder.is_dir():
        raise MigrationError(f"{ini}: script_location is {location}, but {folder} is not a folder")

    return folder


def _sql_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.sql") if path.is_file())


async def _run_sql(folder: Path, endpoint: Endpoint) -> None:
    files = _sql_files(folder)
    if not files:
        raise MigrationError(f"{folder} holds no *.sql file to migrate {endpoint.service} with")

    connection = await connect(endpoint)
    try:
        for path in files:
            await _run_sql_file(path, connection, endpoint)
    finally:
        connection.terminate()


async def _run_sql_file(path: Path, connection: asyncpg.Connection, endpoint: Endpoint) -> None:
    text = await asyncio.to_thread(path.read_text, encoding="utf-8")
    try:
        await connection.execute(text)
    except asyncpg.PostgresError as error:
        position = getattr(error, "position", None)
        line = f", line {text.count(chr(10), 0, int(position)) + 1}" if position else ""
        raise MigrationError(f"The migration of {endpoint.service} failed in {path}{line}: {error}") from error


async def _run_alembic(ini: Path, endpoint: Endpoint) -> None:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    command = (sys.executable, "-m", "asynctest_kit.isolation.run_alembic", str(ini))
    await _run(command, endpoint, folder=ini.parent, environment={**os.environ, "PYTHONPATH": path})
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
            f"Its last words:\n{_last_words(output, endpoint)}"
        )


def _last_words(output: bytes, endpoint: Endpoint) -> str:
    text = "\n".join(output.decode(errors="replace").splitlines()[-_OUTPUT_LINES:])
    if endpoint.password:
        for secret in {endpoint.password, quote(endpoint.password, safe="")}:
            text = text.replace(secret, "***")
    return text or "(no output)"
