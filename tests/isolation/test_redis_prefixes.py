"""Leases on servers without logical databases: a cluster of three, and single servers with one database."""

from __future__ import annotations

import asyncio
import socket

import msgspec
import pytest
import redis.asyncio
from redis.exceptions import NoPermissionError
from redis_servers import other_run, redis_server

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.redis import open_slots
from asynctest_kit.isolation.redis_layout import connected, read_layout

pytestmark = pytest.mark.anyio

_SLOTS = 16384


@pytest.fixture(scope="session", params=["cluster", "docker", "embedded"])
async def endpoint(services, request, anyio_backend):
    """One that a user would give by URL."""
    if request.param == "cluster":
        return await cluster(services)
    server = await redis_server(services, request.param, "--databases", "1")
    return msgspec.structs.replace(server, provider="external", socket="")


async def cluster(services):
    buses = free_ports(3)
    options = ("--cluster-enabled", "yes", "--cluster-port")
    nodes = [await redis_server(services, "embedded", *options, str(bus)) for bus in buses]
    clients = [redis.asyncio.from_url(node.url) for node in nodes]
    for number, client in enumerate(clients):
        first, last = number * _SLOTS // 3, (number + 1) * _SLOTS // 3 - 1
        await client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        await client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        await client.execute_command("ACL SETUSER", "everywhere", "on", ">secret", "~*", "&*", "+@all")
    for node, bus in zip(nodes, buses, strict=True):
        await clients[0].execute_command("CLUSTER MEET", node.host, node.port, bus)
    for client in clients:
        while not await is_whole(client):  # noqa: ASYNC110 (nobody tells of it)
            await asyncio.sleep(0.02)
        await client.aclose()
    # The last one that is asked for is not the one that tells what is leased.
    return msgspec.structs.replace(
        nodes[-1], provider="external", socket="", username="everywhere", password="secret", database=None
    )


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


async def is_whole(client):
    state = await client.execute_command("CLUSTER INFO")
    return state["cluster_state"] == "ok" and int(state["cluster_known_nodes"]) == 3


@pytest.fixture
async def slots(endpoint, anyio_backend):
    async with open_slots(endpoint, limit=8) as slots:
        yield slots


async def test_each_lease_is_empty_and_alone(slots):
    async def case(number):
        async with slots.lease() as lease:
            assert await lease.client.dbsize() == 0
            await lease.client.mset({"one": number, "two": number})
            await asyncio.sleep(0)
            assert sorted(await lease.client.keys()) == [b"one", b"two"]
            return await lease.client.mget("one", "two")

    assert await asyncio.gather(*(case(number) for number in range(32))) == [
        [str(number).encode()] * 2 for number in range(32)
    ]


async def test_commands_and_their_answers_know_no_prefix(slots):
    async with slots.lease() as lease:
        client = lease.client
        await client.set("key", "value")
        await client.rename("key", "other")
        assert await client.exists("other", "key") == 1
        assert await client.randomkey() == b"other"
        assert await client.type("other") == b"string"
        assert await client.object("encoding", "other") == b"embstr"
        await client.rpush("queue", "item")
        assert [*await client.blpop(["none", "queue"], timeout=600)] == [b"queue", b"item"]
        await client.zadd("scores", {"ann": 1})
        await client.zadd("more", {"ann": 2})
        assert await client.zunionstore("sum", ["scores", "more"]) == 1
        assert await client.zscore("sum", "ann") == 3
        await client.xgroup_create("stream", "group", mkstream=True)
        await client.xadd("stream", {"field": "value"})
        read = await client.xreadgroup("group", "me", {"stream": ">"})
        assert [*dict(read)] == [b"stream"]
        assert await client.eval("return {KEYS[1], redis.call('GET', KEYS[1])}", 1, "other") == [b"other", b"value"]
        async with client.pipeline(transaction=True) as pipeline:
            assert await pipeline.set("a", 1).incr("a").mget("a", "other").execute() == [True, 2, [b"2", b"value"]]
        every = sorted([b"a", b"more", b"other", b"scores", b"stream", b"sum"])
        assert sorted([key async for key in client.scan_iter()]) == every
        assert [key async for key in client.scan_iter(match="o*")] == [b"other"]
        assert sorted(await client.keys("s*m")) == [b"stream", b"sum"]
        assert await client.dbsize() == len(every)
        assert await client.flushall()
        assert await client.dbsize() == 0
        assert await client.randomkey() is None


async def test_what_a_prefix_can_not_cover_is_refused(slots):
    async with slots.lease() as lease:
        await lease.client.set("key", "value")
        for command in (("EVAL", "return redis.call('GET', 'key')", 0), ("SORT", "list", "BY", "weight_*")):
            with pytest.raises(redis.exceptions.ResponseError):
                await lease.client.execute_command(*command)


async def test_applications_add_the_prefix(slots):
    with pytest.raises(IsolationError, match="its application was refused the command FLUSHDB"):
        async with slots.lease() as lease, redis.asyncio.from_url(lease.url) as application:
            await application.set(f"{lease.prefix}key", "value")
            assert await lease.client.get("key") == b"value"
            with pytest.raises(NoPermissionError):
                await application.set("key", "value")
            with pytest.raises(NoPermissionError):
                await application.flushdb()


async def test_channels_are_a_tests_own(slots):
    async def case(number):
        async with slots.lease() as lease, lease.client.pubsub() as heard:
            await heard.subscribe("events")
            assert (await anext(heard.listen()))["type"] == "subscribe"
            await gate.wait()
            await lease.client.publish("events", number)
            message = await anext(each async for each in heard.listen() if each["type"] == "message")
            return message["channel"], message["data"]

    gate = asyncio.Barrier(4)
    assert await asyncio.gather(*map(case, range(4))) == [(b"events", str(number).encode()) for number in range(4)]


async def test_data_of_others_stays_and_that_of_a_dead_run_goes(endpoint):
    async with other_run(endpoint) as (dying, _, prefix):
        dying.kill()
        await dying.wait()
    async with connected(endpoint) as server:
        place = (await read_layout(endpoint, server)).rooms[prefix[5:-2]].place
    async with redis.asyncio.from_url(place.url) as owner:
        foreign = f"foreign:{prefix[:-1]}"  # in a cluster in the same slot
        await owner.set(foreign, "value")
        async with open_slots(endpoint, limit=1) as slots, slots.lease():
            pass
        while await owner.exists(f"{prefix}key"):  # where another test beside us was first to sweep, and isn't done
            pass
        assert await owner.get(foreign) == b"value"
        await owner.delete(foreign)


async def test_what_is_missing_is_told(slots):
    assert "prefix of their keys" in slots.shortcoming
    assert "(fixture redis_prefix)" in slots.shortcoming
