"""Small alembic projects, written into a folder."""

from __future__ import annotations

import textwrap

from asynctest_kit.settings import Migrations

INI = """
[alembic]
script_location = %(here)s/migrations
prepend_sys_path = %(here)s
path_separator = os
"""

ASYNC_ENV = """
import asyncio
from alembic import context
from models import metadata
from sqlalchemy.ext.asyncio import async_engine_from_config

def migrate(connection):
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    engine = async_engine_from_config(context.config.get_section("alembic"))
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()

asyncio.run(main())
"""

SYNC_ENV = """
import os
from alembic import context
from models import metadata
from sqlalchemy import engine_from_config

print("what env.py prints is not what it answers")
engine = engine_from_config(context.config.get_section("alembic"))
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, version_table="applied")
    with context.begin_transaction():
        context.run_migrations()
"""

#: Where nobody has installed the driver.
LACKING_ENV = f"import sys; sys.modules['psycopg2'] = None{SYNC_ENV}"

USERS = """
from sqlalchemy import Column, Integer, MetaData, Table, Text
metadata = MetaData()
Table("users", metadata, Column("id", Integer, primary_key=True), Column("name", Text, nullable=False))
"""

REVISION = """
import sqlalchemy as sa
from alembic import op
revision = {name!r}
down_revision = {after!r}

def upgrade():
    {upgrade}

def downgrade():
    {downgrade}
"""


def write(folder, *revisions, env=ASYNC_ENV, models=USERS, url=""):
    """Write a project of revisions, each (name, after, upgrade, downgrade)."""
    (folder / "migrations" / "versions").mkdir(parents=True)
    (folder / "alembic.ini").write_text(f"{INI}sqlalchemy.url = {url}\n" if url else INI)
    (folder / "migrations" / "env.py").write_text(env)
    (folder / "models.py").write_text(models)
    for name, after, upgrade, downgrade in revisions:
        text = textwrap.dedent(REVISION).format(name=name, after=after, upgrade=upgrade, downgrade=downgrade)
        (folder / "migrations" / "versions" / f"{name}.py").write_text(text)
    return Migrations(alembic=folder / "alembic.ini")


def sql(*statements):
    """A body that executes them."""
    return "; ".join(f"op.execute({statement!r})" for statement in statements) or "pass"
