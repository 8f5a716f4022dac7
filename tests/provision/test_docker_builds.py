"""Images built from a Dockerfile: once for each change, and told well when they fail."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import tarfile
from secrets import token_hex

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from provision_traces import IMAGES, order_of, spec_of
from redis.asyncio import Redis
from registries import PASSWORD, USER, publish, registry

from asynctest_kit.container_options import Build, ContainerOptions
from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision import build_context, copied_files, snapshots
from asynctest_kit.provision.providers.docker import Docker

pytestmark = pytest.mark.anyio


@pytest.fixture
async def docker(engine, tmp_path, monkeypatch):
    """A provider with a cache folder of its own, by which the images that it built are known and removed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    async with Docker(session=token_hex(6), project="tests") as provider:
        yield provider
        await provider.remove_unused_images(0.0)


@pytest.fixture
def context(tmp_path):
    folder = tmp_path / "context"
    folder.mkdir()
    return folder


def built(context, **fields):
    options = ContainerOptions(build=Build(context=str(context), **fields))
    return copied_files.with_digests(options, "cache")


async def start(docker, options, notes=None):
    """The phases of a service's start, and what a key says in it that its image's entry point sets."""
    phases = []
    order = order_of(spec_of("redis", container=options), phases)
    order.note = (notes if notes is not None else []).append
    async with (
        docker.give(order) as running,
        Redis.from_url(running.endpoint.url, decode_responses=True) as redis,
    ):
        said = (await redis.config_get("maxmemory"))["maxmemory"]
    return "pull" in [phase.phase for phase in phases], said


def dockerfile(context, text):
    (context / "Dockerfile").write_text(text.replace("BASE", IMAGES["redis"]))


@pytest.mark.once
async def test_it_is_built_once_for_each_change(docker, engine, context):
    # Not what another run of this test has built on this engine.
    (context / "entry.sh").write_text(f'exec "$@" --maxmemory "$MEMORY" # {token_hex(8)}\n')
    dockerfile(
        context,
        """
        FROM BASE AS plain
        ARG MEMORY
        ENV MEMORY=$MEMORY
        COPY entry.sh /
        ENTRYPOINT ["sh", "/entry.sh"]
        FROM plain AS other
        ENV MEMORY=3000000
        """,
    )
    notes = []
    assert await start(docker, built(context, arguments={"MEMORY": "1000000"}, target="plain"), notes) == (
        True,
        "1000000",
    )
    assert any(note.startswith("building, Step 1/") for note in notes)
    assert await start(docker, built(context, arguments={"MEMORY": "1000000"}, target="plain")) == (False, "1000000")
    assert await start(docker, built(context)) == (True, "3000000")
    made = await engine.labelled_images(f"asynctest_kit.build={snapshots.cache_id()}")
    assert len(made) == 2
    assert await docker.remove_unused_images(3600.0) == []
    assert sorted(await docker.remove_unused_images(0.0)) == sorted(made)


async def labelled_image(engine, name):
    """An image by that name that says it was built by us; its id."""
    container = f"asynctest_kit-{token_hex(6)}"
    await engine.create(container, {"Image": IMAGES["redis"], "Labels": {"any": token_hex(6)}})
    try:
        await engine.commit(container, name, {"asynctest_kit.build": snapshots.cache_id()})
    finally:
        await engine.remove(container)
    return await engine.image_id(name)


async def test_a_build_that_lost_its_name_to_the_next_is_removed_too(docker, engine):
    name = f"asynctest_kit/build:{token_hex(6)}"
    first, second = [await labelled_image(engine, name) for _ in range(2)]
    assert set(await docker.remove_unused_images(0.0)) == {first, name}
    assert not any([await engine.has_image(image) for image in (first, second)])


async def test_an_image_that_the_engine_does_not_remove_keeps_no_other(docker, engine):
    name = f"asynctest_kit/build:{token_hex(6)}"
    await labelled_image(engine, name)
    assert await engine.remove_images(["no:valid:name", name]) == [name]


@pytest.mark.once
async def test_two_services_of_one_build_wait_for_one(docker, context):
    dockerfile(context, f"FROM BASE\nENV ONE={token_hex(8)}\n")  # which no other run of this test has built
    options = built(context)
    assert sorted(await asyncio.gather(*(start(docker, options) for _ in range(2)))) == [(False, "0"), (True, "0")]


async def test_a_failed_build_is_told_with_its_output_and_no_secret(docker, context):
    dockerfile(context, "FROM BASE\nARG API_TOKEN\nRUN echo about to fail with $API_TOKEN; exit 7\n")
    options = built(context, arguments={"API_TOKEN": "my-secret"})
    with pytest.raises(ProvisionError) as caught:
        await start(docker, options)
    message = str(caught.value)
    assert message.startswith(
        f"The image of the service 'redis' could not be built from {context}/Dockerfile: The command"
    )
    assert "returned a non-zero code: 7" in message
    assert "  | about to fail with ***" in message
    assert "my-secret" not in message


