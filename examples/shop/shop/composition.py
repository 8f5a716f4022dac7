"""The shop's parts, put together over the connections that it is given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import asyncpg
import httpx
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shop.cache import Cache
from shop.carts import Carts
from shop.database import Pool
from shop.news import News
from shop.payments import DEFAULT_POLICY, PaymentPolicy, Payments
from shop.services import OrderService, ProductService, UserService

__all__ = ["Shop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """All use cases. Whoever opened ``pool`` and ``redis`` closes them."""

    users: UserService
    products: ProductService
    orders: OrderService
    carts: Carts
    pool: Pool
    redis: Redis

    @classmethod
    def compose(  # noqa: PLR0913  # the shop's surroundings
        cls,
        *,
        pool: Pool,
        redis: Redis,
        http: httpx.AsyncClient,
        channel_prefix: str = "",
        cache_ttl: timedelta = timedelta(seconds=60),
        payment_policy: PaymentPolicy = DEFAULT_POLICY,
    ) -> Shop:
        cache, news = Cache(redis, ttl=cache_ttl), News(redis, prefix=channel_prefix)
        products = ProductService(pool, cache, news)
        orders = OrderService(pool, products, news, Payments(http, payment_policy))
        return cls(
            users=UserService(pool, cache),
            products=products,
            orders=orders,
            carts=Carts(redis, products, orders),
            pool=pool,
            redis=redis,
        )

    async def health(self) -> dict[str, str]:
        """Which dependencies answer. The shop works without its cache, not without its database."""
        return {"database": await self._database(), "cache": await self._cache()}

    async def _database(self) -> str:
        try:
            async with self.pool.acquire() as connection:
                await connection.fetchval("SELECT 1")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return "down"

        return "up"

    async def _cache(self) -> str:
        try:
            await self.redis.ping()
        except RedisError:
            return "down"

        return "up"
