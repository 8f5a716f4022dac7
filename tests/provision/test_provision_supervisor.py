"""A project's supervisor as its clients see it, in real processes: shared, private, and gone when they are."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import asyncpg
import msgspec
import pytest
from provision_traces import (
    LABEL,
    container_of,
    data_of,
    eventually,
    is_running,
    line_of,
    servers_of,
    sessions,
    spec_of,
    supervisors,
    user,
)
from redis.asyncio import Redis

from asynctest_kit.container_options import ContainerOptions, Volume
from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision import messages
from asynctest_kit.provision.client import Client
from asynctest_kit.provision.link import Link
from asynctest_kit.provision.messages import Hello, Stop, Survey
from asynctest_kit.provision.runtime import project_of
from asynctest_kit.provision.service import ServicePhase
from asynctest_kit.provision.supervisor import Supervisor
from asynctest_kit.provision.supply import Supply
from asynctest_kit.provision.surroundings import Surroundings, come_from_here

pytestmark = pytest.mark.anyio

REDIS = spec_of("redis", provider="embedded")
POSTGRES = spec_of("postgres", provider="embedded")


async def containers(engine, root):
    return await engine.labelled(f"{LABEL}={project_of(root).key}")


async def no_containers(engine, root, seconds=10.0):
    deadline = time.monotonic() + seconds
    while await containers(engine, root):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def leave(client):
    await asyncio.to_thread(client.close)


async def test_a_service_is_asked_for_awaited_and_gone_after_close(root, client):
    endpoint = await client.endpoint(REDIS)
    async with Redis.from_url(endpoint.url) as redis:
        assert await redis.ping()
    assert client.ensure(REDIS).result() is endpoint
    assert client.endpoints == {"redis": endpoint}
    [supervisor] = supervisors(root)
    [server] = servers_of(supervisor)
    await leave(client)
    assert not is_running(server)
    assert not is_running(supervisor)
    assert sessions(root) == []
    assert data_of(supervisor) == []
    phases = [phase.phase for phase in client.phases]
    assert phases == ["resolve", "create", "boot", "ready", "remove"]


async def test_every_phase_follows_the_one_before(client):
    asked = time.monotonic()
    await asyncio.gather(client.endpoint(REDIS), client.endpoint(POSTGRES))
    for service in ("redis", "postgres"):
        phases = [phase for phase in client.phases if phase.service == service]
        assert asked <= phases[0].start
        assert all(before.end <= after.start for before, after in pairwise(phases))


async def test_services_start_at_the_same_time(client):
    all_are_here = "touch /gate/$HOSTNAME; until [ $(ls /gate | wc -l) = 4 ]; do usleep 20000; done"
    gate = ContainerOptions(volumes=(Volume(source="gate", target="/gate"),))
    specs = [container_of(all_are_here, name=f"box-{number}", once=True, container=gate) for number in range(4)]
    await asyncio.gather(*map(client.endpoint, specs))


async def test_with_other_migrations_it_is_the_same_service(client):
    needs = [msgspec.structs.replace(REDIS, migrations=digest) for digest in ("first", "second")]
    one, other = await asyncio.gather(*map(client.endpoint, needs))
    assert one == other
    boxes = [container_of("sleep 60", needs=(need,), provider="docker") for need in needs]
    one, other = await asyncio.gather(*map(client.endpoint, boxes))
    assert one == other


async def test_one_failure_fails_only_its_service(client):
    broken = spec_of("redis", name="broken", provider="embedded", command=("--no-such-option", "1"))
    failed, fine = await asyncio.gather(client.endpoint(broken), client.endpoint(REDIS), return_exceptions=True)
    assert isinstance(failed, ProvisionError)
    assert "ended with exit code 1" in str(failed)
    assert fine.service == "redis"


async def test_an_unknown_kind_is_told(client):
    with pytest.raises(ProvisionError, match="'abacus', which the catalogue doesn't have"):
        await client.endpoint(spec_of("redis", kind="abacus"))


async def test_equal_specs_are_one_service_for_all_clients(root, client):
    mine = await client.endpoint(REDIS)
    async with user(root, REDIS, REDIS) as other:
        assert await line_of(other) == mine.url
        assert await line_of(other) == mine.url
        other.stdin.close()
        assert other.wait(10) == 0
    async with Redis.from_url(mine.url) as redis:
        assert await redis.ping()
    assert len(supervisors(root)) == 1


async def test_clients_that_ask_at_once_share_one_start(root, client):
    await client.endpoint(REDIS)  # somebody listens from here on
    others = [Client.connect(root) for _ in range(3)]
    try:
        found = await asyncio.gather(*(one.endpoint(POSTGRES) for one in (client, *others)))
        assert len({endpoint.url for endpoint in found}) == 1
        assert all([phase.phase for phase in one.phases].count("create") <= 2 for one in others)
        assert len(servers_of(*supervisors(root))) == 2
    finally:
        for other in others:
            await leave(other)


async def test_the_last_client_out_ends_it(root, client):
    await client.endpoint(REDIS)
    other = Client.connect(root)
    endpoint = await other.endpoint(REDIS)
    await leave(client)
    async with Redis.from_url(endpoint.url) as redis:
        assert await redis.ping()
    assert not [phase for phase in client.phases if phase.phase == "remove"]
    await leave(other)
    assert [phase.phase for phase in other.phases] == ["remove"]
    await eventually(lambda: sessions(root) == [])


async def test_two_projects_share_nothing(root, client, tmp_path):
    other = Client.connect(tmp_path)
    try:
        mine, theirs = await asyncio.gather(client.endpoint(REDIS), other.endpoint(REDIS))
        assert mine.port != theirs.port
        assert mine.password != theirs.password
        assert set(supervisors(root)).isdisjoint(supervisors(tmp_path))
    finally:
        await leave(other)


async def test_who_knocks_while_it_ends_gets_another(root):
    before = Client.connect(root)
    await before.endpoint(POSTGRES)
    for _ in range(3):
        closing = asyncio.get_running_loop().run_in_executor(None, before.close)
        after = Client.connect(root)
        endpoint = await after.endpoint(POSTGRES)
        await closing
        connection = await asyncpg.connect(endpoint.url)
        await connection.close()
        before = after
    await leave(before)
    await eventually(lambda: sessions(root) == [])


async def test_many_who_come_first_all_get_theirs(root):
    clients = [Client.connect(root) for _ in range(3)]
    endpoints = await asyncio.gather(*(one.endpoint(REDIS) for one in clients))
    for endpoint in endpoints:
        async with Redis.from_url(endpoint.url) as redis:
            assert await redis.ping()
    await asyncio.gather(*map(leave, clients))
    await eventually(lambda: sessions(root) == [])


async def test_who_leaves_in_order_leaves_a_snapshot_and_who_is_killed_does_not(root, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def kept():
        return sorted(entry.name for entry in (tmp_path / "cache/asynctest_kit/snapshots").glob(f"*-{project}-"))

    project = project_of(root).key
    for ends_in_order in (False, True):
        async with user(root, POSTGRES) as someone:
            assert await line_of(someone)
            client = Client.connect(root)
            await client.endpoint(POSTGRES)
            await client.preserve("postgres", "")
            if ends_in_order:
                someone.stdin.close()
                await asyncio.to_thread(someone.wait)
                await leave(client)
            else:
                await leave(client)
                someone.kill()
        await eventually(lambda: sessions(root) == [])
        assert bool(kept()) is ends_in_order


async def test_a_killed_client_leaves_nothing_embedded(root):
    async with user(root, POSTGRES, REDIS) as victim:
        assert all([await line_of(victim) for _ in range(2)])
        [supervisor] = supervisors(root)
        servers = servers_of(supervisor)
        assert len(servers) == 2
        victim.kill()
    await eventually(lambda: not is_running(supervisor))
    assert not any(map(is_running, servers))
    assert sessions(root) == []
    assert data_of(supervisor) == []


async def test_a_killed_client_leaves_no_container(engine, root):
    async with user(root, spec_of("postgres", provider="docker"), spec_of("redis", provider="docker")) as victim:
        assert all([await line_of(victim) for _ in range(2)])
        assert len(await containers(engine, root)) == 2
        victim.kill()
    await no_containers(engine, root)
    await eventually(lambda: sessions(root) == [])


@pytest.mark.parametrize(
    "moment", [0.0, *(pytest.param(moment, marks=pytest.mark.once) for moment in (0.2, 0.35, 0.8)), 0.5]
)
async def test_a_client_killed_during_a_start_leaves_nothing(engine, root, moment):
    async with user(root, spec_of("postgres", provider="docker"), POSTGRES) as victim:
        await asyncio.sleep(moment + random.random() / 20)
        known = supervisors(root)
        victim.kill()
    await eventually(lambda: sessions(root) == [])
    await no_containers(engine, root)
    assert [data_of(supervisor) for supervisor in known] in ([], [[]])


async def test_a_forked_child_does_not_keep_services_alive(root):
    async with user(root, REDIS, words=("fork",)) as victim:
        await line_of(victim)
        child = int(await line_of(victim))
        try:
            [supervisor] = supervisors(root)
            victim.kill()
            await eventually(lambda: not is_running(supervisor))
            assert is_running(child)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_removes_everything_clients_or_not(root, client, sign):
    endpoint = await client.endpoint(REDIS)
    [supervisor] = supervisors(root)
    slow = client.ensure(POSTGRES)
    os.kill(supervisor, sign)
    with pytest.raises(ProvisionError, match=rf"{sign.name}|ended unexpectedly"):
        await asyncio.wrap_future(slow)
    await eventually(lambda: not is_running(supervisor))
    with pytest.raises(OSError):
        await asyncio.open_connection(endpoint.host, endpoint.port)
    assert data_of(supervisor) == []


async def test_a_killed_supervisor_fails_what_is_pending_and_is_swept_up_after(root, client):
    await client.endpoint(REDIS)
    [supervisor] = supervisors(root)
    servers = servers_of(supervisor)
    pending = client.ensure(POSTGRES)
    os.kill(supervisor, signal.SIGKILL)
    with pytest.raises(ProvisionError) as caught:
        await asyncio.wrap_future(pending)
    message = str(caught.value)
    assert "The service 'postgres' was not ready when its supervisor ended unexpectedly with exit code -9" in message
    assert "redis is ready" in message  # the end of its log
    assert client.endpoints["redis"].password not in message
    with pytest.raises(ProvisionError, match="was asked for after its supervisor ended unexpectedly"):
        await client.endpoint(spec_of("redis", name="late", provider="embedded"))
    await eventually(lambda: not any(map(is_running, servers)))  # the kernel's doing

    heir = Client.connect(root)
    try:
        await heir.endpoint(REDIS)
        await eventually(lambda: data_of(supervisor) == [])
        await eventually(lambda: supervisor not in supervisors(root))
    finally:
        await leave(heir)


async def test_containers_of_a_killed_supervisor_are_swept_by_the_next(engine, root, client):
    spec = spec_of("redis", provider="docker")
    await client.endpoint(spec)
    [(orphan, _)] = await containers(engine, root)
    os.kill(*supervisors(root), signal.SIGKILL)

    heir = Client.connect(root)
    try:
        await heir.endpoint(spec)
        deadline = time.monotonic() + 10
        while orphan in [container for container, _ in await containers(engine, root)]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert len(await containers(engine, root)) == 1
    finally:
        await leave(heir)


async def test_the_meeting_place_is_private(root, client):
    await client.endpoint(REDIS)
    project = project_of(root)
    assert project.directory.stat().st_mode & 0o777 == 0o700
    assert project.socket.stat().st_mode & 0o777 == 0o600
    for session in sessions(root):
        assert session.stat().st_mode & 0o777 == 0o700
        assert (session / "log").stat().st_mode & 0o777 == 0o600
        assert client.endpoints["redis"].password not in (session / "log").read_text()


async def test_a_supervisor_has_its_own_session_so_that_control_c_passes_it_by(root, client):
    await client.endpoint(REDIS)
    [supervisor] = supervisors(root)
    assert os.getsid(supervisor) == supervisor


async def test_cancelling_an_await_does_not_cancel_the_start(client):
    task = asyncio.ensure_future(client.endpoint(REDIS))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await client.endpoint(REDIS)).service == "redis"


async def test_it_serves_several_loops_and_threads_at_once(client):
    def another_loop():
        return asyncio.run(client.endpoint(REDIS)), threading.get_ident()

    with ThreadPoolExecutor(3) as pool:
        found = await asyncio.gather(*(asyncio.wrap_future(pool.submit(another_loop)) for _ in range(3)))
    assert {endpoint for endpoint, _ in found} == {await client.endpoint(REDIS)}


async def test_closing_fails_what_is_pending_and_is_idempotent(client):
    pending = client.ensure(POSTGRES)
    await leave(client)
    await leave(client)
    with pytest.raises(ProvisionError, match="'postgres' was not ready when its client was closed"):
        pending.result(timeout=0)
    with pytest.raises(ProvisionError, match="was asked for after its client was closed"):
        client.ensure(REDIS).result(timeout=0)


async def test_a_service_that_died_is_started_again_for_the_next_client(root, client):
    endpoint = await client.endpoint(REDIS)
    async with Redis.from_url(endpoint.url) as redis:
        await redis.shutdown(nosave=True)
    [supervisor] = supervisors(root)
    await eventually(lambda: servers_of(supervisor) == [])
    other = Client.connect(root)
    try:
        fresh = await other.endpoint(REDIS)
        assert fresh.password != endpoint.password
    finally:
        await leave(other)


async def test_recorded_phases_stand_beside_the_measured(client):
    migrate = ServicePhase(service="postgres", phase="migrate", start=1.0, end=2.0)
    client.record(migrate)
    assert client.phases == (migrate,)


class Supplies:
    """What clients have, but for the first, of which it can't be found out."""

    def __init__(self):
        self.is_broken = True

    async def of(self, _surroundings):
        if self.is_broken:
            self.is_broken = False
            raise RuntimeError("boom")
        return Supply({}, ())


