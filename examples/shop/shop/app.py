"""The ASGI application: routes, error answers and the access log around a :class:`Shop`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from http import HTTPStatus

import httpx
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import Lifespan

from shop import graphql, routes
from shop.access_log import AccessLog
from shop.composition import Shop
from shop.database import Pool
from shop.errors import (
    Conflict,
    Invalid,
    Malformed,
    NotFound,
    PaymentDeclined,
    PaymentFailed,
    PaymentUnavailable,
    ShopError,
    Unavailable,
)
from shop.payments import DEFAULT_POLICY, PaymentPolicy

__all__ = ["create_app", "open_app"]

ROUTES = [*routes.routes, *graphql.routes]

STATUS = {
    Malformed: 400,
    PaymentDeclined: 402,
    NotFound: 404,
    Conflict: 409,
    Invalid: 422,
    PaymentFailed: 502,
    PaymentUnavailable: 503,
    Unavailable: 503,
}


def create_app(
    *,
    pool: Pool,
    redis: Redis,
    http: httpx.AsyncClient,
    cache_ttl: timedelta = timedelta(seconds=60),
    payment_policy: PaymentPolicy = DEFAULT_POLICY,
) -> Starlette:
    """The application over connections that the caller has opened and will close; it needs no lifespan."""
    app = _starlette(None)
    app.state.shop = Shop.compose(pool=pool, redis=redis, http=http, cache_ttl=cache_ttl, payment_policy=payment_policy)
    return app


def open_app(opened: Callable[[], AbstractAsyncContextManager[Shop]]) -> Starlette:
    """The application over a shop that is opened when the server starts and closed when it ends."""

    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with opened() as shop:
            app.state.shop = shop
            yield

    return _starlette(asynccontextmanager(lifespan))


def _starlette(lifespan: Lifespan[Starlette] | None) -> Starlette:
    return Starlette(
        routes=ROUTES,
        middleware=[Middleware(AccessLog)],
        exception_handlers={ShopError: _shop_error, HTTPException: _http_error},
        lifespan=lifespan,
    )


async def _shop_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ShopError)
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    return _answer(status, error.code, error.message, error.fields)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {"allow": _methods(request)} if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED else error.headers
    return _answer(error.status_code, "http", error.detail, {}, headers=headers)


def _methods(request: Request) -> str:
    """All that the path has; Starlette names those of its first route alone."""
    found = [route for route in ROUTES if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in found if isinstance(route, Route) for method in route.methods or ()}))


def _answer(
    status: int, code: str, message: str, fields: Mapping[str, str], *, headers: Mapping[str, str] | None = None
) -> Response:
    content = {"error": {"code": code, "message": message, "fields": dict(fields)}}
    return JSONResponse(content, status_code=status, headers=headers)
