"""What a container can be given beyond its kind's own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from secrets import token_hex

import asyncpg
import msgspec
import pytest
from provision_traces import order_of, spec_of

from asynctest_kit.container_options import ContainerOptions, CopiedFile, Ulimit, Volume
from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision import copied_files
from asynctest_kit.provision.identity import this_process
from asynctest_kit.provision.providers import Refusal
from asynctest_kit.provision.providers.docker import Docker
from asynctest_kit.provision.providers.embedded import Embedded
from asynctest_kit.provision.providers.engine import NotFoundError
from asynctest_kit.provision.service import Program

pytestmark = pytest.mark.anyio


@pytest.fixture
async def docker(engine):
    async with Docker(session=token_hex(6), project="tests") as provider:
        yield provider


def redis_with(name="cache", **options):
    return order_of(spec_of("redis", name=name, container=ContainerOptions(**options)))


async def shell(running, script, **fields):
    """What a script writes to its stdout in a service's container."""
    written = []

    async def take(output):
        written.append(output.data.decode())

    await running.run(Program(argv=("sh", "-c", script), **fields), take)
    return "".join(written)


async def ours(engine, docker):
    label = f"asynctest_kit.session={docker._labels['asynctest_kit.session']}"
    found = [await engine.labelled(label), await engine.labelled_volumes(label), await engine.labelled_networks(label)]
    return [name for kind in found for name, _ in kind]


async def test_limits_are_set(engine, docker):
    order = redis_with(
        memory=64 << 20, cpus=0.5, pids=40, shm_size=8 << 20, ulimits=(Ulimit(name="nofile", soft=1000, hard=2000),)
    )
    async with docker.give(order) as running:
        [container] = await ours(engine, docker)
        host = (await engine.inspect(container))["HostConfig"]
        assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500_000_000, 40)
        assert host["Ulimits"] == [{"Name": "nofile", "Soft": 1000, "Hard": 2000}]
        assert await shell(running, "ulimit -Hn") == "2000\n"
        assert (await shell(running, "df -k /dev/shm | tail -1")).split()[1] == "8192"


async def test_who_where_and_how_it_runs(docker, tmp_path):
    (tmp_path / "entry.sh").write_text('#!/bin/sh\necho "begins as $(id -u) in $PWD" >&2\nexec "$@"\n')
    (tmp_path / "entry.sh").chmod(0o755)
    order = redis_with(
        user="998:998",
        working_dir="/data",
        entrypoint=("/entry.sh",),
        files=(CopiedFile(target="/entry.sh", source=str(tmp_path / "entry.sh")),),
        tmpfs={"/data": "uid=998,size=4m", "/scratch": ""},
        extra_hosts={"api.internal": "192.0.2.7"},
    )
    async with docker.give(order) as running:
        assert "begins as 998 in /data" in await log_of(running)
        assert "192.0.2.7\tapi.internal" in await shell(running, "cat /etc/hosts")
        mounts = await shell(running, "cat /proc/mounts")
    assert "tmpfs /data tmpfs rw,nosuid,nodev,noexec,relatime,size=4096k,uid=998" in mounts
    assert "tmpfs /scratch tmpfs" in mounts


async def log_of(running):
    written = []

    async def take(output):
        written.append(output.data.decode())

    await running.log(100, False, take)
    return "".join(written)


async def test_files_have_their_mode_and_owner(docker, tmp_path):
    (tmp_path / "conf/inner").mkdir(parents=True)
    (tmp_path / "conf/inner/run").write_text("")
    (tmp_path / "conf/inner/run").chmod(0o700)
    (tmp_path / "conf/plain").write_text("hello")
    files = (
        CopiedFile(target="/etc/app", source=str(tmp_path / "conf"), owner=(998, 997)),
        CopiedFile(target="/etc/secret", content="text", mode=0o600, owner=(1, 2)),
    )
    async with docker.give(redis_with(files=files)) as running:
        seen = await shell(running, "cd /etc; stat -c '%n %a %u:%g' app app/inner/run app/plain secret; cat app/plain")
    assert seen.splitlines() == [
        "app 755 998:997", "app/inner/run 755 998:997", "app/plain 644 998:997", "secret 600 1:2", "hello",
    ]  # fmt: skip


