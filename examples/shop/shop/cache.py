"""Cache-aside over Redis: a reader that misses loads and stores, a writer deletes after its commit.

The cache is an optimisation, so a Redis that is down is a miss and a line in the log, never an error for the client.
A reader that loaded before a write may store after it; the entry's time to live bounds how long that is seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

__all__ = ["Cache"]

log = structlog.get_logger(__name__)


class Cache:
    """JSON objects by key, each forgotten ``ttl`` after it was stored."""

    def __init__(self, redis: Redis, *, ttl: timedelta = timedelta(seconds=60)) -> None:
        self._redis = redis
        self._ttl = ttl

    async def get(self, key: str) -> dict[str, Any] | None:
        try:
            stored = await self._redis.get(key)
        except RedisError as error:
            log.warning("cache.get", key=key, error=str(error))
            return None

        return None if stored is None else json.loads(stored)

    async def put(self, key: str, value: Mapping[str, Any]) -> None:
        try:
            await self._redis.set(key, json.dumps(value), px=self._ttl)
        except RedisError as error:
            log.warning("cache.put", key=key, error=str(error))

    async def forget(self, *keys: str) -> None:
        try:
            await self._redis.delete(*keys)
        except RedisError as error:
            log.warning("cache.forget", keys=keys, error=str(error))
