"""The docker provider on a real engine."""

from __future__ import annotations

import asyncio
from secrets import token_hex

import asyncpg
import pytest
from provision_traces import IMAGES, SESSION, order_of, spec_of
from redis.asyncio import Redis

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.identity import Identity, this_process
from asynctest_kit.provision.providers import Refusal, docker_reach
from asynctest_kit.provision.providers import docker as docker_provider
from asynctest_kit.provision.providers.docker import Docker
from asynctest_kit.provision.providers.engine import EngineError
from asynctest_kit.provision.readiness import Address, RejectedError
from asynctest_kit.provision.readiness.redis import RedisHandshake
from asynctest_kit.provision.service import Program

pytestmark = pytest.mark.anyio


@pytest.fixture
async def docker(engine):
    async with Docker(session=token_hex(6), project="tests") as provider:
        yield provider


async def ours(engine, docker):
    return await engine.labelled(f"{SESSION}={docker._labels[SESSION]}")


async def test_postgres_serves_and_leaves_nothing(engine, docker):
    phases = []
    async with docker.give(order_of(spec_of("postgres"), phases)) as running:
        connection = await asyncpg.connect(running.endpoint.url)
        assert await connection.fetchval("SHOW fsync") == "off"
        assert await connection.fetchval("SHOW autovacuum") == "off"
        assert await connection.fetchval("SHOW max_connections") == "200"
        await connection.close()
        assert IMAGES["postgres"] in running.endpoint.detail
    assert await ours(engine, docker) == []
    assert [phase.phase for phase in phases if phase.phase != "snapshot"] == [
        "resolve",
        "create",
        "boot",
        "ready",
        "remove",
    ]


async def test_redis_serves_many_databases_and_wants_its_password(docker):
    async with docker.give(order_of(spec_of("redis"))) as running:
        async with Redis.from_url(running.endpoint.url.replace("/0", "/255")) as redis:
            assert await redis.ping()
        with pytest.raises(RejectedError, match="NOAUTH"):
            await RedisHandshake().attempt(Address(host=running.endpoint.host, port=running.endpoint.port))


async def test_no_secret_is_on_a_command_line_and_redis_s_is_nowhere(engine, docker):
    everything = Program(argv=("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"))
    for kind, server in {"redis": "redis-server", "postgres": "fsync=off"}.items():
        async with docker.give(order_of(spec_of(kind))) as running:
            words = []

            async def take(output, words=words):
                words.append(output.data)

            assert await running.run(everything, take) == 0
            text = b"".join(words).decode()
            assert server in text  # the server's own is among them, and the switch's before it
            assert running.endpoint.password not in text
            inspected = await engine.inspect(running.endpoint.detail.rpartition(" in ")[2])
            assert (running.endpoint.password in str(inspected)) is (kind == "postgres")


@pytest.mark.once
@pytest.mark.parametrize(
    ("kind", "argv", "answer"),
    [
        ("postgres", ("psql", "-U", "postgres", "-tAc", "SELECT 1"), b"1\n"),
        ("redis", ("redis-cli", "ping"), b"PONG\n"),
    ],
)
async def test_the_image_s_own_clients_know_the_password(docker, kind, argv, answer):
    async with docker.give(order_of(spec_of(kind))) as running:
        words = []

        async def take(output):
            words.append(output.data)

        assert await running.run(Program(argv=argv), take) == 0, words
        assert b"".join(words) == answer
        secret = {"PGPASSWORD": "wrong", "REDISCLI_AUTH": "wrong"}  # the user's own words come last
        words.clear()
        await running.run(Program(argv=argv, environment=secret), take)
        assert b"".join(words) != answer


async def test_a_container_is_private_and_says_whose_it_is(engine, docker):
    async with docker.give(order_of(spec_of("redis", name="the-cache"))):
        [(container, labels)] = await ours(engine, docker)
        inspected = await engine.inspect(container)
        bindings = inspected["NetworkSettings"]["Ports"]["6379/tcp"]
        assert {binding["HostIp"] for binding in bindings} == {"127.0.0.1"}
        assert inspected["HostConfig"]["Privileged"] is False
        assert inspected["HostConfig"]["Tmpfs"] == {"/data": "rw"}
        assert inspected["Name"].startswith("/asynctest_kit-the-cache-")
        assert labels["asynctest_kit.service"] == "the-cache"
        assert labels["asynctest_kit.project"] == "tests"
        assert labels["asynctest_kit.pid"] == str(this_process().pid)


