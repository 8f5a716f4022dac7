"""Images are fetched when they should be, from where they should be, as whom they should be; and it ends."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from contextlib import asynccontextmanager
from secrets import token_hex

import pytest
from provision_traces import order_of, spec_of
from registries import PASSWORD, USER, publish, registry, silent_registry

from asynctest_kit.container_options import ContainerOptions, ImageSource
from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.providers import Refusal
from asynctest_kit.provision.providers.docker import Docker
from asynctest_kit.provision.providers.engine import auth, open_engine, platforms
from asynctest_kit.provision.providers.engine.streams import Progress

pytestmark = pytest.mark.anyio


@pytest.fixture
async def docker(engine):
    async with Docker(session=token_hex(6), project="tests") as provider:
        yield provider


@pytest.fixture
async def image(engine, tmp_path):
    """An image in a registry of the test's own, removed from the engine at the end; nothing in it runs."""
    async with registry(tmp_path) as host:
        name = await publish(host, f"team/{token_hex(4)}:1")
        yield name
        await engine.remove_image(name)


async def start(docker, image, *, phases=None, notes=None, platform=None, **source):
    """Start a service from an image that can't run: the message tells how far it came."""
    options = ContainerOptions(platform=platform)
    spec = spec_of("redis", name="cache", image=image, images=ImageSource(**source), container=options)
    order = order_of(spec, phases)
    order.note = (notes if notes is not None else []).append
    async with docker.give(order):
        pass


async def pulls(docker, image, **source):
    phases = []
    with pytest.raises(ProvisionError, match="could not start the service 'cache'"):
        await start(docker, image, phases=phases, **source)
    return "pull" in [phase.phase for phase in phases]


async def test_what_is_missing_is_pulled_and_what_is_there_is_not(docker, image):
    assert await pulls(docker, image)
    assert not await pulls(docker, image)
    assert not await pulls(docker, image, pull="never")
    assert await pulls(docker, image, pull="always")


@pytest.mark.once
async def test_an_image_for_another_platform_is_not_the_one_that_is_missing(docker, engine, tmp_path):
    async with registry(tmp_path) as host:
        name = await publish(host, f"team/{token_hex(4)}:1")
        assert await pulls(docker, name)
        first = await engine.image_id(name)
        await publish(host, name.removeprefix(f"{host}/"), architecture="s390x")
        other = "linux/s390x"
        assert not await engine.has_image(name, platform=other)
        assert await pulls(docker, name, platform=other)
        assert not await pulls(docker, name, platform=other)
        assert await engine.has_image(name, platform=other)
        assert await engine.remove_images([name, first]) == [name, first]


@pytest.mark.parametrize(
    ("wanted", "image", "is_met"),
    [
        ("linux/amd64", {"Os": "linux", "Architecture": "amd64"}, True),
        ("linux/aarch64", {"Os": "linux", "Architecture": "arm64", "Variant": ""}, True),
        ("linux/arm64/v8", {"Os": "linux", "Architecture": "arm64"}, True),
        ("linux/arm64", {"Os": "linux", "Architecture": "arm64", "Variant": "v8"}, True),
        ("linux/arm/v7", {"Os": "linux", "Architecture": "arm", "Variant": "v6"}, True),
        ("linux/arm/v6", {"Os": "linux", "Architecture": "arm", "Variant": "v7"}, False),
        ("linux/arm64", {"Os": "linux", "Architecture": "amd64"}, False),
        ("windows/amd64", {"Os": "linux", "Architecture": "amd64"}, False),
    ],
)
async def test_a_platform_is_met_by_an_image(wanted, image, is_met):
    assert platforms.is_for(wanted, image) is is_met


async def test_never_means_never(docker, image):
    with pytest.raises(Refusal, match=r'not there, and may not be pulled \(pull = "never"\)'):
        await start(docker, image, pull="never")


async def test_a_service_has_its_own_say(docker, image):
    order = order_of(spec_of("redis", image=image, container=ContainerOptions(pull="never")))
    with pytest.raises(Refusal, match="may not be pulled"):
        async with docker.give(order):
            pass


async def test_always_fails_where_the_registry_does(docker, engine, tmp_path):
    async with registry(tmp_path) as host:
        name = await publish(host, f"team/{token_hex(4)}:1")
        assert await pulls(docker, name)
    try:
        with pytest.raises(Refusal, match=r'is to be pulled always \(pull = "always"\), and can\'t be pulled from 127'):
            await start(docker, name, pull="always")
        assert not await pulls(docker, name)
    finally:
        await engine.remove_image(name)


