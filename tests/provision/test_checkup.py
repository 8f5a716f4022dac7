"""The checks behind `atk doctor`, on real engines, servers and sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import msgspec
import pytest
import redis.asyncio
from provision_traces import IMAGES, order_of, spec_of

from asynctest_kit.provision.checkup import examine
from asynctest_kit.provision.checkup.control_group import memory_limit, process_limit
from asynctest_kit.provision.checkup.engine import examine_engine
from asynctest_kit.provision.checkup.listeners import listener
from asynctest_kit.provision.checkup.machine import examine_machine
from asynctest_kit.provision.checkup.services import examine_service
from asynctest_kit.provision.providers.embedded import Embedded
from asynctest_kit.settings import load

pytestmark = pytest.mark.anyio

NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}


def settings_of(folder, text="", **environ):
    (folder / "pyproject.toml").write_text(f"[tool.asynctest_kit]\n{text}")
    return load(paths=(), directory=folder, environ=environ, options={})


async def findings_of(settings, **environ):
    return {(found.part, found.subject): found async for found in examine(settings, environ)}


async def test_a_server_that_takes_fewer_connections_than_tests_want_is_told_with_what_others_use(tmp_path):
    spec = spec_of("postgres", command=("-c", "max_connections=20"))
    async with Embedded().give(order_of(spec)) as running:
        settings = settings_of(tmp_path, "concurrency = 16", ATK_POSTGRES_URL=running.endpoint.url)
        found = await findings_of(settings, **NO_ENGINE)
        assert found["services", "postgres, external"].is_choice
        told = found["services", "postgres, limits"]
        assert (told.verdict, told.text) == (
            "note",
            "it takes 20 connections (max_connections), and 16 tests at once may want 26: some will wait",
        )
        assert told.mend == "max_connections = 26 there, or concurrency = 10"
        settings = settings_of(tmp_path, "concurrency = 5", ATK_POSTGRES_URL=running.endpoint.url)
        told = (await findings_of(settings, **NO_ENGINE))["services", "postgres, limits"]
        assert (told.verdict, told.mend) == ("ok", "")
        assert "enough for 5 tests at once" in told.text


async def test_a_redis_with_fewer_databases_than_tests_want_is_told(tmp_path):
    spec = spec_of("redis", command=("--databases", "9"))
    async with Embedded().give(order_of(spec)) as running:
        settings = settings_of(tmp_path, "concurrency = 9", ATK_REDIS_URL=running.endpoint.url)
        (answers, told) = await examine_service("redis", settings, None)
        assert (answers.verdict, told.verdict) == ("ok", "note")
        assert told.text.startswith("it has 9 logical databases")
        assert told.mend == "redis-server --databases 10, or concurrency = 8"
        settings = settings_of(tmp_path, "concurrency = 8", ATK_REDIS_URL=running.endpoint.url)
        (_, told) = await examine_service("redis", settings, None)
        assert (told.verdict, told.mend) == ("ok", "")


async def test_a_redis_without_databases_or_users_for_tests_is_told(tmp_path):
    spec = spec_of("redis", command=("--databases", "1"))
    async with Embedded().give(order_of(spec)) as running, redis.asyncio.from_url(running.endpoint.url) as owner:
        await owner.execute_command("ACL", "SETUSER", "poor", "on", ">secret", "~*", "&*", "+@all", "-acl|setuser")
        poor = msgspec.structs.replace(running.endpoint, username="poor", password="secret")
        settings = settings_of(tmp_path, "concurrency = 9", ATK_REDIS_URL=poor.url)
        (_, databases, users) = await examine_service("redis", settings, None)
        assert (databases.verdict, users.verdict) == ("note", "note")
        assert "told apart by a prefix of their keys" in databases.text
        assert "may make no users (ACL SETUSER)" in users.text


async def test_a_server_of_ours_is_judged_by_its_settings(tmp_path):
    found = await findings_of(settings_of(tmp_path, "concurrency = 300"), **NO_ENGINE)
    assert found["services", "postgres, limits"].mend == (
        'command = ["-c", "max_connections=310"], or concurrency = 190'
    )
    enough = '[tool.asynctest_kit.services.postgres]\ncommand = ["-c", "max_connections=400"]\n'
    found = await findings_of(settings_of(tmp_path, f"concurrency = 300\n{enough}"), **NO_ENGINE)
    assert ("services", "postgres, limits") not in found


async def test_a_server_with_several_databases_is_judged_by_all_of_them(tmp_path):
    settings = settings_of(
        tmp_path, 'concurrency = 100\n[tool.asynctest_kit.services.more]\nkind = "postgres"\nserver = "postgres"'
    )
    found = await findings_of(settings, **NO_ENGINE)
    assert found["services", "more"].text == "a database on the server of postgres"
    told = found["services", "postgres, limits"]
    assert told.text.endswith(", and 100 tests at once with 2 databases may want 210: some will wait")
    assert told.mend == 'command = ["-c", "max_connections=210"], or concurrency = 95'


def own_name():
    return Path("/proc/self/comm").read_text().strip()


async def test_a_container_of_postgres_with_little_shared_memory_is_told(engine, tmp_path):
    small = '[tool.asynctest_kit.services.postgres.container]\nshm-size = "32m"\n'
    settings = settings_of(tmp_path, small, ATK_POSTGRES_IMAGE=IMAGES["postgres"], ATK_PROVIDER="docker")
    (told,) = [finding for finding in await examine_service("postgres", settings, engine) if finding.verdict != "ok"]
    assert (told.subject, told.mend) == ("postgres, limits", "leave shm-size out: it is 256 MiB then")
    assert "shm-size = 32 MiB: parallel queries want 64 MiB" in told.text


async def test_an_image_that_is_named_and_can_not_be_had_is_a_fault_where_an_engine_answers(engine, tmp_path):
    settings = settings_of(tmp_path, ATK_REDIS_IMAGE="localhost:1/no/such:image")
    (told,) = await examine_service("redis", settings, engine)
    assert (told.verdict, told.subject) == ("fault", "redis")
    assert told.text.startswith("nobody can give it: docker: the image localhost:1/no/such:image is not there and")
    assert told.mend == (
        "docker pull localhost:1/no/such:image, or name another in the settings, or set ATK_REDIS_PROVIDER=embedded if "
        "a local server is meant, or set ATK_REDIS_URL"
    )
    _, embedded = await examine_service("redis", settings, None)
    assert embedded.is_choice


async def test_who_has_the_port_of_a_server_that_does_not_answer_is_named(tmp_path):
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        name = own_name()
        assert listener(port) == f"{name} (process {os.getpid()})"
        startup = '[tool.asynctest_kit.services.redis]\nstartup-timeout = "0.3s"\n'
        settings = settings_of(tmp_path, startup, ATK_REDIS_URL=f"redis://127.0.0.1:{port}/0")
        told = (await findings_of(settings, **NO_ENGINE))["services", "redis, external"]
    assert told.verdict == "fault"
    assert f"At port {port} listens {name} (process {os.getpid()})." in told.text
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        assert listener(bound.getsockname()[1]) == ""


async def told_by_engine(engine, settings):
    return [found async for found in examine_engine(engine, settings.services)]


async def test_the_disk_and_the_memory_of_an_engine_are_told(engine, tmp_path):
    info = await engine.info()
    ports, disk, memory = await told_by_engine(engine, settings_of(tmp_path))
    assert (ports.subject, disk.subject, memory.subject) == ("ports", "disk", "memory")
    assert info["DockerRootDir"] in disk.text
    assert memory.text == f"{info['MemTotal'] / (1 << 30):.1f} GiB for containers"
    assert {ports.verdict, memory.verdict} == {"ok"}


async def test_nothing_is_left_behind_and_a_folder_that_is_not_ours_is_told(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))

    async def told():
        found = {finding.subject: finding for finding in await told_by_engine(engine, settings_of(tmp_path))}
        assert found["ports"].verdict == "ok"
        return {finding.subject: finding for finding in examine_machine(8)}["left behind"]

    assert (await told()).verdict != "fault"
    assert not (tmp_path / "run").exists()
    (tmp_path / "run/asynctest_kit").mkdir(mode=0o755, parents=True)
    assert (await told()).text.startswith(f"{tmp_path}/run/asynctest_kit should be a directory that only you can enter")


async def test_an_engine_whose_disk_we_do_not_see_tells_what_its_images_take(engine, tmp_path, monkeypatch):
    async def elsewhere():
        return "6.6.0-linuxkit"

    monkeypatch.setattr(engine, "kernel", elsewhere)
    ports, disk, _ = await told_by_engine(engine, settings_of(tmp_path))
    assert ports.text.startswith("published on 127.0.0.1 (the engine is in a virtual machine")
    assert disk.text.startswith("images take ")
    assert not disk.text.startswith("images take 0 ")
    assert "the engine does not tell" in disk.text


async def test_a_full_disk_of_the_engine_is_a_fault(engine, tmp_path, monkeypatch):
    monkeypatch.setattr("asynctest_kit.provision.checkup.machine._DISK", 1 << 60)
    _, disk, _ = await told_by_engine(engine, settings_of(tmp_path))
    assert disk.verdict == "fault"
    assert disk.mend.startswith("docker system prune")


async def test_options_that_the_engine_can_not_carry_out_are_told(engine, tmp_path):
    processors = (await engine.info())["NCPU"]
    container = f'[tool.asynctest_kit.services.redis.container]\ncpus = {processors + 1}\nmemory = "9000g"\n'
    *_, memory, limits = await told_by_engine(engine, settings_of(tmp_path, container))
    assert (memory.verdict, memory.mend) == ("note", "lower their `memory`")
    assert "redis 9000.0 GiB" in memory.text
    assert limits.verdict == "fault"
    assert f"redis is to have cpus = {processors + 1}" in limits.text
    assert limits.mend == f"cpus = {processors}, or less"


def group(root, lines, **limits):
    """The kernel's files about a control group, as they are on a machine with other limits than this one."""
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/cgroup").write_text("".join(f"{line}\n" for line in lines))
    for path, limit in limits.items():
        file = root / "sys/fs/cgroup" / path.replace("__", "/").replace("_max", ".max").replace("_in_", ".limit_in_")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    return root


