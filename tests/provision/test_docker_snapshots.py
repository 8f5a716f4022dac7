"""Containers start from an image that holds prepared data, and without it, or with a broken one, as ever."""

from __future__ import annotations

from contextlib import asynccontextmanager

import asyncpg
import pytest
from provision_traces import order_of, spec_of

from asynctest_kit.provision import snapshots
from asynctest_kit.provision.providers.docker import Docker
from asynctest_kit.provision.providers.docker_snapshots import LABEL, remove_unknown

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


@asynccontextmanager
async def postgres(docker, project="mine"):
    phases = []
    order = order_of(spec_of("postgres"), phases)
    order.project = project
    async with docker.give(order) as running:
        connection = await asyncpg.connect(running.endpoint.url)
        try:
            names = {name for (name,) in await connection.fetch("SELECT datname FROM pg_database")}
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

    monkeypatch.setattr("provision_traces.Order", Noted)


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


def keys():
    return [file.parent.name for file in snapshots._folder().glob("*/image")]


async def test_what_is_worth_keeping_is_there_for_the_same_project(cache, docker):
    async with postgres(docker) as (connection, _, order):
        await connection.execute("CREATE DATABASE migrated")
        await connection.execute("CREATE TABLE rows AS SELECT generate_series(1, 1000) AS number")
        order.is_worth_keeping = True
    async with postgres(docker) as (connection, names, _):
        assert "migrated" in names
        assert await connection.fetchval("SELECT count(*) FROM rows") == 1000
    async with postgres(docker, project="another") as (_, names, _):
        assert "migrated" not in names


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


async def test_nothing_is_kept_in_a_hurry(cache, docker):
    async with postgres(docker) as (connection, _, order):
        await connection.execute("CREATE DATABASE migrated")
        order.is_worth_keeping, order.may_keep = True, False
    assert "snapshot" not in order.seen
    assert not snapshots.images()
