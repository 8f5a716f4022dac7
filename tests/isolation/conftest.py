from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis_servers import redis_server

from asynctest_kit.isolation.connection import SandboxConnection
from asynctest_kit.isolation.pool import SandboxPool
from asynctest_kit.isolation.postgres import open_slots
from asynctest_kit.isolation.templates import ensure_template, open_clone
from asynctest_kit.provision.client import Client
from asynctest_kit.provision.service import ServiceSpec
from asynctest_kit.settings import Migrations

SCHEMA = """
CREATE TABLE notes (id serial PRIMARY KEY, text text NOT NULL UNIQUE);
CREATE TABLE parents (id int PRIMARY KEY);
CREATE TABLE children (
    id int PRIMARY KEY,
    parent int CONSTRAINT children_parent REFERENCES parents DEFERRABLE INITIALLY DEFERRED
);
"""


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def services(tmp_path_factory):
    client = Client.connect(tmp_path_factory.mktemp("project"))
    yield client
    client.close()


def spec(kind):
    return ServiceSpec(name=kind, kind=kind, provider="embedded")


@pytest.fixture(scope="session")
async def server(services, anyio_backend):
    return await services.endpoint(spec("postgres"))


@pytest.fixture(scope="session")
async def two_phased(services, anyio_backend):
    """A server that allows prepared transactions."""
    options = ("-c", "max_prepared_transactions=4")
    return await services.endpoint(
        ServiceSpec(name="two-phased", kind="postgres", provider="embedded", command=options)
    )


#: Redis in Docker, Valkey from its wheel: they differ in what their users can be told.
@pytest.fixture(scope="session", params=["docker", "embedded"])
async def redis_endpoint(services, request, anyio_backend):
    return await redis_server(services, request.param)


@pytest.fixture(scope="session")
async def contained_server(services, anyio_backend):
    return await services.endpoint(contained("postgres"))


def contained(kind):
    """A service in a container; no Docker, no test."""
    image = os.environ.get(f"ATK_{kind.upper()}_IMAGE") or f"asynctest-kit/{kind}:testbed"
    found = shutil.which("docker") and subprocess.run(
        ["docker", "image", "inspect", image], check=False, capture_output=True
    )
    if not found or found.returncode:
        pytest.skip(f"no Docker here has the image {image}")
    return ServiceSpec(name=f"contained-{kind}", kind=kind, provider="docker", image=image)


@pytest.fixture(scope="session")
def migrations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sql")
    (folder / "01_schema.sql").write_text(SCHEMA)
    return Migrations(sql=folder)


@pytest.fixture
async def database(server, migrations, anyio_backend):
    """A migrated database of the test's own, in which tests of the sandbox may even commit."""
    template = await ensure_template(server, migrations, root=Path("/"))
    async with open_clone(template) as endpoint:
        yield endpoint


@pytest.fixture
async def slots(database, anyio_backend):
    async with open_slots(database, limit=16) as slots:
        yield slots


@asynccontextmanager
async def leased(slots):
    """What the fixtures pg and pg_pool give a test."""
    async with slots.lease() as sandbox:
        yield SandboxConnection(sandbox, commits=False), SandboxPool(sandbox)


@pytest.fixture
def lease(slots):
    return lambda: leased(slots)
