"""Production: ``uvicorn --factory shop.main:app``, everything from the environment."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import asyncpg
import httpx
from redis.asyncio import Redis
from starlette.applications import Starlette

from shop.app import open_app
from shop.composition import Shop
from shop.payments import PaymentPolicy
from shop.settings import Settings

__all__ = ["app", "open_shop"]


def app() -> Starlette:
    return open_app(partial(open_shop, Settings.from_environment(os.environ)))


@asynccontextmanager
async def open_shop(settings: Settings) -> AsyncIterator[Shop]:
    """A shop over connections of its own, closed at the end."""
    async with (
        asyncpg.create_pool(settings.database_url, min_size=1, max_size=10) as pool,
        Redis.from_url(settings.redis_url) as redis,
        httpx.AsyncClient(base_url=settings.payments_url, timeout=settings.payments_timeout) as http,
    ):
        yield Shop.compose(
            pool=pool,
            redis=redis,
            http=http,
            channel_prefix=settings.channel_prefix,
            cache_ttl=timedelta(seconds=settings.cache_ttl),
            payment_policy=PaymentPolicy(timeout=settings.payments_timeout),
        )
