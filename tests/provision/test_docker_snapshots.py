"""Containers start from an image that holds prepared data, and without it, or with a broken one, as ever."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest
from provision_traces import IMAGES, order_of, spec_of

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision import snapshots
from asynctest_kit.provision.providers.docker import Docker
from asynctest_kit.provision.providers.docker_snapshots import LABEL, _back_up, _Backup, remove_unknown
from asynctest_kit.provision.readiness import RejectedError

pytestmark = pytest.mark.anyio


@pytest.fixture
async def cache(engine, tmp_path, monkeypatch):
    """A cache folder of the test's own; the images that it names are removed at the end."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield
    for image in snapshots.images():
        await engine.remove_image(image)


@pytest.fixture
async def docker():
    async with Docker(session="snapshots", project="tests") as provider:
        yield provider


class Recorder:
    """An engine in which every program succeeds."""

    argv = ()

    async def stream(self, _container, program, _take, **_):
        self.argv = program.argv
        return 0


async def test_a_name_with_braces_is_taken_as_it_is():
    engine, order = Recorder(), order_of(spec_of("postgres", environment={"POSTGRES_USER": "{0}{folder}"}))
    plan = order.kind.container(order.spec, order.login)
    await _back_up(engine, _Backup("container", "/backup"), plan)
    assert "{0}{folder}" in engine.argv[engine.argv.index("pg_basebackup") :]
    assert engine.argv[engine.argv.index("-D") + 1] == "/backup"


class Refusing:
    """A handshake with which no server is ready, whatever its data."""

    expectation = "nothing"

    async def attempt(self, _address):
        raise RejectedError("never")


@asynccontextmanager
async def postgres(docker, project="mine", **fields):
    phases = []
    order = order_of(spec_of("postgres", **fields), phases)
    order.project = project
    async with docker.give(order) as running:
        connection = await asyncpg.connect(running.endpoint.url)
        try:
            names = {name for (name,) in await connection.fetch("SELECT datname FROM pg_database")}
            order.preserve = running.preserve
            yield connection, names, order
        finally:
            await connection.close()
    order.seen = [phase.phase for phase in phases]


@pytest.fixture(autouse=True)
def _orders_keep_their_phases(monkeypatch):
    """Orders have slots; these tests note what was seen in a subclass."""
    from asynctest_kit.provision import providers

    class Noted(providers.Order):
        seen = ()
        preserve = None

    monkeypatch.setattr("provision_traces.Order", Noted)


@pytest.mark.once
async def test_where_there_are_to_be_none_none_is_made(cache, docker):
    async with postgres(docker, snapshots=False) as (_, _, order):
        pass
    assert "snapshot" not in order.seen
    assert snapshots.images() == set()


@pytest.mark.once
async def test_it_is_prepared_once_and_each_start_has_its_password(cache, docker, engine):
    async with postgres(docker) as (_, names, first):
        assert names == {"postgres", "template0", "template1"}
    async with postgres(docker) as (connection, names, second):
        assert names == {"postgres", "template0", "template1"}
        assert await connection.fetchval("SHOW fsync") == "off"
    assert "snapshot" in first.seen
    assert "snapshot" not in second.seen
    [image] = snapshots.images()
    assert (await engine.image_id(image)).startswith("sha256:")
    [(noted, password)] = [snapshots.image_of(key) for key in keys()]
    assert noted == image
    assert password == first.login.password != second.login.password


@pytest.mark.once
async def test_where_the_images_data_folder_is_a_volume_the_data_is_put_elsewhere(cache, docker, engine):
    """What a container has in a volume is in no image that is made of it."""
    config = await engine.image_config(IMAGES["postgres"])
    [volume] = config["Volumes"]
    assert f"PGDATA={volume}" in config["Env"]
    async with postgres(docker, migrations="first") as (connection, _, order):
        assert await connection.fetchval("SHOW data_directory") != volume
        await connection.execute("CREATE DATABASE migrated")
        await order.preserve("first")
    async with postgres(docker, migrations="first") as (_, names, _):
        assert "migrated" in names


@pytest.mark.once
async def test_of_data_in_a_volume_no_snapshot_is_made_and_that_is_told(cache, docker, engine, caplog):
    [volume] = (await engine.image_config(IMAGES["postgres"]))["Volumes"]
    async with postgres(docker, environment={"PGDATA": f"{volume}/mine"}) as (connection, _, order):
        assert await connection.fetchval("SHOW data_directory") == f"{volume}/mine"
    assert not snapshots.images()
    assert "create" in order.seen and "snapshot" not in order.seen
    assert (
        f"no snapshot of postgres is kept: its data folder {volume}/mine is in the image's volume {volume}"
        in caplog.text
    )