async def test_progress_is_told(docker, engine, tmp_path):
    notes = []
    async with registry(tmp_path) as host:
        name = await publish(host, f"team/{token_hex(4)}:1", size=3_000_000)
        with pytest.raises(ProvisionError):
            await start(docker, name, notes=notes)
        await engine.remove_image(name)
    assert "pulling 3 of 3 MB" in notes


async def test_progress_is_summed_up_over_layers_and_retries_are_none():
    progress = Progress()
    news = [
        {"status": "Downloading", "id": "a", "progressDetail": {"current": 40_000_000, "total": 100_000_000}},
        {"status": "Downloading", "id": "b", "progressDetail": {"current": 5_000_000, "total": 20_000_000}},
        {"status": "Download complete", "id": "b"},
        {"status": "Extracting", "id": "b", "progressDetail": {"current": 1, "total": 20_000_000}},
    ]
    assert str(progress) == "pulling"
    assert all(map(progress.take, news))
    assert str(progress) == "pulling 60 of 120 MB"
    assert not progress.take({"status": "Retrying in 5 seconds", "id": "a"})


async def test_a_registry_that_hangs_is_given_up(docker):
    async with silent_registry() as host:
        with pytest.raises(
            Refusal, match=rf"the image {host}/cache:1 .* the registry {host} made no progress for 0.3 s"
        ):
            await start(docker, f"{host}/cache:1", stall=0.3)


async def test_what_a_pull_takes_is_not_taken_from_the_start(docker):
    phases = []
    async with silent_registry() as host:
        order = order_of(
            spec_of("redis", image=f"{host}/cache:1", images=ImageSource(stall=0.3), startup_timeout=1), phases
        )
        before = order.deadline
        with pytest.raises(Refusal):
            async with docker.give(order):
                pass
    assert order.deadline - before >= 0.3
    assert order.allowed == "1 s"


@pytest.mark.parametrize(
    ("asked", "source", "name"),
    [
        ("postgres:17", {}, "postgres:17"),
        ("postgres:17", {"prefix": "mirror.example/hub"}, "mirror.example/hub/postgres:17"),
        ("docker.io/team/app:1", {"prefix": "mirror.example:5000/"}, "mirror.example:5000/team/app:1"),
        ("ghcr.io/team/app:1", {"prefix": "mirror.example"}, "ghcr.io/team/app:1"),
        ("localhost/app", {"prefix": "mirror.example"}, "localhost/app"),
        ("postgres:17", {"prefix": "mirror.example", "substitutes": {"postgres:17": "team/pg:17"}}, "team/pg:17"),
    ],
)
async def test_the_name_under_which_an_image_is_to_be_had(asked, source, name):
    assert ImageSource(**source).name_of(asked) == name


async def test_a_mirror_stands_for_docker_hub(docker, image):
    host, _, name = image.partition("/")
    assert await pulls(docker, name, prefix=host)


