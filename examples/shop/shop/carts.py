"""Carts, in Redis: what a visitor means to order. Who has a cart's token has the cart; nobody looks after them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
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
            return _cart(await self._redis.hgetall(_key(token)))

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
        """Place an order of what is in it, which leaves it empty; of two at once, one finds it empty."""
        cart = await self._take(token)

        if not cart.lines:
            raise Conflict("the cart is empty")

        try:
            return await self._orders.place(OrderRequest(user_id=user_id, lines=cart.lines))
        except Exception:
            await self._put_back(token, cart)
            raise

    async def _take(self, token: str) -> Cart:
        with _redis_needed():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hgetall(_key(token))
                pipeline.delete(_key(token))
                stored, _ = await pipeline.execute()

        return _cart(stored)

    async def _put_back(self, token: str, cart: Cart) -> None:
        """What the visitor has put into it meanwhile stays."""
        with _redis_needed():
            async with self._redis.pipeline(transaction=True) as pipeline:
                for line in cart.lines:
                    pipeline.hsetnx(_key(token), str(line.product_id), str(line.quantity))

                pipeline.expire(_key(token), self._ttl)
                await pipeline.execute()


def _cart(stored: Mapping[bytes | str, bytes | str]) -> Cart:
    lines = (Line(product_id=int(product_id), quantity=int(quantity)) for product_id, quantity in stored.items())
    return Cart(lines=tuple(sorted(lines, key=lambda line: line.product_id)))


@contextmanager
def _redis_needed() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise Unavailable("there are no carts at the moment") from error


def _key(token: str) -> str:
    return f"cart:{token}"
