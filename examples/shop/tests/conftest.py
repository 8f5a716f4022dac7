"""The shop over its real PostgreSQL and Redis (``api``, ``pg``, ``pg_pool`` and ``redis`` come from asynctest_kit).

E-mail addresses and SKUs are made unique, because two open transactions that insert the same key wait for each other.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from asynctest_kit.contracts.openapi import ExchangeChecks
from asynctest_kit.http.apps import Served, serve
from asynctest_kit.http.client import Api
from asynctest_kit.provision.service import Endpoint
from payment_provider import PaymentProvider
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from starlette.applications import Starlette

from shop.app import create_app
from shop.cache import Cache
from shop.composition import Shop
from shop.database import Pool
from shop.models import Line, NewProduct, NewUser, Order, OrderRequest, Product, User
from shop.payments import PaymentPolicy

MakeUser = Callable[..., Awaitable[User]]
MakeProduct = Callable[..., Awaitable[Product]]
PlaceOrder = Callable[..., Awaitable[Order]]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """asyncpg needs asyncio; the scope lets fixtures of every scope be async."""
    return "asyncio"


@pytest.fixture(scope="session")
async def silent_provider() -> AsyncIterator[str]:
    """URL of a server that accepts connections, reads, and never answers."""

    async def read_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(read_only, "127.0.0.1", 0)

    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


@pytest.fixture(scope="session")
def no_certificates() -> ssl.SSLContext:
    """Nothing here speaks TLS; httpx would load all certificate authorities for each client of a real network."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture
def payments() -> PaymentProvider:
    return PaymentProvider(latency=0.03)


@pytest.fixture
async def payments_http(payments: PaymentProvider) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the provider; with a transport given, httpx makes no SSL context, which would take tens of ms."""
    transport = httpx.ASGITransport(payments.app)

    async with httpx.AsyncClient(transport=transport, base_url="http://payments.test") as client:
        yield client


@pytest.fixture
def payment_policy() -> PaymentPolicy:
    return PaymentPolicy(timeout=10.0, attempts=3, backoff=0.01)


@pytest.fixture
def cache(redis: Redis) -> Cache:
    return Cache(redis)


@pytest.fixture
async def dead_redis() -> AsyncIterator[Redis]:
    """A Redis that refuses connections: nothing may listen on port 1 of the loopback interface."""
    async with Redis.from_url("redis://127.0.0.1:1", retry=Retry(NoBackoff(), 0)) as client:
        yield client


@pytest.fixture
def shop(pg_pool: Pool, redis: Redis, payments_http: httpx.AsyncClient, payment_policy: PaymentPolicy) -> Shop:
    return Shop.compose(pool=pg_pool, redis=redis, http=payments_http, payment_policy=payment_policy)


@pytest.fixture
def app(pg_pool: Pool, redis: Redis, payments_http: httpx.AsyncClient, payment_policy: PaymentPolicy) -> Starlette:
    """What the fixture ``api`` calls."""
    return create_app(pool=pg_pool, redis=redis, http=payments_http, payment_policy=payment_policy)


@pytest.fixture
def served_shop(pg_database: Endpoint, redis_url: str, redis_prefix: str) -> Callable[..., Served]:
    """The shop as in production, for ``app``: in a process of its own, on a database that is the test's own."""
    environment = {"DATABASE_URL": pg_database, "REDIS_URL": redis_url, "CHANNEL_PREFIX": redis_prefix}
    return lambda **more: serve("shop.main:app", factory=True, env=environment | more, ready="/healthz")


@pytest.fixture
def api(api: Api, openapi: ExchangeChecks) -> Api:
    """The kit's, with every exchange held against ``shop/openapi.json``."""
    openapi.watch(api)
    return api


@pytest.fixture
def unique_email() -> Callable[[], str]:
    return lambda: f"{uuid4().hex}@example.com"


@pytest.fixture
def make_user(shop: Shop, unique_email: Callable[[], str]) -> MakeUser:
    async def make(**values: Any) -> User:
        return await shop.users.create(NewUser(**{"email": unique_email(), "name": "Ada", **values}))

    return make


@pytest.fixture
def make_product(shop: Shop) -> MakeProduct:
    async def make(**values: Any) -> Product:
        defaults = {"sku": f"TEA-{uuid4().hex.upper()}", "name": "Tea", "price_cents": 450, "stock": 10}
        return await shop.products.create(NewProduct(**{**defaults, **values}))

    return make


@pytest.fixture
def place_order(shop: Shop, make_user: MakeUser, make_product: MakeProduct) -> PlaceOrder:
    """Places an order of so many of a product, for a user; both are new unless they are given."""

    async def place(
        *, quantity: int = 2, user: User | None = None, product: Product | None = None, **values: Any
    ) -> Order:
        buyer = user or await make_user()
        goods = product or await make_product(**values)
        line = Line(product_id=goods.id, quantity=quantity)
        return await shop.orders.place(OrderRequest(user_id=buyer.id, lines=(line,)))

    return place