@asynccontextmanager
async def logged_in(tmp_path, config, **environ):
    """A Docker provider of a user whose Docker configuration is ``config``."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    environ = {"DOCKER_CONFIG": str(tmp_path), "PATH": str(tmp_path)} | environ
    async with Docker(session=token_hex(6), project="tests", environ=environ) as docker:
        yield docker


def helper(folder, name, script):
    """A credential helper that answers any ``get``."""
    file = folder / f"docker-credential-{name}"
    file.write_text(f"#!{sys.executable}\nimport sys\nserver = sys.stdin.read().strip()\n{script}\n")
    file.chmod(0o755)


def basic(user, password):
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


ANSWER = f'print({{"ServerURL": server, "Username": "{USER}", "Secret": "{PASSWORD}"}}.__repr__().replace("\'", \'"\'))'


@pytest.mark.once
@pytest.mark.parametrize("by", ["file", "variable", "helper", "store"])
async def test_who_has_logged_in_may_pull(engine, tmp_path, by):
    async with registry(tmp_path, users=True) as host:
        name = await publish(host, f"team/{token_hex(4)}:1")
        helper(tmp_path, "keys", ANSWER)
        login = {"auths": {f"http://{host}/v1/": basic(USER, PASSWORD)}}
        config = {
            "file": login,
            "variable": {},
            "helper": {"auths": {host: {}}, "credHelpers": {host: "keys"}, "credsStore": "none-such"},
            "store": {"auths": {host: {}}, "credsStore": "keys"},
        }[by]
        environ = {"DOCKER_AUTH_CONFIG": json.dumps(login)} if by == "variable" else {}
        async with logged_in(tmp_path, config, **environ) as docker:
            assert await pulls(docker, name)
        await engine.remove_image(name)


@pytest.mark.parametrize("config", [{}, {"auths": {"HOST": basic(USER, "wrong-secret")}}])
async def test_who_has_not_may_not_and_no_secret_is_told(engine, tmp_path, config):
    async with registry(tmp_path, users=True) as host:
        config = json.loads(json.dumps(config).replace("HOST", host))
        async with logged_in(tmp_path, config) as docker:
            with pytest.raises(Refusal, match=f"can't be pulled from {host}: .*(auth|unauthorized)") as caught:
                await start(docker, f"{host}/team/app:1")
    assert "wrong-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('sys.exit("my-secret")', "`docker-credential-keys` failed for reg.example with exit code 1"),
        ('print("my-secret")', "`docker-credential-keys` gave no credentials for reg.example"),
    ],
)
async def test_a_helper_that_fails_is_told_without_its_words(tmp_path, script, message):
    helper(tmp_path, "keys", script)
    with pytest.raises(auth.CredentialsError, match=message) as caught:
        await auth.header("reg.example", configured(tmp_path, {"credHelpers": {"reg.example": "keys"}}))
    assert "my-secret" not in str(caught.value)


async def test_a_helper_that_is_not_there_is_told(tmp_path):
    with pytest.raises(auth.CredentialsError, match="`docker-credential-keys`, which is not on PATH"):
        await auth.header("reg.example", configured(tmp_path, {"credsStore": "keys"}))


async def test_a_helper_that_hangs_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(auth, "_PATIENCE", 0.2)
    helper(tmp_path, "keys", "import time; time.sleep(60)")
    with pytest.raises(auth.CredentialsError, match=r"`docker-credential-keys` did not answer within 0.2 s"):
        await auth.header("reg.example", configured(tmp_path, {"credsStore": "keys"}))


def configured(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    return {"DOCKER_CONFIG": str(folder), "PATH": str(folder)}


async def header(folder, config, registry):
    found = await auth.header(registry, configured(folder, config))
    return found and json.loads(base64.urlsafe_b64decode(found))


async def test_a_helper_that_has_nothing_is_no_error(tmp_path):
    helper(tmp_path, "keys", 'print("credentials not found in native keychain"); sys.exit(1)')
    assert await header(tmp_path, {"credsStore": "keys"}, "reg.example") is None


async def test_an_identity_token_is_sent_as_one(tmp_path):
    hub = "https://index.docker.io/v1/"
    helper(tmp_path, "keys", """print('{"Username": "<token>", "Secret": "my-token"}')""")
    token = {"identitytoken": "my-token", "serveraddress": hub}
    assert await header(tmp_path, {"credsStore": "keys"}, "docker.io") == token
    assert await header(tmp_path, {"auths": {hub: {"identitytoken": "my-token"}}}, "docker.io") == token


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io"])
async def test_docker_hub_has_a_helper_of_its_own(tmp_path, key):
    helper(tmp_path, "keys", ANSWER)
    found = await header(tmp_path, {"credHelpers": {key: "keys"}, "credsStore": "none-such"}, "docker.io")
    assert found == {"username": USER, "password": PASSWORD, "serveraddress": "https://index.docker.io/v1/"}


async def test_a_damaged_login_is_told(tmp_path):
    with pytest.raises(auth.CredentialsError, match=r"entry of reg.example in Docker's configuration is damaged"):
        await header(tmp_path, {"auths": {"reg.example": {"auth": "%"}}}, "reg.example")


async def test_a_cancelled_pull_holds_nothing_up():
    """More pulls than aiodocker's pool has connections are cancelled, and the engine still answers."""
    import os

    async with silent_registry() as host, open_engine(os.environ) as engine:
        pulling = [asyncio.ensure_future(engine.pull(f"{host}/cache:{tag}", stall=30)) for tag in range(110)]
        await asyncio.wait(pulling, timeout=0.3)
        for task in pulling:
            task.cancel()
        await asyncio.gather(*pulling, return_exceptions=True)
        assert not await engine.has_image(f"{host}/cache:1")
