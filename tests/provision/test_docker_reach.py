"""Containers that share a unix socket with us and have no network, and engines with which that can't be."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from secrets import token_hex
from types import SimpleNamespace

import asyncpg
import pytest
from provision_traces import SESSION, order_of, spec_of
from redis.asyncio import Redis

from asynctest_kit.containers import Port
from asynctest_kit.isolation import postgres as postgres_slots
from asynctest_kit.provision.providers import docker_reach
from asynctest_kit.provision.providers.docker import Docker
from asynctest_kit.provision.providers.docker_reach import Places, Published, is_within_reach
from asynctest_kit.provision.providers.engine import Engine, EngineError

pytestmark = pytest.mark.anyio


@pytest.fixture
def sockets():
    """A private folder with a short path; nothing is left in it."""
    with tempfile.TemporaryDirectory(prefix="atk") as folder:
        yield Path(folder)
        assert list(Path(folder).iterdir()) == []


@pytest.fixture
async def docker(engine, sockets):
    async with Docker(session=token_hex(6), project="tests", sockets=sockets) as provider:
        yield provider


async def network_of(engine, docker):
    ((container, _),) = await engine.labelled(f"{SESSION}={docker._labels[SESSION]}")
    return (await engine.inspect(container))["HostConfig"]["NetworkMode"]


async def test_postgres_is_reached_by_its_socket_and_by_tcp_and_wants_its_password_on_both(engine, docker):
    order = order_of(spec_of("postgres"))
    order.may_keep = False
    async with docker.give(order) as running:
        endpoint = running.endpoint
        by_socket = await postgres_slots.connect(endpoint)
        by_tcp = await asyncpg.connect(endpoint.url)
        for connection in (by_socket, by_tcp):
            assert await connection.fetchval("SELECT inet_client_addr()") is None
            await connection.close()
        arguments = postgres_slots.connect_arguments(endpoint)
        for place in (arguments, {"host": endpoint.host, "port": endpoint.port}):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(**arguments | place | {"password": "guessed"})
        assert await network_of(engine, docker) == "none"


async def test_redis_is_reached_by_its_socket_and_by_tcp(engine, docker):
    async with docker.give(order_of(spec_of("redis"))) as running:
        endpoint = running.endpoint
        async with Redis(unix_socket_path=endpoint.socket, password=endpoint.password) as by_socket:
            await by_socket.set("key", "value")
        async with Redis.from_url(endpoint.url) as by_tcp:
            assert await by_tcp.get("key") == b"value"
        assert await network_of(engine, docker) == "none"


async def test_an_engine_that_refuses_to_share_publishes_a_port(engine, docker, monkeypatch):
    monkeypatch.setattr(docker_reach, "SOCKETS", "no absolute path")
    async with docker.give(order_of(spec_of("redis"))) as running:
        assert running.endpoint.socket == ""
        async with Redis.from_url(running.endpoint.url) as by_tcp:
            assert await by_tcp.ping()
        assert await network_of(engine, docker) != "none"


async def test_an_engine_that_tells_addresses_by_network_alone_serves(engine, monkeypatch):
    """As Docker 29 does."""
    inspect = Engine.inspect

    async def inspect_without(self, name):
        found = await inspect(self, name)
        for removed in ("IPAddress", "Gateway"):
            found["NetworkSettings"].pop(removed, None)
        return found

    monkeypatch.setattr(Engine, "inspect", inspect_without)
    async with (
        Docker(session=token_hex(6), project="tests") as docker,
        docker.give(order_of(spec_of("redis"))) as running,
        Redis.from_url(running.endpoint.url) as redis,
    ):
        assert await redis.ping()
        ((container, _),) = await engine.labelled(f"{SESSION}={docker._labels[SESSION]}")
        places = await Published({"": Port(6379, "redis")}).places(engine, container)
        assert places.direct()[""].host == (await running.inside()).host


@pytest.mark.parametrize(("gateway", "is_near"), [("127.0.0.1", True), ("203.0.113.1", False), ("", False)])
async def test_a_container_is_reached_directly_behind_a_gateway_of_ours_alone(gateway, is_near):
    places = Places(host="127.0.0.1", published={"": 1}, ports={"": 2}, inside="172.17.0.9", gateway=gateway)
    assert bool(places.direct()) is is_near


@pytest.fixture
def listening(sockets):
    """The URL of a socket at which a process of this machine listens: this one."""
    with tempfile.TemporaryDirectory(prefix="atk") as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/engine")
        listener.listen()
        yield f"unix://{folder}/engine"


def engine_with(kernel=None, gateway="127.0.0.1"):
    async def tell_kernel():
        return os.uname().release if kernel is None else kernel

    async def tell_gateways():
        if gateway is None:
            raise EngineError("there is no network called bridge")
        return [gateway]

    return SimpleNamespace(kernel=tell_kernel, bridge_gateways=tell_gateways)


async def test_an_engine_on_this_machine_is_within_reach(listening, sockets):
    assert await is_within_reach(engine_with(), listening, sockets)


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(engine_with(kernel="6.6.0-linuxkit"), id="in a virtual machine"),
        pytest.param(engine_with(gateway="203.0.113.1"), id="in another network namespace"),
        pytest.param(engine_with(gateway="2001:db8::1"), id="in another network namespace, IPv6"),
        pytest.param(engine_with(gateway=None), id="without a bridge"),
    ],
)
async def test_an_engine_elsewhere_is_not(engine, listening, sockets):
    assert not await is_within_reach(engine, listening, sockets)


async def test_nor_is_one_that_is_asked_by_tcp_or_has_gone_or_whose_sockets_had_too_long_paths(listening, sockets):
    assert not await is_within_reach(engine_with(), "tcp://127.0.0.1:2375", sockets)
    assert not await is_within_reach(engine_with(), "unix:///nobody/listens", sockets)
    assert not await is_within_reach(engine_with(), listening, sockets / ("d" * 60))
