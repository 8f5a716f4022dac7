"""The application, and what each test does with it; the same for every way to run the tests."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request


def create_app(database: Any) -> Starlette:
    """An application over asyncpg's pool, or a connection."""

    async def show_user(request: Request) -> JSONResponse:
        email = await database.fetchval("SELECT email FROM users WHERE id = $1", request.path_params["user"])
        return JSONResponse({"email": email})

    return Starlette(routes=[Route("/users/{user:int}", show_user)])


@asynccontextmanager
async def open_client(database: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, in this process."""
    transport = httpx.ASGITransport(create_app(database))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        yield client


async def use(pg: Any, redis: Any, client: httpx.AsyncClient) -> None:
    """Insert a user, read it back, set and get a key, call the application, wait."""
    email = f"{uuid4()}@example.com"
    user = await pg.fetchval("INSERT INTO users (email) VALUES ($1) RETURNING id", email)
    assert await pg.fetchval("SELECT email FROM users WHERE id = $1", user) == email
    await redis.set(f"user:{user}", email)
    assert await redis.get(f"user:{user}") == email.encode()
    response = await client.get(f"/users/{user}")
    assert response.json() == {"email": email}
    await asyncio.sleep(0.02)
