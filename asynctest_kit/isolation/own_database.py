"""A database of a test's own, with a connection and a pool: the rung for what one transaction can't do.

Several transactions at once, VACUUM, NOTIFY, a deferred constraint at commit: all of it works, and none of it is seen
by another test. It costs a clone of the template for each test.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from asynctest_kit.isolation.postgres import connect_arguments
from asynctest_kit.isolation.templates import open_clone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctest_kit.isolation.templates import Template
    from asynctest_kit.provision.service import Endpoint

__all__ = ["OwnDatabase", "open_own_database"]


@dataclass(frozen=True, slots=True)
class OwnDatabase:
    """Ordinary access to one database.

    Attributes:
        connection: For the test itself.
        pool: For the code under test.
    """

    connection: asyncpg.Connection
    pool: asyncpg.Pool


@asynccontextmanager
async def open_own_database(template: Template, *, init: Any = None) -> AsyncIterator[OwnDatabase]:
    """Clone the template for one test; at the end its connections are cut and the clone is dropped.

    Args:
        template: What is cloned.
        init: What the application gives ``asyncpg.create_pool`` as ``init``.

    Raises:
        MigrationError: The server's user may not create databases.
    """
    async with open_clone(template) as endpoint:
        pool = await asyncpg.create_pool(**_whereabouts(endpoint), min_size=1, init=init)
        try:
            async with pool.acquire() as connection:
                yield OwnDatabase(connection, pool)
        finally:
            pool.terminate()  # a connection that the test has lost would be waited for


def _whereabouts(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.provider == "external":
        return {"dsn": endpoint.url}  # what its query asks for is the user's to say
    return connect_arguments(endpoint) | {"database": endpoint.database}