@pytest.mark.once
async def test_volumes_are_shared_by_a_run_and_gone_after_it(engine, docker, tmp_path):
    (tmp_path / "note").write_text("from here")
    volumes = (
        Volume(source="common", target="/common"),
        Volume(source=str(tmp_path), target="/here", is_read_only=True),
    )
    async with docker.give(redis_with("one", volumes=volumes)) as one:
        assert await shell(one, "echo hello > /common/file; touch /here/x 2>&1; cat /here/note") == (
            "touch: cannot touch '/here/x': Read-only file system\nfrom here"
        )
        async with docker.give(redis_with("two", volumes=volumes[:1])) as two:
            assert await shell(two, "cat /common/file") == "hello\n"
        assert await shell(one, "cat /common/file") == "hello\n"
        label = "asynctest_kit.project=tests"
        [labels] = [
            found for name, found in await engine.labelled_volumes(label) if name == docker._common.name("common")
        ]
        assert labels["asynctest_kit.pid"] == str(this_process().pid)
    assert await ours(engine, docker) == []
    assert list(tmp_path.iterdir()) == [tmp_path / "note"]


@pytest.mark.once
async def test_services_of_a_network_know_each_other_by_name(engine, docker):
    async with (
        docker.give(redis_with("one", networks=("back",), aliases=("first",))) as one,
        docker.give(redis_with("two", networks=("back", "other"))) as two,
    ):
        assert (await shell(two, "getent hosts one first")).count("\n") == 2
        assert "two" in await shell(one, "getent hosts two")
        assert len(await ours(engine, docker)) == 4
    assert await ours(engine, docker) == []


@pytest.mark.once
async def test_many_at_once_share_what_they_share_and_leave_nothing(engine, docker):
    options = {"networks": ("back",), "volumes": (Volume(source="common", target="/common"),)}

    async def one(number):
        async with docker.give(redis_with(f"cache-{number}", **options)) as running:
            return await shell(running, "getent hosts $(hostname)")

    tasks = [asyncio.ensure_future(one(number)) for number in range(4)]
    tasks[0].cancel()
    seen = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(seen[0], asyncio.CancelledError)
    assert all(isinstance(text, str) and text for text in seen[1:]), seen
    assert await ours(engine, docker) == []


async def test_orphaned_volumes_and_networks_are_swept_and_others_are_spared(engine, docker):
    dead = {"asynctest_kit.session": "dead"} | {
        f"asynctest_kit.{name}": str(value) for name, value in msgspec.structs.asdict(this_process()).items()
    }
    dead["asynctest_kit.started"] = "0"
    name, bystander = f"asynctest_kit-{token_hex(4)}", f"asynctest_kit-{token_hex(4)}-not-ours"
    for create in (engine.create_volume, engine.create_network):
        await create(name, dead)
        await create(bystander, {})
    try:
        await docker.sweep(now=True)  # or another's, which may come first
        for kind in ("volumes", "networks"):
            with pytest.raises(NotFoundError):
                await engine._json("GET", f"{kind}/{name}")
            await engine._json("GET", f"{kind}/{bystander}")
    finally:
        await engine.remove_volume(bystander)
        await engine.remove_network(bystander)