async def test_a_container_that_ends_at_once_is_shown_with_its_last_words(engine, docker):
    order = order_of(spec_of("redis", command=("--no-such-option", "1")))
    with pytest.raises(ProvisionError, match="ended with exit code 1") as caught:
        async with docker.give(order):
            pass
    message = str(caught.value)
    assert IMAGES["redis"] in message
    assert "no-such-option" in message
    assert order.login.password not in message
    assert await ours(engine, docker) == []


@pytest.mark.once
async def test_a_time_out_names_what_it_waited_for(engine, docker):
    for seconds in (2, 8, 30):  # on a busy machine it takes that long to say its first words
        order = order_of(spec_of("redis", command=("--port", "1234"), startup_timeout=float(seconds)))
        with pytest.raises(ProvisionError) as caught:
            async with docker.give(order):
                pass
        message = str(caught.value)
        assert f"not ready within {seconds} s: waited for Redis to take its password" in message
        assert await ours(engine, docker) == []
        if "It wrote no log" not in message:
            break
    assert "Its last words" in message


async def test_a_port_that_is_open_to_others_is_an_error_and_no_refusal(engine, docker, monkeypatch):
    monkeypatch.setattr(docker_reach, "HOST", "256.0.0.1")
    with pytest.raises(ProvisionError, match=r"Docker could not start the service 'redis'.* published port 6379 on"):
        async with docker.give(order_of(spec_of("redis"))):
            pass
    assert await ours(engine, docker) == []


async def test_a_missing_image_is_a_refusal_with_its_name_and_cause(docker):
    phases = []
    order = order_of(spec_of("redis", image="localhost:1/no/such:image"), phases)
    with pytest.raises(
        Refusal, match=r"the image localhost:1/no/such:image is not there and can't be pulled from localhost:1: .+"
    ):
        async with docker.give(order):
            pass
    assert [phase.phase for phase in phases] == ["resolve", "pull"]


@pytest.mark.parametrize(
    "moment", [0.0, 0.03, 0.3, *(pytest.param(moment, marks=pytest.mark.once) for moment in (0.1, 0.2, 0.45, 0.7))]
)
async def test_a_cancelled_start_leaves_no_container(engine, docker, moment):
    async def start():
        async with docker.give(order_of(spec_of("postgres"))):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(start())
    await asyncio.wait((task,), timeout=moment)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await ours(engine, docker) == []


async def test_a_container_removed_by_someone_else_is_no_error(engine, docker):
    async with docker.give(order_of(spec_of("redis"))) as running:
        [(container, _)] = await ours(engine, docker)
        await engine.remove(container)
        assert "exit code" in await running.ended() or "gone" in await running.ended()
    assert await ours(engine, docker) == []


async def test_the_sweep_spares_the_living_and_what_is_not_proven_dead(engine, docker):
    async with docker.give(order_of(spec_of("redis"))):
        assert [container for container, _ in await ours(engine, docker)]
        await docker.sweep(now=True)
        assert len(await ours(engine, docker)) == 1


@pytest.mark.parametrize(
    ("change", "is_orphan"),
    [
        ({}, False),
        ({"started": "0"}, True),
        ({"boot": "another"}, True),
        ({"machine": "another", "started": "0"}, False),
        ({"namespace": "pid:[1]", "started": "0"}, False),
        ({"pid": "no number"}, False),
    ],
)
async def test_only_a_proven_death_makes_an_orphan(change, is_orphan):
    owner = this_process()
    fields = {name: str(getattr(owner, name)) for name in Identity.__struct_fields__} | change
    assert docker_provider._is_orphan({f"asynctest_kit.{name}": value for name, value in fields.items()}) is is_orphan


async def test_an_engine_that_does_not_answer_is_refused(tmp_path):
    nowhere = tmp_path / "docker.sock"
    async with Docker(session="none", project="tests", environ={"DOCKER_HOST": f"unix://{nowhere}"}) as provider:
        with pytest.raises(Refusal, match=r"no Docker engine answers at .*docker\.sock"):
            async with provider.give(order_of(spec_of("redis"))):
                pass


async def test_a_log_that_can_not_be_read_is_an_error_of_the_engine(engine):
    with pytest.raises(EngineError, match="no-such-container"):
        await engine.log_tail("no-such-container", 5)