async def test_the_least_limit_of_a_control_group_and_its_parents_holds(tmp_path):
    second = group(
        tmp_path / "2", ["0::/a/b"], a__b__memory_max="max", a__memory_max=1 << 29, a__b__pids_max=77, pids_max="max"
    )
    assert (memory_limit(second), process_limit(second)) == (1 << 29, 77)
    lines = ["9:memory:/a", "8:cpu,cpuacct:/", "0::/"]
    first = group(tmp_path / "1", lines, memory__a__memory_in_bytes=9223372036854771712, memory__memory_in_bytes=5)
    assert (memory_limit(first), process_limit(first)) == (5, None)
    assert memory_limit(tmp_path / "nowhere") is None
    assert all(limit is None or limit > 0 for limit in (memory_limit(), process_limit()))


async def test_a_control_group_that_kills_servers_is_a_fault(monkeypatch):
    monkeypatch.setattr("asynctest_kit.provision.checkup.machine.memory_limit", lambda: 200 << 20)
    monkeypatch.setattr("asynctest_kit.provision.checkup.machine.process_limit", lambda: 100)
    found = {finding.subject: finding for finding in examine_machine(64)}
    assert found["memory"].verdict == "fault"
    assert "may use 0.2 GiB, servers' data included" in found["memory"].text
    assert found["processes"].mend == "raise it to 128 (docker run --pids-limit=128), or lower the concurrency"


async def test_too_few_files_left_on_a_disk_are_a_fault(monkeypatch):
    monkeypatch.setattr("asynctest_kit.provision.checkup.machine._INODES", 1 << 60)
    disk = next(finding for finding in examine_machine(1) if finding.subject == "disk")
    if os.statvfs("/tmp").f_files:
        assert disk.verdict == "fault"
        assert "more files only" in disk.text
    else:  # a file system without such a limit
        assert disk.verdict == "ok"
