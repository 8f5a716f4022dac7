"""A Redis server of one test's own: the rung for what reaches beyond a logical database."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.asyncio import ConnectionPool, Redis

from asynctest_kit.isolation.redis_client import connection_class
from asynctest_kit.isolation.redis_layout import options_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctest_kit.provision.service import Endpoint

__all__ = ["OwnRedis", "open_own_redis"]


@dataclass(frozen=True, slots=True)
class OwnRedis:
    """All of a server, as its own user.

    Attributes:
        client: For the test itself.
        url: For applications that make their own client, password included.
        prefix: What their channels begin with: nothing, for nobody else is there.
    """

    client: Redis
    url: str
    prefix: str = ""

    def __repr__(self) -> str:
        return "<OwnRedis>"


@asynccontextmanager
async def open_own_redis(endpoint: Endpoint) -> AsyncIterator[OwnRedis]:
    """Connect to a server that is one test's own."""
    pool = ConnectionPool(connection_class=connection_class(endpoint, guarded=False), **options_of(endpoint))
    async with Redis.from_pool(pool) as client:
        yield OwnRedis(client, endpoint.url)