@pytest.mark.once
async def test_a_build_that_takes_too_long_is_told(docker, context):
    dockerfile(context, "FROM BASE\nRUN echo waits; sleep 60\n")
    with pytest.raises(ProvisionError, match=r"it did not end within 2 s\.(.*\n)*  \| waits"):
        await start(docker, built(context, timeout=2.0))


async def test_a_base_is_pulled_as_whom_one_has_logged_in(engine, context, tmp_path):
    async with registry(tmp_path, users=True) as host:
        base = await publish(host, f"team/{token_hex(4)}:1")
        (context / "Dockerfile").write_text(f"FROM {base}\nLABEL any=1\n")
        config = {"auths": {host: {"username": USER, "password": PASSWORD}}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        async with Docker(session="b", project="tests", environ={"DOCKER_CONFIG": str(tmp_path)}) as docker:
            order = order_of(spec_of("redis", container=built(context)))
            with pytest.raises(
                ProvisionError, match="could not start the service 'redis'"
            ):  # built, and nothing to run
                async with docker.give(order):
                    pass
            await engine.remove_image(f"asynctest_kit/build:{order.spec.container.build.digest}")
        await engine.remove_image(base)


def names(context, **fields):
    """What is sent to the engine."""
    archive = io.BytesIO()
    build_context.pack(Build(context=str(context), **fields), archive)
    archive.seek(0)
    with tarfile.open(fileobj=archive) as packed:
        return {member.name for member in packed}


def tree(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)


@pytest.mark.parametrize(
    ("ignored", "sent"),
    [
        ("", {"a.py", "a.txt", "sub", "sub/a.py", "sub/deep", "sub/deep/b.txt", "sub/deep/c.md"}),
        ("# sub\n\n*.py", {"a.txt", "sub", "sub/a.py", "sub/deep", "sub/deep/b.txt", "sub/deep/c.md"}),
        ("**/*.py", {"a.txt", "sub", "sub/deep", "sub/deep/b.txt", "sub/deep/c.md"}),
        ("sub", {"a.py", "a.txt"}),
        ("/sub/deep/", {"a.py", "a.txt", "sub", "sub/a.py"}),
        ("*/deep\n!sub/deep/c.md", {"a.py", "a.txt", "sub", "sub/a.py", "sub/deep/c.md"}),
        ("**\n!a.???", {"a.txt"}),
        ("s?b/[a-z].py\n**/c.*", {"a.py", "a.txt", "sub", "sub/deep", "sub/deep/b.txt"}),
    ],
)
def test_a_dockerignore_means_what_it_means_to_docker(context, ignored, sent):
    tree(context, "a.py", "a.txt", "sub/a.py", "sub/deep/b.txt", "sub/deep/c.md", "Dockerfile")
    (context / ".dockerignore").write_text(ignored)
    assert names(context) == sent | {"Dockerfile", ".dockerignore"}


def test_a_socket_is_passed_over(context, monkeypatch):
    tree(context, "Dockerfile")
    before = build_context.digest(Build(context=str(context)), None)
    monkeypatch.chdir(context)  # its path may be too long for a socket
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("server.sock")
    assert names(context) == {"Dockerfile"}
    assert build_context.digest(Build(context=str(context)), None) == before


def test_the_dockerfile_is_sent_from_a_folder_that_is_ignored(context):
    tree(context, "docker/Dockerfile", "docker/notes", "a.py")
    (context / ".dockerignore").write_text("docker")
    assert names(context, dockerfile="docker/Dockerfile") == {"docker/Dockerfile", "a.py", ".dockerignore"}


@hypothesis_settings(deadline=None, max_examples=25)
@given(st.dictionaries(st.sampled_from(["a", "b", "c/d"]), st.binary(max_size=3)), st.sampled_from(["a", "b", "c/d"]))
def test_the_digest_changes_with_what_is_sent_and_with_nothing_else(tmp_path_factory, contents, changed):
    folder = tmp_path_factory.mktemp("context")
    tree(folder, "Dockerfile", "left-out")
    (folder / ".dockerignore").write_text("left-out")
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    build = Build(context=str(folder))
    before = build_context.digest(build, None)
    (folder / "left-out").write_text("changed")
    assert build_context.digest(build, None) == before
    assert build_context.digest(build, "linux/arm64") != before
    assert build_context.digest(Build(context=str(folder), arguments={"A": "1"}), None) != before
    (folder / changed).parent.mkdir(exist_ok=True)
    (folder / changed).write_bytes(contents.get(changed, b"") + b"more")
    assert build_context.digest(build, None) != before


def test_the_images_that_it_begins_with_are_read(context):
    (context / "Dockerfile").write_text(
        "FROM --platform=linux/amd64 reg.example/base:1 AS one\nFROM scratch\nfrom one as two\nFROM other\n"
    )
    assert build_context.bases(Build(context=str(context))) == {"reg.example/base:1", "other"}
