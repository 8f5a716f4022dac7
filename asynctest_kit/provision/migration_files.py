"""The files that a service's migrations consist of, and what tells one state of them from another."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import re
from typing import TYPE_CHECKING

from asynctest_kit.errors import MigrationError
from asynctest_kit.settings import SEED_ENDINGS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from asynctest_kit.settings import Migrations, Preparation

__all__ = ["digest_of", "down_file", "fingerprint", "revision_of", "seed_files", "sql_files"]

_DOWN = ".down.sql"


def fingerprint(migrations: Migrations, *, root: Path | None = None) -> str:
    """Return 16 hex digits that change with the content of the migrations.

    What a command reads is unknown: its words count, and the content of the files below ``root`` that they name.

    Raises:
        MigrationError: A file can't be read.
    """
    digest = hashlib.sha256()
    try:
        if migrations.command is not None:
            digest.update("\0".join(("command", *migrations.command)).encode())
        for name, path in _files(migrations, root):
            digest.update(f"{name}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    except OSError as error:
        raise MigrationError(f"The migrations can't be read: {error}") from error

    return digest.hexdigest()[:16]


def digest_of(migrations: Migrations | None, preparation: Preparation, *, root: Path | None = None) -> str:
    """What tells one template from another: the migrations, and what comes before them; empty if there is none.

    Raises:
        MigrationError: A file can't be read.
    """
    if migrations is None and not preparation.extensions:
        return ""
    found = "" if migrations is None else fingerprint(migrations, root=root)
    if not preparation.given:
        return found
    before = [list(preparation.extensions), dict(preparation.roles), dict(preparation.settings)]
    return hashlib.sha256(f"{found}\0{json.dumps(before)}".encode()).hexdigest()[:16]


def sql_files(folder: Path) -> list[Path]:
    """The scripts in a folder, in the order in which they run, without those that undo others."""
    return sorted(path for path in folder.glob("*.sql") if path.is_file() and not path.name.endswith(_DOWN))


def revision_of(path: Path) -> str:
    """What a script's revision is called: its name without ``.sql`` or ``.up.sql``."""
    return path.name.removesuffix(".sql").removesuffix(".up")


def down_file(path: Path) -> Path | None:
    """The script that undoes another, if there is one."""
    down = path.with_name(f"{revision_of(path)}{_DOWN}")
    return down if down.is_file() else None


def seed_files(seeds: Iterable[Path]) -> list[Path]:
    """The files that are loaded, in this order; those of a folder by name."""
    found: list[Path] = []
    for seed in seeds:
        inside = sorted(path for path in seed.glob("*") if path.suffix in SEED_ENDINGS) if seed.is_dir() else [seed]
        found += inside
    return found


def _files(migrations: Migrations, root: Path | None) -> Iterable[tuple[str, Path]]:
    """Yield every file that the migrations consist of, named relative to its folder, in a fixed order."""
    if migrations.alembic is not None:
        yield migrations.alembic.name, migrations.alembic
        for folder in _script_folders(migrations.alembic):
            yield from _below(folder)
    elif migrations.sql is not None:
        yield from ((path.name, path) for path in sql_files(migrations.sql))
    elif migrations.command is not None and root is not None:
        for word in migrations.command:
            if os.path.isfile(root / word):  # noqa: PTH113  # Path's raises for what can't be one
                yield word, root / word
    yield from ((f"seed {path.name}", path) for path in seed_files(migrations.seeds))


def _below(folder: Path) -> Iterable[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(folder).as_posix(), path


def _script_folders(ini: Path) -> list[Path]:
    """Where env.py is, and where else the settings say that revisions are."""
    parser = configparser.RawConfigParser()
    try:
        parser.read(ini, encoding="utf-8")
        location = parser.get("alembic", "script_location")
    except configparser.Error as error:
        raise MigrationError(f"{ini} has no script_location in [alembic]: {error}") from error

    folder = _placed(ini, location)
    if not folder.is_dir():
        raise MigrationError(f"{ini}: script_location is {location}, but {folder} is not a folder")

    versions = re.split(r"[\s,;]+|:(?!/)", parser.get("alembic", "version_locations", fallback=""))
    others = [_placed(ini, version) for version in versions if version]
    return [folder, *(other for other in others if other.is_dir() and not other.is_relative_to(folder))]


def _placed(ini: Path, location: str) -> Path:
    return ini.parent / location.replace("%(here)s", str(ini.parent))
