"""Leased logical databases on a real server."""

from __future__ import annotations

import asyncio
import sys
import uuid

import msgspec
import pytest
import redis.asyncio
from redis.exceptions import RedisError

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.redis import open_slots
from asynctest_kit.provision.service import ServiceSpec

pytestmark = pytest.mark.anyio


@pytest.fixture
async def endpoint(services, anyio_backend):
    """A server of the test's own, with few databases, so that they run out."""
    name = f"redis-{uuid.uuid4().hex}"
    spec = ServiceSpec(name=name, kind="redis", provider="embedded", command=("--databases", "4"))
    return await services.endpoint(spec)


@pytest.fixture
async def slots(redis_endpoint, anyio_backend):
    async with open_slots(redis_endpoint, limit=8) as slots:
        yield slots


def external(endpoint, **changes):
    return msgspec.structs.replace(endpoint, provider="external", **changes)


async def test_each_lease_is_empty_and_alone(slots):
    async def case(number):
        async with slots.lease() as lease:
            assert await lease.client.dbsize() == 0
            await lease.client.set("key", number)
            await asyncio.sleep(0)
            return int(await lease.client.get("key"))

    assert await asyncio.gather(*(case(number) for number in range(64))) == list(range(64))


async def test_client_speaks_bytes(slots):
    async with slots.lease() as lease:
        await lease.client.set("key", "value")
        assert await lease.client.get("key") == b"value"


async def test_url_is_the_same_database(slots):
    async with slots.lease() as lease:
        async with redis.asyncio.from_url(lease.url) as application:
            await application.set("key", "value")
        assert await lease.client.exists("key")
        url = lease.url
    async with redis.asyncio.from_url(url) as application:
        assert await application.dbsize() == 0


async def test_only_the_url_used(slots):
    async with slots.lease() as lease:
        url = lease.url
        async with redis.asyncio.from_url(url) as application:
            await application.set("key", "value")
    async with redis.asyncio.from_url(url) as application:
        assert await application.dbsize() == 0


async def test_connection_is_held(slots):
    ids = set()
    for _ in range(3):
        async with slots.lease() as lease:
            ids.add(await lease.client.client_id())
    assert len(ids) == 1


async def test_many_connections_of_one_test(slots):
    async with slots.lease() as lease:
        waiting = asyncio.ensure_future(lease.client.blpop("queue", timeout=10))
        await asyncio.gather(*(lease.client.incr("count") for _ in range(9)))
        await lease.client.rpush("queue", "item")
        assert (await waiting)[1] == b"item"
        async with lease.client.pipeline() as pipeline:
            assert await pipeline.set("a", 1).get("a").execute() == [True, b"1"]


async def test_leaked_connections_are_closed(slots):
    async with slots.lease() as lease:
        blocked = asyncio.ensure_future(lease.client.blpop("queue", timeout=30))
        subscriber = lease.client.pubsub()
        await subscriber.subscribe("channel")
        await asyncio.sleep(0.05)
        client = lease.client
    with pytest.raises((IsolationError, RedisError)):
        await blocked
    with pytest.raises((IsolationError, RedisError)):
        while True:
            await subscriber.get_message(timeout=1)
    with pytest.raises(IsolationError, match="a test that has ended"):
        await client.get("key")
    async with slots.lease() as lease:
        await lease.client.rpush("queue", "item")
        assert await lease.client.llen("queue") == 1


@pytest.mark.parametrize("command", ["SELECT 0", "SWAPDB 0 1", "MOVE key 0", "RESET", "SHUTDOWN"])
async def test_what_leaves_the_database_is_refused(slots, command):
    async with slots.lease() as lease:
        with pytest.raises(IsolationError, match="would leave this test's logical database"):
            await lease.client.execute_command(*command.split())
        async with lease.client.pipeline() as pipeline:
            pipeline.execute_command(*command.split())
            with pytest.raises(IsolationError, match="would leave"):
                await pipeline.execute()
        assert await lease.client.ping()


async def test_flushall_spares_the_others(slots):
    async with slots.lease() as one, slots.lease() as other:
        await other.client.set("key", "value")
        await one.client.set("key", "value")
        await one.client.flushall()
        assert await one.client.dbsize() == 0
        assert await other.client.dbsize() == 1


async def test_killed_connection_does_not_harm_the_next_lease(slots):
    async with slots.lease() as lease:
        await lease.client.set("key", "value")
        number = await lease.client.client_id()
        async with slots.lease() as killer:
            await killer.client.client_kill_filter(_id=number)
    async with slots.lease() as lease:
        assert await lease.client.dbsize() == 0


async def test_waits_for_a_local_release(endpoint):
    async with open_slots(endpoint) as slots:

        async def case():
            async with slots.lease() as lease:
                return await lease.client.incr("count")

        assert await asyncio.gather(*(case() for _ in range(20))) == [1] * 20


async def test_leases_exclude_other_processes(endpoint):
    script = """
import asyncio, sys, msgspec
from asynctest_kit.isolation.redis import open_slots
from asynctest_kit.provision.service import Endpoint
async def main():
    endpoint = msgspec.json.decode(sys.argv[1], type=Endpoint)
    async with open_slots(endpoint) as slots, slots.lease(), slots.lease(), slots.lease(), slots.lease():
        print("leased", flush=True)
        sys.stdin.read()
asyncio.run(main())
"""
    other = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        msgspec.json.encode(endpoint).decode(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert await other.stdout.readline() == b"leased\n"
    async with open_slots(endpoint) as slots:
        with pytest.raises(IsolationError, match=r"of its 4, 4 are leased by other processes.*--databases"):
            async with slots.lease():
                pass
        other.kill()
        await other.communicate()
        async with slots.lease() as lease:
            assert await lease.client.ping()


async def test_servers_of_others_keep_their_data(endpoint):
    async with redis.asyncio.from_url(endpoint.url) as owner:
        await owner.set("in 0", 1)
        await owner.execute_command("SELECT", 1)
    async with redis.asyncio.from_url(msgspec.structs.replace(endpoint, database="1").url) as owner:
        await owner.set("in 1", 1)
        async with open_slots(external(endpoint)) as slots:
            async with slots.lease() as one, slots.lease() as other:
                await one.client.set("key", 1)
                assert {one.url[-1], other.url[-1]} == {"2", "3"}
            assert await owner.get("in 1") == b"1"
        await owner.flushall()


async def test_what_a_dead_run_left_is_flushed(endpoint):
    script = """
import asyncio, os, sys, msgspec
from asynctest_kit.isolation.redis import open_slots
from asynctest_kit.provision.service import Endpoint
async def main():
    endpoint = msgspec.json.decode(sys.argv[1], type=Endpoint)
    async with open_slots(endpoint) as slots, slots.lease() as lease:
        await lease.client.set("key", "value")
        print(lease.url, flush=True)
        os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    given = external(endpoint)
    dying = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, msgspec.json.encode(given).decode(), stdout=asyncio.subprocess.PIPE
    )
    url, _ = await dying.communicate()
    async with open_slots(given) as slots, slots.lease() as lease:
        assert lease.url == url.decode().strip()
        assert await lease.client.dbsize() == 0


async def test_an_open_multi_does_not_reach_the_next_lease(redis_endpoint):
    async with open_slots(redis_endpoint, limit=1) as slots:
        async with slots.lease() as lease:
            await lease.client.set("key", 1)
            await lease.client.execute_command("MULTI")
        async with slots.lease() as lease:
            assert await lease.client.get("key") is None
            assert await lease.client.set("key", 2) is True
