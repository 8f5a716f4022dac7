"""Advisory locks of PostgreSQL, as the server tells of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncpg

__all__ = ["HELD_BY_SESSION", "key", "session_locks"]

HELD_BY_SESSION = """
SELECT classid::text, objid::text, objsubid::text FROM pg_locks
WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid() ORDER BY 1, 2
"""

#: In ``pg_locks``: the key was given as two numbers.
_TWO_NUMBERS = 2


def key(classid: int, objid: int, objsubid: int) -> str:
    """A lock's key as it was given, from its row in ``pg_locks``, which has its halves without a sign."""
    if objsubid == _TWO_NUMBERS:
        return f"({classid}, {objid})"
    whole = classid << 32 | objid
    return str(whole - (1 << 64) if whole >= 1 << 63 else whole)


async def session_locks(connection: asyncpg.Connection) -> tuple[str, ...]:
    """The keys of the advisory locks that a session holds; outside a transaction those are the session's own.

    Numbers are read as text, for a user may have given the connection codecs of its own.
    """
    return tuple(key(*map(int, row)) for row in await connection.fetch(HELD_BY_SESSION))
