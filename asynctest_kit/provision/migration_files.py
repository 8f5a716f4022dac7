"""The files that a service's migrations consist of, and what tells one state of them from another."""

from __future__ import annotations

import configparser
import hashlib
import os
from typing import TYPE_CHECKING

from asynctest_kit.errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from asynctest_kit.settings import Migrations

__all__ = ["fingerprint", "sql_files"]


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


def sql_files(folder: Path) -> list[Path]:
    """The scripts in a folder, in the order in which they run."""
    return sorted(path for path in folder.glob("*.sql") if path.is_file())


def _files(migrations: Migrations) -> Iterable[tuple[str, Path]]:
    """Yield every file that the migrations consist of, named relative to its folder, in a fixed order."""
    if migrations.alembic is not None:
        yield migrations.alembic.name, migrations.alembic
        yield from _below(_script_location(migrations.alembic))
    elif migrations.sql is not None:
        yield from ((path.name, path) for path in sql_files(migrations.sql))


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
