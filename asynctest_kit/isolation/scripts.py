"""SQL scripts, run on a server as they are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg

from asynctest_kit.errors import MigrationError

if TYPE_CHECKING:
    from pathlib import Path

    from asynctest_kit.provision.service import Endpoint

__all__ = ["execute", "run_script"]


async def execute(text: str, connection: asyncpg.Connection) -> None:
    """Run a script; all of it, or nothing, unless it commits."""
    try:
        await connection.execute(text)
    except AttributeError:
        return  # asyncpg trips over the server's answer to a text without a statement, and is well afterwards


async def run_script(
    path: Path, connection: asyncpg.Connection, endpoint: Endpoint, *, what: str = "migration"
) -> None:
    """Run a script that is a file.

    Raises:
        MigrationError: It failed; the message names the file and, where the server does, the line. Or it has begun a
            transaction and ends in it: what it did would be gone with the connection, and what comes after it.
    """
    text = await asyncio.to_thread(path.read_text, encoding="utf-8")
    try:
        await execute(text, connection)
    except asyncpg.PostgresError as error:
        position = getattr(error, "position", None)
        line = f", line {text.count(chr(10), 0, int(position)) + 1}" if position else ""
        raise MigrationError(f"The {what} of {endpoint.service} failed in {path}{line}: {error}") from error
    if connection.is_in_transaction():
        raise MigrationError(
            f"The {what} of {endpoint.service} in {path} leaves a transaction open, and all that it did would be lost: "
            "it has a BEGIN without a COMMIT. End it, or leave BEGIN away: a script is one transaction by itself."
        )
