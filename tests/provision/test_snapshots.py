"""Prepared data is kept between runs, and is a short cut only: without it, or with a broken one, all works as ever."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import asyncpg
import msgspec
import pytest
from provision_traces import eventually, order_of, spec_of
from suites import outcome, running, write_suite

from asynctest_kit.errors import MigrationError, ProvisionError
from asynctest_kit.isolation.templates import ensure_template
from asynctest_kit.provision import snapshots
from asynctest_kit.provision.catalog import spec_for
from asynctest_kit.provision.client import Client
from asynctest_kit.provision.identity import this_process
from asynctest_kit.provision.providers.embedded import Embedded
from asynctest_kit.provision.readiness import NotReadyError
from asynctest_kit.provision.runtime import project_of
from asynctest_kit.provision.visit import Visit
from asynctest_kit.settings import Migrations, load

pytestmark = pytest.mark.anyio


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own; the folder of its snapshots."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "asynctest_kit" / "snapshots"


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file").write_text("content")
    return folder


def kept(cache):
    return sorted(entry.name for entry in cache.iterdir() if entry.is_dir())


class Waiting:
    """A handshake with which no server is ready yet."""

    expectation = "another day"

    async def attempt(self, _address):
        raise NotReadyError("not today")


@asynccontextmanager
async def postgres(project="mine", **options):
    order = order_of(spec_of("postgres", **options))
    order.project = project
    async with Embedded().give(order) as running:
        yield running.endpoint, running


async def names_in(endpoint):
    return await fetched(endpoint, "SELECT datname FROM pg_database")


async def roles_in(endpoint):
    return await fetched(endpoint, r"SELECT rolname FROM pg_roles WHERE rolname NOT LIKE 'pg\_%'")


async def fetched(endpoint, query):
    connection = await asyncpg.connect(endpoint.url)
    try:
        return {name for (name,) in await connection.fetch(query)}
    finally:
        await connection.close()


async def execute(endpoint, statement):
    connection = await asyncpg.connect(endpoint.url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def test_initdb_runs_once(cache):
    passwords = []
    for _ in range(2):
        async with postgres() as (endpoint, _):
            passwords.append(endpoint.password)
            assert await names_in(endpoint) == {"postgres", "template0", "template1"}
        [snapshot] = kept(cache)
        made = (cache / snapshot / "data" / "PG_VERSION").stat().st_mtime_ns
        passwords.append(made)
    assert passwords[1] == passwords[3]  # the snapshot is the first run's
    assert passwords[0] != passwords[2]


@pytest.mark.once
async def test_each_run_has_a_password_of_its_own(cache):
    async with postgres():
        pass
    async with postgres() as (endpoint, _):
        [snapshot] = kept(cache)
        known = (cache / snapshot / "password").read_text()
        assert known != endpoint.password
        stale = endpoint.url.replace(endpoint.password, known)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(stale)


async def test_what_migrations_made_is_there_for_the_same_project_and_what_tests_made_is_not(cache):
    async with postgres(migrations="first") as (endpoint, running):
        await execute(endpoint, "CREATE DATABASE migrated")
        await execute(endpoint, "CREATE ROLE migrated")
        await running.preserve("first")
        await execute(endpoint, "CREATE DATABASE scratch")
        await execute(endpoint, "CREATE ROLE scratch")
        await running.preserve("first")  # once is enough
    async with postgres(migrations="first") as (endpoint, _):
        assert await names_in(endpoint) == {"postgres", "template0", "template1", "migrated"}
        assert await roles_in(endpoint) == {"postgres", "migrated"}
    for project, migrations in (("another", "first"), ("mine", "second")):
        async with postgres(project=project, migrations=migrations) as (endpoint, _):
            assert await names_in(endpoint) == {"postgres", "template0", "template1"}
            assert await roles_in(endpoint) == {"postgres"}
    assert len(kept(cache)) == 2


async def test_other_migrations_than_it_was_asked_for_are_not_kept(cache):
    async with postgres(migrations="first") as (_, running):
        await running.preserve("second")
    assert len(kept(cache)) == 1


@pytest.mark.once
async def test_a_server_that_lets_nobody_copy_it_is_not_kept(cache, caplog):
    async with postgres(migrations="first", command=("-c", "max_wal_senders=0")) as (_, running):
        await running.preserve("first")
    assert len(kept(cache)) == 1
    assert "no snapshot of postgres is kept" in caplog.text


@pytest.mark.once
async def test_a_command_that_no_server_starts_with_is_no_fault_of_the_snapshot(cache):
    async with postgres(migrations="first") as (endpoint, running):
        await execute(endpoint, "CREATE ROLE migrated")
        await running.preserve("first")
    before = kept(cache)
    assert len(before) == 2
    with pytest.raises(ProvisionError, match="no_such_setting"):
        async with postgres(migrations="first", command=("-c", "no_such_setting=1")):
            pass
    assert kept(cache) == before
    async with postgres(migrations="first") as (endpoint, _):
        assert await roles_in(endpoint) == {"postgres", "migrated"}


@pytest.mark.once
async def test_a_start_whose_time_is_over_is_not_tried_on_fresh_data(cache):
    async with postgres():
        pass
    phases = []
    order = order_of(spec_of("postgres", startup_timeout=0.3), phases)
    order.kind = replace(order.kind, handshake=Waiting())
    with pytest.raises(ProvisionError, match="was not ready within"):
        await Embedded().give(order).__aenter__()
    assert [phase.phase for phase in phases].count("create") == 1


def test_only_the_states_used_last_are_not_outdated(cache, data):
    for number in range(5):
        snapshots.keep(f"plain-mine-{number}", data, "secret")
        os.utime(cache / f"plain-mine-{number}", (number, number))
    snapshots.keep("plain-another-0", data, "secret")
    assert sorted(snapshots.outdated("plain-mine-")) == ["plain-mine-0", "plain-mine-1"]


def test_of_a_user_s_snapshots_those_used_last_stay(cache, data):
    for number in range(32):
        snapshots.keep(f"project{number}-state", data, "secret")
        os.utime(cache / f"project{number}-state", (1000.0 + number, 1000.0 + number))
    (cache / "gone.lock").touch()
    assert snapshots.outdated("project31-") == ["project1-state", "project0-state"]
    assert snapshots.prune(float("inf")) == ["project1-state", "project0-state"]
    assert len(kept(cache)) == 30


@pytest.mark.once
async def test_what_nobody_wants_kept_is_not(cache):
    async with postgres() as (endpoint, _):
        await execute(endpoint, "CREATE DATABASE scratch")
    async with postgres() as (endpoint, _):
        assert "scratch" not in await names_in(endpoint)


@pytest.mark.once
async def test_where_there_are_to_be_none_none_is_made_and_none_is_used(cache):
    async with Embedded().give(order_of(spec_of("postgres", snapshots=False), phases := [])):
        pass
    assert not cache.exists()
    assert "snapshot" not in {phase.phase for phase in phases}
    async with Embedded().give(order_of(spec_of("postgres"))):
        pass
    [snapshot] = [entry for entry in cache.iterdir() if entry.is_dir()]
    os.utime(snapshot, (1.0, 1.0))
    async with Embedded().give(order_of(spec_of("postgres", snapshots=False))):
        pass
    assert snapshot.stat().st_mtime == 1.0  # whoever uses it notes that


@pytest.mark.once
async def test_another_user_is_another_snapshot(cache):
    for user in ("postgres", "owner"):
        async with postgres(environment={"POSTGRES_USER": user}) as (endpoint, _):
            assert endpoint.username == user
            assert user in await names_in(endpoint)
    assert len(kept(cache)) == 2


@pytest.mark.once
@pytest.mark.parametrize("harm", ["global/pg_control", "PG_VERSION", "postgresql.conf"])
async def test_a_broken_snapshot_costs_a_second_start(cache, harm):
    async with postgres():
        pass
    [snapshot] = kept(cache)
    (cache / snapshot / "data" / harm).write_bytes(b"broken")
    async with postgres() as (endpoint, _):
        assert "postgres" in await names_in(endpoint)
    async with postgres() as (endpoint, _):
        assert "postgres" in await names_in(endpoint)


@pytest.mark.once
@pytest.mark.parametrize("obstacle", ["a file", "open to others", "nowhere"])
async def test_without_a_cache_it_works_as_ever(tmp_path, monkeypatch, obstacle):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if obstacle == "a file":
        (tmp_path / "cache").write_text("")
    elif obstacle == "open to others":
        folder = tmp_path / "cache" / "asynctest_kit" / "snapshots"
        folder.mkdir(parents=True)
        folder.chmod(0o755)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    async with postgres() as (endpoint, _):
        assert "postgres" in await names_in(endpoint)


@pytest.mark.once
async def test_many_at_once_make_and_use_one(cache):
    async def once():
        async with postgres() as (endpoint, _):
            return await names_in(endpoint)

    assert await asyncio.gather(*(once() for _ in range(6))) == [{"postgres", "template0", "template1"}] * 6
    assert len(kept(cache)) == 1


def test_copies_are_whole_while_it_is_replaced(cache, data, tmp_path):
    snapshots.keep("key", data, "0")

    def replace(number):
        snapshots.keep("key", data, str(number))

    def copy(number):
        target = tmp_path / f"copy-{number}"
        password = snapshots.restore("key", target)
        return password, (target / "inner" / "file").read_text()

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(job, number) for number in range(40) for job in (replace, copy)]
        copies = [result for job in jobs if (result := job.result()) is not None]
    assert {text for _, text in copies} == {"content"}
    assert {password for password, _ in copies} <= set(map(str, range(40)))
    assert kept(cache) == ["key"]


def test_nothing_is_restored_from_nothing(cache, tmp_path):
    assert snapshots.restore("unknown", tmp_path / "target") is None
    assert not (tmp_path / "target").exists()


def test_what_nobody_uses_is_pruned(cache, data):
    for key in ("old", "new"):
        snapshots.keep(key, data, "secret")
    month_ago = time.time() - 30 * 86400
    os.utime(cache / "old", (month_ago, month_ago))
    half = cache / ".half"
    half.mkdir()
    dead = msgspec.structs.replace(this_process(), started="0")
    (cache / ".half.owner").symlink_to(msgspec.json.encode(dead).decode())
    assert snapshots.prune(14 * 86400) == ["old"]
    assert snapshots.sweep() == [".half"]
    assert kept(cache) == ["new"]


def test_its_password_is_private(cache, data):
    snapshots.keep("key", data, "secret")
    assert Path(cache / "key" / "password").stat().st_mode & 0o777 == 0o600
    assert cache.stat().st_mode & 0o777 == 0o700


@pytest.mark.once
async def test_changed_migrations_are_made_where_the_former_ones_were_not(tmp_path, cache):
    root, sql = tmp_path / "project", tmp_path / "project/sql"
    sql.mkdir(parents=True)
    suite = """
        import pytest

        pytestmark = pytest.mark.anyio

        async def test_roles(pg):
            rows = await pg.fetch("SELECT rolname FROM pg_roles WHERE rolname LIKE 'app%' ORDER BY 1")
            assert [name for (name,) in rows] == ROLES
    """
    settings = """
        provider = "embedded"
        [tool.asynctest_kit.services.postgres]
        migrations = { sql = "sql" }
    """
    scripts = {"1.sql": "CREATE ROLE app_reader;", "2.sql": "CREATE ROLE app_writer;"}
    for number, (name, text) in enumerate(scripts.items()):
        (sql / name).write_text(text)
        roles = str(["app_reader", "app_writer"][: number + 1])
        write_suite(root, suite.replace("ROLES", roles), settings)
        async with running(root, XDG_CACHE_HOME=str(tmp_path)) as run:
            out, code = await outcome(run)
        assert code == 0, out
        assert len([name for name in kept(cache) if project_of(root).key in name]) == number + 1


@pytest.mark.once
async def test_migrations_that_change_the_server_have_it_for_themselves(root, cache):
    sql = root / "sql"
    sql.mkdir()
    settings = """
        provider = "embedded"
        [tool.asynctest_kit.services.postgres]
        migrations = { sql = "sql" }
    """
    one_test = """
        import pytest

        @pytest.mark.anyio
        async def test_works(pg):
            assert await pg.fetchval("SELECT count(*) FROM app") == 0
    """
    write_suite(root, one_test, settings)

    async def migrated(client):
        """A server that has been migrated as it says now, and nothing else."""
        service = load(paths=(), directory=root, environ={}, options={})
        server = await client.endpoint(spec_for("postgres", service))
        claim = partial(client.claim, "postgres")
        await ensure_template(server, service.services["postgres"].migrations, root=root, claimed=claim)
        return server

    def is_up():
        visit = Visit.at(root)
        with closing(visit):
            return [state.endpoint for state in visit.survey().services]

    (sql / "1.sql").write_text("CREATE TABLE app ();")
    with closing(Client.connect(root)) as keeper:
        keeper.keep(600)
        with closing(Client.connect(root)) as client:
            plain = await migrated(client)
        (sql / "2.sql").write_text("CREATE ROLE reader;")
        async with running(root) as run:
            out, code = await outcome(run)
        assert code == 0, out
        assert await asyncio.to_thread(is_up) == [plain]  # nobody had claimed it
        (sql / "3.sql").write_text("CREATE ROLE writer;")
        (sql / "4.sql").write_text("SELECT 1/0;")
        with closing(Client.connect(root)) as client:
            with pytest.raises(MigrationError, match="division by zero"):
                await migrated(client)
            with pytest.raises(
                MigrationError, match=r'(?s)role "reader" already exists.*begin with a fresh .*atk down'
            ):
                await migrated(client)
        (sql / "4.sql").write_text("-- nothing any more")
        with closing(Client.connect(root)) as client:
            mended = await migrated(client)
            assert await roles_in(mended) == {"postgres", "reader", "writer"}
            assert await asyncio.to_thread(is_up) == [mended]
            (sql / "3.sql").unlink()
            with closing(Client.connect(root)) as other:  # as on another branch
                theirs = await migrated(other)
            assert await roles_in(theirs) == {"postgres", "reader"}
            assert await asyncio.to_thread(is_up) == [mended, theirs]
        keeper.keep(0)


@pytest.mark.once
async def test_a_server_whose_migrations_were_killed_or_cut_short_is_left_to_nobody(root):
    spec = spec_of("postgres", provider="embedded")
    sql = root / "sql"
    sql.mkdir()
    migrations = Migrations(sql=sql)
    (sql / "1.sql").write_text("CREATE ROLE half_way;")
    (sql / "2.sql").write_text("SELECT pg_sleep(600);")

    async def half_way(server, client, claimed):
        """Its task, once the role is there."""
        begin = partial(client.claim, "postgres", is_open=True)
        task = asyncio.create_task(ensure_template(server, migrations, root=root, claimed=claimed, begun=begin))
        while "half_way" not in await roles_in(server):
            assert not task.done(), task.result()
            await asyncio.sleep(0.02)
        return task

    async def cut_short(task):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    def clients():
        with closing(Visit.at(root)) as visit:
            return visit.survey().clients

    with closing(Client.connect(root)) as keeper:
        servers = [await keeper.endpoint(spec)]
        with closing(Client.connect(root)) as interrupted:
            assert await interrupted.endpoint(spec) == servers[0]
            await cut_short(await half_way(servers[0], interrupted, partial(interrupted.claim, "postgres")))
        killed = Client.connect(root)
        servers.append(await killed.endpoint(spec))
        task = await half_way(servers[1], killed, lambda _: None)
        killed._link.close()  # as its end would, without a word
        await eventually(lambda: clients() == 1, seconds=60)
        await cut_short(task)
        with closing(Client.connect(root)) as third:
            servers.append(await third.endpoint(spec))
            assert len({server.url for server in servers}) == 3
            assert "half_way" not in await roles_in(servers[2])
