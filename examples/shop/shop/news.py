"""News over Redis's channels: who changes something and who watches it may be different processes of the shop.

Nothing is kept: a listener hears what is told from then on. So it listens first, and reads what is stored then. Like
the cache, news are an optimisation: with Redis down they aren't told, and a line is in the log.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from shop.errors import Unavailable

__all__ = ["News"]

log = structlog.get_logger(__name__)


class News:
    """JSON objects by channel.

    Channels are a whole server's, whatever the database: shops that share one are told apart by ``prefix``.
    """

    def __init__(self, redis: Redis, *, prefix: str = "") -> None:
        self._redis = redis
        self._prefix = prefix

    async def tell(self, channel: str, news: Mapping[str, Any]) -> None:
        try:
            await self._redis.publish(self._prefix + channel, json.dumps(news))
        except RedisError as error:
            log.warning("news.tell", channel=channel, error=str(error))

    @asynccontextmanager
    async def of(self, channel: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """What is told from the moment on at which this is entered.

        Raises:
            Unavailable: Redis doesn't answer.
        """
        try:
            async with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
                await subscription.subscribe(self._prefix + channel)
                await subscription.get_message(timeout=None)  # Redis has confirmed it
                yield _heard(subscription)
        except RedisError as error:
            raise Unavailable("there are no news at the moment") from error


async def _heard(subscription: PubSub) -> AsyncIterator[dict[str, Any]]:
    async for message in subscription.listen():
        yield json.loads(message["data"])
