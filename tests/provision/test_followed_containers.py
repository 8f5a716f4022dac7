"""What an engine pushes and what it runs inside a container: on a real one."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from secrets import token_hex

import pytest
from provision_traces import IMAGES

pytestmark = pytest.mark.anyio


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
