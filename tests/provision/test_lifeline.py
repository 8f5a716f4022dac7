"""Containers end with the process that started them, and behave as they would without that."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from secrets import token_hex

import pytest
from provision_traces import (
    IMAGES,
    LABEL,
    SESSION,
    eventually,
    is_running,
    line_of,
    order_of,
    spec_of,
    supervisors,
    user,
)
from redis.asyncio import Redis
from small_images import imported, root_of_redis

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.providers import lifeline
from asynctest_kit.provision.providers.docker import Docker
from asynctest_kit.provision.providers.engine import Engine, NotFoundError
from asynctest_kit.provision.runtime import project_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def docker(engine):
    async with Docker(session=token_hex(6), project="tests") as provider:
        yield provider


async def only_container(engine, docker):
    [(container, _)] = await engine.labelled(f"{SESSION}={docker._labels[SESSION]}")
    return await engine.inspect(container)


async def test_no_container_outlives_a_killed_supervisor_though_nobody_comes_after_it(engine, root):
    label = f"{LABEL}={project_of(root).key}"
    specs = [spec_of("postgres", provider="docker"), spec_of("redis", provider="docker")]
    async with user(root, *specs) as victim:
        assert all([await line_of(victim) for _ in specs])
        assert len(await engine.labelled(label)) == 2
        [supervisor] = supervisors(root)
        victim.kill()
        os.kill(supervisor, signal.SIGKILL)
    await eventually(lambda: not is_running(supervisor))
    deadline = time.monotonic() + 10
    while await engine.labelled(label):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_container_that_is_gone_before_it_is_looked_at_is_told_with_its_last_words(docker, monkeypatch):
    inspect = Engine.inspect

    async def inspected_too_late(engine, name):
        with suppress(NotFoundError):
            await engine._json("POST", f"containers/{name}/wait", params={"condition": "removed"})
        return await inspect(engine, name)

    monkeypatch.setattr(Engine, "inspect", inspected_too_late)
    with pytest.raises(ProvisionError, match=r"ended with exit code 1\. Its last words:[^$]*no-such-option"):
        async with docker.give(order_of(spec_of("redis", command=("--no-such-option", "1")))):
            pass


async def test_a_signal_reaches_the_server_and_its_exit_code_us(engine, docker):
    async with docker.give(order_of(spec_of("redis"))) as running:
        container = await only_container(engine, docker)
        async with engine._query("POST", f"containers/{container['Id']}/stop"):
            pass
        assert await running.ended() == "ended with exit code 0"
        assert "Received SIGTERM" in await running.last_words()  # the engine has removed it by now


async def test_a_program_s_input_is_empty_and_its_output_is_heard_though_it_ends_at_once(engine, docker):
    name = f"asynctest_kit-tests-{token_hex(6)}"
    program = ["sh", "-c", 'read -r line; echo "[$line] $*"; echo oh >&2; exit 3', "program", "a b", "$c"]
    config = {"Image": IMAGES["redis"], "Entrypoint": program, "Labels": docker._labels}
    await lifeline.create(engine, name, config)
    async with lifeline.hold(engine, name) as held:
        await engine.start(name)
        assert await held.ended() == "ended with exit code 3"
        assert sorted((await held.tail(2)).splitlines()) == ["[] a b $c", "oh"]
    await engine.remove(name)
    assert await engine.labelled(f"{SESSION}={docker._labels[SESSION]}") == []


@pytest.mark.parametrize("shell", [True, False])
async def test_an_image_without_a_shell_serves_all_the_same(engine, docker, shell):
    archive = await asyncio.to_thread(root_of_redis, shell=shell)
    async with imported(engine, archive) as image, docker.give(order_of(spec_of("redis", image=image))) as running:
        async with Redis.from_url(running.endpoint.url) as redis:
            assert await redis.ping()
        assert (await only_container(engine, docker))["Config"]["OpenStdin"] is shell


@pytest.mark.parametrize(
    ("config", "image", "program"),
    [
        ({}, {"Entrypoint": ["run"], "Cmd": ["it"]}, ["run", "it"]),
        ({"Cmd": ["that"]}, {"Entrypoint": ["run"], "Cmd": ["it"]}, ["run", "that"]),
        ({"Entrypoint": ["walk"]}, {"Entrypoint": ["run"], "Cmd": ["it"]}, ["walk"]),
        ({"Cmd": []}, {"Entrypoint": None, "Cmd": ["serve", "it"]}, ["serve", "it"]),
    ],
)
async def test_the_program_is_what_it_would_be_without_a_switch(config, image, program):
    tied = lifeline._tied(config, image, has_init=True)
    assert [*tied["Entrypoint"], *tied["Cmd"]][4:] == program
    assert tied["HostConfig"] == {"AutoRemove": True, "Init": True}


@pytest.mark.parametrize(
    ("image", "has_init"),
    [({"Entrypoint": ["/init"]}, True), ({"Cmd": ["/sbin/init"]}, True), ({}, True), ({"Cmd": ["serve"]}, False)],
)
async def test_what_can_have_no_switch_is_started_as_it_is(image, has_init):
    tied = lifeline._tied({"Image": "any"}, image, has_init=has_init)
    assert "Entrypoint" not in tied
    assert "OpenStdin" not in tied
    assert tied["HostConfig"] == {"AutoRemove": True}
