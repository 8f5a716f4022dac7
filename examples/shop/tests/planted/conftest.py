"""A shop that breaks its OpenAPI document in three places: what `atk openapi tests/planted` is to find."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shop import routes


async def list_products(request: Request) -> Response:
    """Fails for the greatest page."""
    limit = request.query_params.get("limit", "20")
    assert 100 - (int(limit) if limit.isdecimal() else 20), "no place is left for what comes next"
    return await routes.list_products(request)


async def delete_user(request: Request) -> Response:
    """Answers with a status that isn't documented."""
    if request.path_params["id"] == "1":
        return Response(status_code=410)
    return await routes.delete_user(request)


async def health(request: Request) -> Response:
    """Answers with a body that isn't as documented."""
    return JSONResponse({"database": "up", "cache": True})


@pytest.fixture
def app(app: Starlette) -> Starlette:
    app.router.routes[:0] = [
        Route("/api/products", list_products, methods=["GET"]),
        Route("/api/users/{id}", delete_user, methods=["DELETE"]),
        Route("/healthz", health, methods=["GET"]),
    ]
    return app
