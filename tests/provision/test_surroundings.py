"""Clients of one supervisor that have other engines and binaries around them, or other settings."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing

import msgspec
import pytest
from engine_proxy import proxy
from provision_traces import BUSYBOX, container_of, docker_context, line_of, spec_of, supervisors, user

from asynctest_kit.container_options import Build, ContainerOptions, ImageSource
from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.catalog.redis import REDIS as REDIS_KIND
from asynctest_kit.provision.client import Client
from asynctest_kit.provision.messages import Run
from asynctest_kit.provision.providers.embedded import Search
from asynctest_kit.provision.service import Program, same_container, same_server
from asynctest_kit.provision.supply import Supply
from asynctest_kit.provision.visit import Visit

pytestmark = pytest.mark.anyio

BOX = container_of("sleep 600", provider="docker")
REDIS = spec_of("redis")


@pytest.fixture
def client_with(root, monkeypatch):
    """Another client of the project, in an environment of its own."""
    clients = []

    def connect(**environ):
        with monkeypatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, str(value))
            clients.append(Client.connect(root))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


async def ignore(_output):
    pass


def name_in_box(root):
    """What somebody who looks in finds in the box."""
    written = []
    with closing(Visit.at(root)) as visit:
        visit.reach(Run(0, "box", Program(argv=("cat", "/name"))), written.append)
    return b"".join(output.data for output in written).decode().strip()


@pytest.mark.once
async def test_each_client_is_served_by_the_engine_that_it_names(engine, root, tmp_path, client_with, monkeypatch):
    first = client_with(DOCKER_HOST=engine.location.url)
    mine = await first.endpoint(BOX)
    (tmp_path / "link").symlink_to(engine.location.url.removeprefix("unix://"))
    assert await client_with(DOCKER_HOST=f"unix://{tmp_path / 'link'}").endpoint(BOX) == mine

    async with proxy(engine) as url:
        elsewhere = client_with(DOCKER_HOST=url)
        theirs = await elsewhere.endpoint(BOX)
        assert theirs.detail.startswith(f"{BUSYBOX} at {url.replace('tcp', 'http')} in asynctest_kit-box-")
        assert mine.detail.startswith(f"{BUSYBOX} in asynctest_kit-box-")
        assert await first.endpoint(msgspec.structs.replace(BOX, startup_timeout=7.0)) == mine
        for endpoint in (mine, theirs):
            name = endpoint.detail.rpartition(" in ")[2]
            assert not await engine.stream(name, Program(argv=("sh", "-c", f"echo {name} >/name")), ignore)
        visit = await asyncio.to_thread(Visit.at, root)
        survey = await asyncio.to_thread(visit.survey)
        visit.close()
        assert [(state.endpoint, state.is_own) for state in survey.services] == [(mine, True), (theirs, False)]
        for address, endpoint in ((engine.location.url, mine), (url, theirs)):
            monkeypatch.setenv("DOCKER_HOST", address)
            assert endpoint.detail.endswith(await asyncio.to_thread(name_in_box, root))
        await asyncio.to_thread(elsewhere.close)

    nowhere = client_with(DOCKER_HOST=f"unix://{tmp_path / 'nowhere'}")
    with pytest.raises(ProvisionError, match=f"docker: no Docker engine answers at {tmp_path / 'nowhere'}"):
        await nowhere.endpoint(BOX)
    local = await nowhere.endpoint(REDIS)
    assert local.provider == "embedded"
    assert (await first.endpoint(REDIS)).provider == "docker"
    assert len(supervisors(root)) == 1


async def test_each_client_has_its_own_credentials_and_context(engine, tmp_path, client_with):
    await client_with().endpoint(BOX)  # the supervisor has started in another environment than theirs
    (tmp_path / "config.json").write_text('{"credsStore": "no-such-helper", "currentContext": "default"}')
    image = msgspec.structs.replace(BOX, image="localhost:1/no/such:image")
    with pytest.raises(ProvisionError, match="credential helper `docker-credential-no-such-helper`"):
        await client_with(DOCKER_CONFIG=tmp_path).endpoint(image)
    (tmp_path / "config.json").write_text('{"currentContext": "typo"}')
    with pytest.raises(ProvisionError, match="names the Docker context 'typo'"):
        await client_with(DOCKER_CONFIG=tmp_path).endpoint(BOX)
    with pytest.raises(ProvisionError, match=r"no Docker engine answers at /nowhere-\?: No such file"):
        await client_with(DOCKER_HOST=os.fsdecode(b"unix:///nowhere-\xe9")).endpoint(BOX)  # which is no text
    with pytest.raises(ProvisionError, match=f"the TLS files of the Docker engine in {tmp_path}"):
        tls = {"DOCKER_HOST": "tcp://127.0.0.1:1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": tmp_path}
        await client_with(**tls).endpoint(BOX)


async def test_an_engine_that_comes_later_serves_each_what_it_asks_for(engine, tmp_path, client_with):
    environ = {"DOCKER_HOST": "", "DOCKER_CONTEXT": "later", "DOCKER_CONFIG": tmp_path}
    one, other = client_with(**environ), client_with(**environ)
    with pytest.raises(ProvisionError, match="names the Docker context 'later'"):
        await one.endpoint(msgspec.structs.replace(BOX, startup_timeout=50.0))
    with pytest.raises(ProvisionError, match="names the Docker context 'later'"):
        await other.endpoint(BOX)
    docker_context(tmp_path, "later", {"docker": {"Host": engine.location.url}})
    box = await one.endpoint(BOX)
    with pytest.raises(ProvisionError, match="the image localhost:1/no/such:image is not there"):
        await other.endpoint(msgspec.structs.replace(BOX, image="localhost:1/no/such:image"))
    assert await client_with(**environ).endpoint(BOX) == box


async def test_who_has_no_engine_for_another_reason_is_served_apart(tmp_path, client_with):
    environ = {"DOCKER_HOST": "", "DOCKER_CONTEXT": "typo", "DOCKER_CONFIG": tmp_path}
    first = await client_with(**environ).endpoint(REDIS)
    assert await client_with(**environ).endpoint(REDIS) == first
    other = await client_with(DOCKER_HOST="npipe:////./pipe/docker_engine").endpoint(REDIS)
    assert "names the Docker context 'typo'" in first.detail
    assert "DOCKER_HOST is npipe:// " in other.detail.replace(",", " ")


async def test_a_repr_of_what_a_client_has_shows_nothing_of_its_environment():
    assert "s3cret" not in repr(Supply({"TOKEN": "s3cret"}, ()))


def environment(path, server, content):
    """A folder to import from that has a wheel with that server."""
    wheel = REDIS_KIND.embedded.wheel
    system, machine = os.uname().sysname.lower(), os.uname().machine
    folder = path / wheel.package / wheel.folder.format(system=system, machine=machine)
    folder.mkdir(parents=True)
    (path / wheel.package / "__init__.py").touch()
    (folder / server.name).write_bytes(content)
    (folder / server.name).chmod(0o755)
    return path


def another(server):
    """One that does the same, and is not the same."""
    return f'#!/bin/sh\nexec {server} "$@"\n'.encode()


async def test_each_client_is_served_by_its_own_binaries(root, tmp_path, client_with):
    embedded = msgspec.structs.replace(REDIS, provider="embedded")
    server = Search().server(REDIS_KIND.embedded)
    here = await client_with().endpoint(embedded)
    same = environment(tmp_path / "same", server, server.read_bytes())
    other = environment(tmp_path / "other", server, another(server))
    async with user(root, embedded, python_path=same) as one, user(root, embedded, python_path=other) as two:
        assert await line_of(one) == here.url
        theirs = await line_of(two)
        assert theirs != here.url
        visit = await asyncio.to_thread(Visit.at, root)
        survey = await asyncio.to_thread(visit.survey)
        visit.close()
    assert [(state.endpoint.url, state.is_own) for state in survey.services] == [(here.url, True), (theirs, False)]
    assert len(supervisors(root)) == 1


async def test_a_claimed_server_gives_way_only_to_one_from_the_same_binary(root, tmp_path, client_with):
    embedded = msgspec.structs.replace(REDIS, provider="embedded")
    server = Search().server(REDIS_KIND.embedded)
    other = environment(tmp_path / "other", server, another(server))
    client_with()  # stays, and uses none of them
    claimer = client_with()
    claimed = await claimer.endpoint(embedded)
    claimer.claim("redis", "these")
    await asyncio.to_thread(claimer.close)

    def up():
        with closing(Visit.at(root)) as visit:
            return [state.endpoint.url for state in visit.survey().services]

    async with user(root, embedded, python_path=other) as elsewhere:
        theirs = await line_of(elsewhere)
        assert await asyncio.to_thread(up) == [claimed.url, theirs]
        instead = await client_with().endpoint(embedded)
        assert await asyncio.to_thread(up) == [theirs, instead.url]


LIMITS = {
    "migrations": "other",
    "provider": "embedded",
    "startup_timeout": 9.0,
    "publish_openly": True,
    "snapshots": False,
    "images": ImageSource(pull="never", stall=1.0),
    "container": ContainerOptions(pull="never"),
}


def identity(spec, usual_image="any"):
    return same_server(spec), same_container(spec, usual_image)


@pytest.mark.parametrize("field", LIMITS)
async def test_what_does_not_change_the_server_does_not_make_another(field):
    assert identity(msgspec.structs.replace(REDIS, **{field: LIMITS[field]})) == identity(REDIS)


async def test_an_image_is_known_by_the_name_under_which_it_is_to_be_had():
    plain, named, mirrored = (
        identity(spec_of("redis", image=image, images=ImageSource(prefix=prefix)), "redis:7")
        for image, prefix in [(None, None), ("redis:7", None), (None, "mirror.example")]
    )
    assert plain == named != mirrored
    assert mirrored == identity(spec_of("redis", image="mirror.example/redis:7"))


async def test_the_limit_of_a_build_is_none_of_its_image():
    def built(**fields):
        return identity(spec_of("redis", container=ContainerOptions(build=Build(context="/c", **fields))))

    assert built(timeout=1.0, digest="a") == built(timeout=2.0, digest="a") != built(timeout=1.0, digest="b")


@pytest.mark.parametrize(
    "change",
    [{"command": ("--maxmemory", "1mb")}, {"environment": {"A": "1"}}, {"container": ContainerOptions(memory=1 << 28)}],
    ids=lambda change: next(iter(change)),
)
async def test_what_changes_the_server_makes_another(change):
    assert identity(msgspec.structs.replace(REDIS, **change)) != identity(REDIS)


async def test_what_runs_is_found_by_those_who_ask_in_other_words(root, client_with):
    by_name = msgspec.structs.replace(REDIS, provider="embedded", startup_timeout=50.0)
    kept = await client_with().endpoint(by_name)
    needs_it = container_of("", name="needs-it", provider="external", url=f"http://127.0.0.1:{kept.port}")
    found = [
        await client_with().endpoint(REDIS),
        await client_with().endpoint(msgspec.structs.replace(by_name, image="nobody:looks", startup_timeout=1.0)),
        await client_with(DOCKER_HOST="unix:///nowhere").endpoint(REDIS),
    ]
    assert found == [kept, kept, kept]
    for need in (by_name, REDIS):
        await client_with().endpoint(msgspec.structs.replace(needs_it, needs=(need,), ports={}))
    visit = await asyncio.to_thread(Visit.at, root)
    survey = await asyncio.to_thread(visit.survey)
    visit.close()
    assert [state.name for state in survey.services] == ["redis", "needs-it"]


async def test_one_who_wants_another_provider_by_name_gets_it(engine, client_with):
    embedded, docker, either = (msgspec.structs.replace(REDIS, provider=by) for by in ("embedded", "docker", "auto"))
    first = await client_with().endpoint(embedded)
    second = await client_with().endpoint(docker)
    assert (first.provider, second.provider) == ("embedded", "docker")
    assert await client_with().endpoint(either) == second  # its own first choice
