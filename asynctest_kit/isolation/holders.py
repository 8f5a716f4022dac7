"""Who holds how many of a server's connections, asked when it has no more; from any thread, with or without a loop."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from asynctest_kit.isolation.postgres import connect

if TYPE_CHECKING:
    from asynctest_kit.provision.service import Endpoint

__all__ = ["Holders", "Session", "ask"]

#: Seconds that the server has to tell; a superuser still gets in where others are refused.
_PATIENCE = 2.0

_NAME = "atk look at sessions"

_SESSIONS = """
SELECT pid, datname AS database, usename AS username, coalesce(application_name, '') AS application
FROM pg_stat_activity
WHERE datid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend' AND pid <> pg_backend_pid()
"""


@dataclass(frozen=True, slots=True)
class Session:
    """One that is connected, as the server tells of it."""

    pid: int
    database: str
    username: str
    application: str


@dataclass(frozen=True, slots=True)
class Holders:
    """Who is connected to a server.

    Attributes:
        most: How many it takes (``max_connections``).
        sessions: Those that are there.
    """

    most: int
    sessions: tuple[Session, ...]


def ask(endpoint: Endpoint) -> Holders | None:
    """Who holds connections of a server; None if it doesn't tell. Blocks for milliseconds."""
    found: list[Holders] = []

    def run() -> None:
        try:
            found.append(asyncio.run(asyncio.wait_for(_ask(endpoint), _PATIENCE)))
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return

    thread = threading.Thread(target=run, name="asynctest_kit look at sessions")
    thread.start()
    thread.join()
    return found[0] if found else None


async def _ask(endpoint: Endpoint) -> Holders:
    connection = await connect(endpoint, name=_NAME)
    try:
        most = await connection.fetchval("SELECT current_setting('max_connections')::int")
        rows = await connection.fetch(_SESSIONS)
    finally:
        connection.terminate()
    return Holders(most, tuple(Session(**row) for row in rows))
