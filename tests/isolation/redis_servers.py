"""Redis servers of tests, and another run on one."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager

import msgspec
import pytest

from asynctest_kit.provision.providers import Refusal
from asynctest_kit.provision.providers.engine import open_engine
from asynctest_kit.provision.service import ServiceSpec


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