@pytest.mark.once
async def test_of_several_that_start_at_once_one_is_taken(cache, docker):
    async with postgres(docker) as (_, _, first), postgres(docker) as (_, _, second):
        pass
    assert ["snapshot" in order.seen for order in (first, second)] == [True, False]
    assert len(keys()) == 1


def keys():
    return [file.parent.name for file in snapshots._folder().glob("*/image")]


@pytest.mark.once
async def test_what_migrations_made_is_there_for_the_same_project_and_what_tests_made_is_not(cache, docker):
    async with postgres(docker, migrations="first") as (connection, _, order):
        await connection.execute("CREATE DATABASE migrated")
        await connection.execute("CREATE TABLE rows AS SELECT generate_series(1, 1000) AS number")
        await connection.execute("CREATE ROLE migrated")
        await order.preserve("first")
        await connection.execute("CREATE DATABASE scratch")
        await connection.execute("CREATE ROLE scratch")
        await order.preserve("first")  # once is enough
    async with postgres(docker, migrations="first") as (connection, names, _):
        assert names >= {"migrated"} and "scratch" not in names
        assert await roles(connection) == {"postgres", "migrated"}
        assert await connection.fetchval("SELECT count(*) FROM rows") == 1000
    for project, migrations in (("another", "first"), ("mine", "second")):
        async with postgres(docker, project=project, migrations=migrations) as (connection, names, _):
            assert names == {"postgres", "template0", "template1"}
            assert await roles(connection) == {"postgres"}


@pytest.mark.once
async def test_other_migrations_than_it_was_asked_for_are_not_kept(cache, docker):
    async with postgres(docker, migrations="first") as (_, _, order):
        await order.preserve("second")
    assert len(keys()) == 1


@pytest.mark.once
async def test_only_the_states_used_last_are_kept(cache, docker, engine, monkeypatch):
    monkeypatch.setattr(snapshots, "_NEWEST", 1)
    images = []
    for number in range(2):
        async with postgres(docker, migrations=f"state-{number}") as (_, _, order):
            await order.preserve(f"state-{number}")
        images.append({snapshots.image_of(key)[0] for key in keys() if key.endswith(f"state-{number}")}.pop())
    assert [key[-7:] for key in keys() if "-mine-" in key] == ["state-1"]
    assert len(keys()) == 2
    assert [await engine.has_image(image) for image in images] == [False, True]


async def roles(connection):
    return {name for (name,) in await connection.fetch(r"SELECT rolname FROM pg_roles WHERE rolname NOT LIKE 'pg\_%'")}


@pytest.mark.once
async def test_data_that_is_too_large_is_not_kept(cache, docker, monkeypatch, caplog):
    monkeypatch.setattr("asynctest_kit.provision.providers.docker_snapshots._LARGEST", 1 << 20)
    async with postgres(docker) as (connection, _, _):
        assert await roles(connection) == {"postgres"}
    assert not snapshots.images()
    assert "its data is larger than 1 MiB" in caplog.text


@pytest.mark.once
async def test_what_does_not_start_on_fresh_data_either_is_no_fault_of_the_snapshot(cache, docker):
    async with postgres(docker, migrations="first") as (_, _, order):
        await order.preserve("first")
    before = snapshots.images()
    assert len(before) == 2
    order = order_of(spec_of("postgres", migrations="first"))
    order.project = "mine"
    order.kind = replace(order.kind, handshake=Refusing())
    with pytest.raises(ProvisionError, match="never"):
        await docker.give(order).__aenter__()
    assert snapshots.images() == before


@pytest.mark.once
async def test_an_image_that_is_gone_or_of_no_use_is_made_afresh(cache, docker, engine):
    async with postgres(docker):
        pass
    [image] = snapshots.images()
    await engine.remove_image(image)
    async with postgres(docker) as (_, names, order):
        assert "postgres" in names
    assert "snapshot" in order.seen
    [key] = keys()
    [image] = snapshots.images()
    assert snapshots.keep_image(key, image, "not the password")
    async with postgres(docker) as (_, names, order):
        assert "postgres" in names
    assert order.seen.count("create") == 2


@pytest.mark.once
async def test_images_that_nobody_knows_of_are_removed(cache, docker, engine):
    async with postgres(docker):
        pass
    [image] = snapshots.images()
    assert image in await engine.labelled_images(LABEL)
    assert image not in await remove_unknown(engine)
    for key in keys():
        snapshots.remove(key)
    assert image in await remove_unknown(engine)
    assert image not in await engine.labelled_images(LABEL)


@pytest.mark.once
async def test_nothing_is_kept_in_a_hurry(cache, docker):
    async with postgres(docker) as (connection, _, order):
        await connection.execute("CREATE DATABASE migrated")
        await order.preserve("")
        order.may_keep = False
    assert not snapshots.images()
