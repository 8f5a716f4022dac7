"""What an engine pushes and what it runs inside a container: on a real one."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from secrets import token_hex

import anyio
import pytest
from provision_traces import IMAGES

from asynctest_kit.provision.providers.engine.requests import EngineError

pytestmark = pytest.mark.anyio

#: More than aiodocker's own pool has connections.
MANY = 120


@asynccontextmanager
async def container(engine, script, **config):
    name = f"asynctest_kit-followed-{token_hex(6)}"
    await engine.create(name, {"Image": IMAGES["redis"], "Entrypoint": ["sh", "-c", script]} | config)
    try:
        await engine.start(name)
        yield name
    finally:
        await engine.remove(name)


async def test_a_log_is_followed_line_by_line_with_its_streams_to_its_end(engine):
    script = "echo one; echo two >&2; printf ha; sleep 0.1; echo lf"
    async with container(engine, script) as name, aclosing(engine.follow_log(name)) as lines:
        seen = [line async for line in lines]
    assert [text for stream, text in seen if stream == "stdout"] == ["one", "half"]
    assert [text for stream, text in seen if stream == "stderr"] == ["two"]


async def test_followers_that_are_cancelled_keep_no_connection(engine):
    begun: asyncio.Queue[str] = asyncio.Queue()

    async def follow(name):
        async with aclosing(engine.follow_log(name)) as lines:
            async for _, line in lines:
                begun.put_nowait(line)

    async with container(engine, "echo one; sleep 600") as name:
        with anyio.fail_after(300):
            followers = [asyncio.create_task(follow(name)) for _ in range(MANY)]
            for _ in followers:
                assert await begun.get() == "one"
            for follower in followers:
                follower.cancel()
            await asyncio.wait(followers)
        assert not engine._docker.session.connector._acquired  # aiodocker's own stay here, until no call goes on
        assert (await engine.inspect(name))["State"]["Running"]


async def test_an_answer_that_does_not_come_is_given_up_after_whole_seconds(engine):
    async with container(engine, "sleep 600") as name:
        with pytest.raises(EngineError, match="the engine did not answer within 1 s"):
            async with engine._query("POST", f"containers/{name}/wait", limit=1) as response:
                await response.json()


async def test_a_program_tells_its_exit_code_and_both_outputs(engine):
    async with container(engine, "sleep 60") as name:
        ended = await engine.run(name, ["sh", "-c", "echo out; echo err >&2; exit 3"])
        assert (ended.code, ended.stdout, ended.stderr) == (3, b"out\n", b"err\n")


async def test_a_change_of_health_is_pushed(engine):
    check = {"Test": ["CMD-SHELL", "test -e /tmp/well"], "Interval": 100_000_000, "Retries": 1}
    async with (
        container(engine, "sleep 60", Healthcheck=check) as name,
        aclosing(engine.health_changes(name)) as changes,
    ):
        async for _ in changes:
            health = (await engine.inspect(name))["State"]["Health"]["Status"]
            if health == "unhealthy":
                await engine.run(name, ["touch", "/tmp/well"])
            if health == "healthy":
                break
