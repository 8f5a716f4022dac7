"""What the shop needs of PostgreSQL: a pool shaped like :class:`asyncpg.Pool`, and the URL in SQLAlchemy's dialect."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

__all__ = ["Connection", "Pool", "sqlalchemy_url"]


class Connection(Protocol):
    """The part of :class:`asyncpg.Connection` that the shop uses."""

    async def execute(self, query: str, *args: object) -> str: ...

    async def fetch(self, query: str, *args: object) -> Sequence[Any]: ...

    async def fetchrow(self, query: str, *args: object) -> Any: ...

    async def fetchval(self, query: str, *args: object) -> Any: ...

    def transaction(self) -> AbstractAsyncContextManager[Any]: ...


class Pool(Protocol):
    """The part of :class:`asyncpg.Pool` that the shop uses."""

    def acquire(self) -> AbstractAsyncContextManager[Connection]: ...


def sqlalchemy_url(url: str) -> str:
    """The same database for SQLAlchemy's asyncpg driver; a URL that names another driver is left alone.

    Raises:
        ValueError: It is no PostgreSQL URL.
    """
    parts = urlsplit(url)

    if parts.scheme in {"postgres", "postgresql"}:
        return urlunsplit(parts._replace(scheme="postgresql+asyncpg"))

    if parts.scheme.startswith("postgresql+"):
        return url

    raise ValueError(f"expected a postgresql:// URL, got the scheme {parts.scheme!r}")
