"""Runs the migrations over asyncpg, on ``sqlalchemy.url`` or else DATABASE_URL; a plain postgresql:// URL will do."""

from __future__ import annotations

import asyncio
import os

from alembic import context
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from shop.database import sqlalchemy_url


def database_url() -> str:
    url = context.config.get_main_option("sqlalchemy.url") or os.environ.get("DATABASE_URL")

    if not url:
        raise SystemExit("set sqlalchemy.url, or DATABASE_URL in the environment")

    return sqlalchemy_url(url)


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=None)

    with context.begin_transaction():
        context.run_migrations()


async def migrate_online() -> None:
    engine = create_async_engine(database_url(), poolclass=NullPool)

    try:
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


def write_sql() -> None:
    context.configure(dialect_name="postgresql", target_metadata=None, literal_binds=True)

    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    write_sql()
else:
    asyncio.run(migrate_online())
