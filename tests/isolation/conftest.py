from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from asynctest_kit.isolation.connection import SandboxConnection
from asynctest_kit.isolation.pool import SandboxPool
from asynctest_kit.isolation.postgres import open_slots
from asynctest_kit.isolation.templates import ensure_template, open_clone
from asynctest_kit.provision.client import Client
from asynctest_kit.provision.providers import Refusal
from asynctest_kit.provision.providers.engine import open_engine
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


#: Redis in Docker, Valkey from its wheel: they differ in what their users can be told.
@pytest.fixture(scope="session", params=["docker", "embedded"])
async def redis_endpoint(services, request, anyio_backend):
    return await redis_server(services, request.param)


async def redis_server(services, provider, *options):
    """A server of this process's, the same one for the same options."""
    if provider == "docker":
        await _need_docker()
    name = "-".join(["redis", provider, *(option.strip("-") for option in options)])
    image = os.environ.get("ATK_REDIS_IMAGE") or "asynctest-kit/redis:testbed"
    spec = ServiceSpec(name=name, kind="redis", provider=provider, image=image, command=options)
    return await services.endpoint(spec)


HOLDER = """
import asyncio, sys, msgspec
from asynctest_kit.isolation.redis import open_slots
from asynctest_kit.provision.service import Endpoint
async def main():
    endpoint = msgspec.json.decode(sys.argv[1], type=Endpoint)
    async with open_slots(endpoint) as slots, slots.lease() as lease, slots.lease(), slots.lease():
        await lease.client.set("key", "value")
        print(lease.url.rpartition("/")[2], lease.prefix, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    print("over", flush=True)
asyncio.run(main())
"""


@asynccontextmanager
async def other_run(endpoint):
    """A process that holds three databases of a server; the number and the prefix of that in which it has set a key."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HOLDER,
        msgspec.json.encode(endpoint).decode(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        number, prefix = (await process.stdout.readline()).decode().split()
        yield process, number, prefix
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _need_docker():
    try:
        async with open_engine(os.environ):
            pass
    except Refusal as reason:
        pytest.skip(f"no Docker: {reason}")


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