class Meeting:
    """Where one more client comes."""

    def __init__(self, connection):
        self.connection = connection

    async def accept(self):
        connection, self.connection = self.connection, None
        if connection is None:
            await asyncio.Event().wait()
        return connection

    def close(self):
        pass


async def test_a_client_whose_request_fails_unexpectedly_is_cut_off_and_nobody_else(tmp_path):
    broken, other = socket.socketpair(), socket.socketpair()
    supervisor = Supervisor(Supplies(), log=tmp_path / "log")
    run = asyncio.create_task(supervisor.run(broken[0], Meeting(other[0])))
    ends = [await asyncio.open_unix_connection(sock=end) for end in (broken[1], other[1])]
    for reader, writer in ends:
        writer.write(messages.line(come_from_here()))
        assert isinstance(messages.reply(await reader.readline()), Hello)
        if writer is ends[0][1]:
            assert await reader.read() == b""
    reader, writer = ends[1]
    writer.write(messages.line(Survey()))
    assert messages.reply(await reader.readline()).clients == 0
    for _, writer in ends:
        writer.close()
    await run


async def test_a_supervisor_that_reads_nothing_keeps_nobody_waiting(monkeypatch):
    monkeypatch.setenv("LARGE", "x" * 100_000)
    ours, theirs = socket.socketpair()
    for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):  # so that this test can't wait for ever
        (ours if option == socket.SO_SNDTIMEO else theirs).setsockopt(
            socket.SOL_SOCKET, option, struct.pack("ll", 30, 0)
        )
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    link = Link(ours, come_from_here())
    for number in range(100):
        link.send(Stop(number))
    with theirs.makefile("rb") as lines:
        come = messages.request(await asyncio.to_thread(lines.readline))
        assert Surroundings.told(come).environ["LARGE"] == "x" * 100_000
        heard = [messages.request(await asyncio.to_thread(lines.readline)) for _ in range(100)]
    assert heard == [Stop(number) for number in range(100)]
    link.close()
    theirs.close()


