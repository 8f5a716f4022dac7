"""Carts, in Redis: what a visitor means to order. Who has a cart's token has the cart; nobody looks after them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shop.errors import Conflict, Unavailable
from shop.models import Cart, Line, Order, OrderRequest
from shop.services import OrderService, ProductService

__all__ = ["Carts"]


class Carts:
    """Carts by their tokens, each forgotten ``ttl`` after it was last changed."""

    def __init__(
        self, redis: Redis, products: ProductService, orders: OrderService, *, ttl: timedelta = timedelta(days=7)
    ) -> None:
        self._redis = redis
        self._products = products
        self._orders = orders
        self._ttl = ttl

    @staticmethod
    def new_token() -> str:
        return secrets.token_hex(16)

    async def get(self, token: str) -> Cart:
        """An unknown token is that of an empty cart."""
        with _redis_needed():
            stored = await self._redis.hgetall(_key(token))

        lines = (Line(product_id=int(product_id), quantity=int(quantity)) for product_id, quantity in stored.items())
        return Cart(lines=tuple(sorted(lines, key=lambda line: line.product_id)))

    async def put(self, token: str, line: Line) -> Cart:
        """So many of a product instead of what there were; none takes it out."""
        await self._products.get(line.product_id)
        cart = (await self.get(token)).with_line(line)

        if len(cart.lines) > Cart.MAX_LINES:
            raise Conflict(f"a cart holds {Cart.MAX_LINES} products at most")

        with _redis_needed():
            async with self._redis.pipeline(transaction=True) as pipeline:
                if line.quantity:
                    pipeline.hset(_key(token), str(line.product_id), str(line.quantity))
                else:
                    pipeline.hdel(_key(token), str(line.product_id))

                pipeline.expire(_key(token), self._ttl)
                await pipeline.execute()

        return cart

    async def order(self, token: str, user_id: int) -> Order:
        """Place an order of what is in it, which leaves it empty."""
        cart = await self.get(token)

        if not cart.lines:
            raise Conflict("the cart is empty")

        order = await self._orders.place(OrderRequest(user_id=user_id, lines=cart.lines))

        with _redis_needed():
            await self._redis.delete(_key(token))

        return order


@contextmanager
def _redis_needed() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise Unavailable("there are no carts at the moment") from error


def _key(token: str) -> str:
    return f"cart:{token}"