@pytest.fixture
def _no_snapshots(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


async def rows(docker, scripts):
    options = copied_files.with_digests(
        ContainerOptions(init_scripts=tuple(CopiedFile(target="", source=str(path)) for path in scripts)), "postgres"
    )
    order = order_of(spec_of("postgres", container=options))
    async with docker.give(order) as running:
        connection = await asyncpg.connect(running.endpoint.url)
        try:
            return [number for (number,) in await connection.fetch("SELECT number FROM rows ORDER BY number")]
        finally:
            await connection.close()


@pytest.mark.once
async def test_init_scripts_run_once_and_again_when_they_change(engine, docker, tmp_path, _no_snapshots):
    from asynctest_kit.provision import snapshots

    (tmp_path / "sql").mkdir()
    (tmp_path / "sql/1.sql").write_text("CREATE TABLE rows (number int);")
    (tmp_path / "sql/2.sql").write_text("INSERT INTO rows VALUES (1);")
    script = tmp_path / "3.sh"
    script.write_text('psql -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c "INSERT INTO rows VALUES (2)"\n')
    scripts = (tmp_path / "sql", script)
    try:
        assert await rows(docker, scripts) == [1, 2]
        assert len(snapshots.images()) == 1
        assert await rows(docker, scripts) == [1, 2]
        (tmp_path / "sql/2.sql").write_text("INSERT INTO rows VALUES (7);")
        assert await rows(docker, scripts) == [2, 7]
    finally:
        for image in snapshots.images():
            await engine.remove_image(image)


@pytest.mark.once
async def test_the_first_of_the_images_two_starts_is_not_taken_for_its_being_ready(docker, tmp_path):
    """That one says so in the log, too, and serves the image's own scripts, by its socket alone."""
    (tmp_path / "1.sql").write_text("CREATE TABLE rows (number int); SELECT pg_sleep(1); INSERT INTO rows VALUES (1);")
    script = CopiedFile(target="", source=str(tmp_path / "1.sql"))
    options = copied_files.with_digests(ContainerOptions(init_scripts=(script,)), "postgres")
    written = []

    async def take(output):
        written.append(output.data.decode())

    async with docker.give(order_of(spec_of("postgres", container=options, snapshots=False))) as running:
        connection = await asyncpg.connect(running.endpoint.url)
        assert await connection.fetchval("SELECT number FROM rows") == 1
        await connection.close()
        await running.log(1000, False, take)  # not followed
    started = [line for line in "".join(written).splitlines() if "ready to accept connections" in line]
    assert len(started) == 2


async def test_an_init_script_that_fails_is_told(docker, tmp_path):
    (tmp_path / "1.sql").write_text("SELECT nothing;")
    with pytest.raises(ProvisionError, match=r'ended with exit code 3.*\n(.*\n)*.*column "nothing" does not exist'):
        await rows(docker, (tmp_path / "1.sql",))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"init_scripts": (CopiedFile(target="", source="/x.sql"),)}, "init-scripts: Redis runs none"),
        (
            {"files": (CopiedFile(target="/data/x", content=""),)},
            "files: /data/x would be hidden by what is kept in mem",
        ),
    ],
)
async def test_what_makes_no_sense_is_told(docker, options, problem):
    with pytest.raises(ProvisionError, match=f"'cache' can't be made as it is asked for, {problem}"):
        async with docker.give(redis_with(**options)):
            pass


async def test_a_platform_that_the_engine_has_not_is_told(docker):
    with pytest.raises(Refusal, match=r"the image .*redis.* for linux/s390x is not there, and may not be pulled"):
        async with docker.give(redis_with(platform="linux/s390x", pull="never")):
            pass


async def test_a_local_program_takes_none_of_the_essential_ones():
    options = ContainerOptions(files=(CopiedFile(target="/x", content=""),), networks=("back",), memory=1 << 30)
    with pytest.raises(Refusal, match="the settings under `container` want more: files, networks"):
        async with Embedded().give(order_of(spec_of("redis", container=options))):
            pass
    async with Embedded().give(order_of(spec_of("redis", container=ContainerOptions(memory=1 << 30)))) as running:
        assert running.endpoint.provider == "embedded"


def test_a_changed_file_makes_another_spec_and_another_place_does_not_make_another_snapshot(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "conf").write_text("a")

    def options(folder):
        file = CopiedFile(target="/conf", source=str(tmp_path / folder / "conf"))
        return copied_files.with_digests(ContainerOptions(files=(file,)), "cache")

    before = options("one")
    assert options("one") == before != options("two")
    assert copied_files.fingerprint(before) == copied_files.fingerprint(options("two"))
    (tmp_path / "one/conf").write_text("b")
    assert options("one") != before
    assert copied_files.fingerprint(options("one")) != copied_files.fingerprint(before)


def test_a_file_that_is_gone_is_told():
    options = ContainerOptions(files=(CopiedFile(target="/conf", source="/no/such/file"),))
    with pytest.raises(ProvisionError, match=r"the container of the service 'cache' can't be read: .*No such file"):
        copied_files.with_digests(options, "cache")


def test_nothing_that_may_be_secret_is_in_a_repr():
    options = ContainerOptions(files=(CopiedFile(target="/conf", content="my-secret"),))
    assert "my-secret" not in repr(options)
    assert Path("/conf").name in repr(options)