LEAVES_DURING_CTRL_C = """
import os, pathlib, signal, socket, sys, threading
from asynctest_kit.provision.client import Client
from asynctest_kit.provision.link import Link
from asynctest_kit.provision.surroundings import come_from_here

ours, theirs = socket.socketpair()

def never_say_farewell():
    with theirs.makefile("rb") as lines:
        for line in lines:
            if b"bye" in line.lower():
                os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=never_say_farewell, daemon=True).start()
client = Client(Link(ours, come_from_here()), pathlib.Path(sys.argv[1]))
client.close(timeout=60.0)
print("left")
"""


async def test_ctrl_c_does_not_wait_for_what_is_still_removed_or_kept(root):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LEAVES_DURING_CTRL_C, str(root), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(50):
        out, _ = await process.communicate()
    assert (out, process.returncode) == (b"left\n", 0)


async def test_what_is_one_clients_own_ends_when_it_is_left(root, client):
    shared, own = await asyncio.gather(
        client.endpoint(REDIS), client.endpoint(spec_of("redis", name="redis.1", provider="embedded", is_own=True))
    )
    assert own.port != shared.port
    [supervisor] = supervisors(root)
    assert len(servers_of(supervisor)) == 2
    client.leave(spec_of("redis", name="redis.1", provider="embedded", is_own=True))
    await eventually(lambda: len(servers_of(supervisor)) == 1, 60)
    async with Redis.from_url(shared.url) as redis:
        assert await redis.ping()
    assert list(client.endpoints) == ["redis"]
    assert client.losses == {}


async def test_what_is_one_clients_own_ends_with_it(root, client):
    await client.endpoint(REDIS)
    client.keep(60.0)
    async with user(root, spec_of("redis", name="redis.2", provider="embedded", is_own=True)) as other:
        await line_of(other)
        [supervisor] = supervisors(root)
        assert len(servers_of(supervisor)) == 2
        other.kill()
        await eventually(lambda: len(servers_of(supervisor)) == 1, 60)
