"""A user of a server who may make databases, and what there is to clear up after one."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager

import msgspec

from asynctest_kit.isolation.databases import forced
from asynctest_kit.isolation.postgres import connect


@asynccontextmanager
async def user_of(server, words=""):
    """An endpoint as a URL of others' gives it: of a new user's database; its databases and it are dropped at the end.

    Args:
        server: Where, as one who may make users.
        words: More of what CREATE ROLE says of it.
    """
    name = f"user_{uuid.uuid4().hex[:8]}"
    admin = await connect(server)
    try:
        await admin.execute(f"CREATE ROLE {name} LOGIN CREATEDB PASSWORD 'word' {words}")
        await admin.execute(f"CREATE DATABASE {name} OWNER {name}")
        yield msgspec.structs.replace(
            server, provider="external", database=name, username=name, password="word", socket=""
        )
        for (database,) in await admin.fetch(
            "SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = $1", name
        ):
            await admin.execute(f'ALTER DATABASE "{database}" IS_TEMPLATE false')
            await admin.execute(f'DROP DATABASE "{database}"{forced(admin)}')
        await admin.execute(f"DROP ROLE {name}")
    finally:
        await admin.close()
