"""Where an engine is found, and ways to one that is not a socket of this machine."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from secrets import token_hex

import msgspec
import pytest
from engine_proxy import proxy
from provision_traces import container_of, docker_context, order_of, spec_of
from redis.asyncio import Redis

from asynctest_kit.container_options import ContainerOptions, Volume
from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.providers import Refusal, docker_reach
from asynctest_kit.provision.providers.docker import Docker
from asynctest_kit.provision.providers.docker_reach import Published
from asynctest_kit.provision.providers.engine import Location, locate, location, open_engine

pytestmark = pytest.mark.anyio


def contexts(folder, name, **endpoint):
    """A Docker configuration with one context; the folder of its TLS material."""
    return docker_context(folder, name, {"docker": endpoint})


@pytest.mark.parametrize("by", ["variable", "file"])
async def test_the_engine_of_a_docker_context_is_found(tmp_path, by):
    contexts(tmp_path, "mine", Host="unix:///mine.sock")
    environ = {"DOCKER_CONFIG": str(tmp_path)}
    if by == "variable":
        environ["DOCKER_CONTEXT"] = "mine"
    else:
        (tmp_path / "config.json").write_text('{"currentContext": "mine"}')
    assert locate(environ).url == "unix:///mine.sock"
    assert locate(environ | {"DOCKER_HOST": "unix:///first.sock"}).url == "unix:///first.sock"


@pytest.mark.parametrize(
    ("environ", "config", "source"),
    [({"DOCKER_CONTEXT": "typo"}, {}, "DOCKER_CONTEXT"), ({}, {"currentContext": "typo"}, "currentContext in .*json")],
)
async def test_a_docker_context_that_is_not_there_is_refused(tmp_path, environ, config, source):
    contexts(tmp_path, "mine", Host="unix:///mine.sock")
    (tmp_path / "config.json").write_text(json.dumps(config))
    environ |= {"DOCKER_CONFIG": str(tmp_path)}
    with pytest.raises(Refusal, match=f"^{source} names the Docker context 'typo', and no engine .*`docker context ls"):
        locate(environ)
    assert locate(environ | {"DOCKER_CONTEXT": "default", "DOCKER_HOST": ""}).url.startswith("unix://")


@pytest.mark.parametrize("endpoints", [None, [], {"docker": None}, {"docker": "unix:///s"}, {"docker": {"Host": 0}}])
async def test_a_docker_context_of_another_make_is_refused(tmp_path, endpoints):
    docker_context(tmp_path, "mine", endpoints)
    with pytest.raises(Refusal, match="names the Docker context 'mine', and no engine of that name is known"):
        locate({"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "mine"})


async def test_a_docker_context_whose_tls_files_can_not_be_looked_at_is_not_used_without_tls(tmp_path):
    contexts(tmp_path, "mine", Host="tcp://build.example")
    (tmp_path / "contexts/tls").symlink_to("x" * 300)  # longer than any name may be
    with pytest.raises(Refusal, match=r"the TLS files of the Docker context in use can't be read: .*name too long"):
        locate({"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "mine"})


async def test_a_password_for_ssh_is_refused_and_not_shown():
    with pytest.raises(
        Refusal, match=r"DOCKER_HOST has a password for ssh://build.example in it, .* use a key"
    ) as caught:
        locate({"DOCKER_HOST": "ssh://me:s3cret@build.example"})
    assert "s3cret" not in str(caught.value)


async def test_an_engine_behind_ssh_is_another_for_another_agent_user_or_program(tmp_path):
    (tmp_path / "ssh").write_text("")
    (tmp_path / "ssh").chmod(0o755)
    usual = {"DOCKER_HOST": "ssh://me@build.example", "HOME": "/home/me", "SSH_AUTH_SOCK": "/agent", "PATH": "/nowhere"}
    changes = [{}, {"HOME": "/home/you"}, {"SSH_AUTH_SOCK": "/other"}, {"PATH": str(tmp_path)}]
    assert len({locate(usual | change).identity for change in changes}) == len(changes)
    assert locate(usual | {"TERM": "xterm"}).identity == locate(usual).identity


async def test_the_usual_socket_is_usual_by_every_name(tmp_path, monkeypatch):
    monkeypatch.setattr(location, "_USUAL", tmp_path / "docker.sock")
    (tmp_path / "link").symlink_to(tmp_path)
    assert Location(f"unix://{tmp_path}/link/docker.sock").is_usual
    assert not Location(f"unix://{tmp_path}/other.sock").is_usual


@pytest.mark.parametrize(
    ("environ", "url", "host"),
    [
        ({"DOCKER_HOST": "tcp://localhost"}, "http://localhost:2375", "127.0.0.1"),
        ({"DOCKER_HOST": "tcp://build.example"}, "http://build.example:2375", "build.example"),
        ({"DOCKER_HOST": "tcp://[::2]:1"}, "http://[::2]:1", "::2"),
        (
            {"DOCKER_HOST": "tcp://build.example", "DOCKER_TLS_VERIFY": "1"},
            "https://build.example:2376",
            "build.example",
        ),
        ({"DOCKER_HOST": "ssh://me@build.example"}, "ssh://me@build.example", "build.example"),
    ],
)
async def test_an_address_is_read_as_docker_reads_it(environ, url, host):
    found = locate(environ)
    assert (found.url, found.host, found.is_local) == (url, host, host == "127.0.0.1")


@pytest.mark.parametrize("address", ["npipe:////./pipe/docker_engine", "docker.sock", "tcp://", "tcp://host:port"])
async def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(Refusal, match=r"DOCKER_HOST is .*no address of a Docker engine"):
        locate({"DOCKER_HOST": address})


async def test_rootless_and_podman_sockets_are_looked_for(tmp_path):
    looked = list(location._usual_sockets({"HOME": "/home/me", "XDG_RUNTIME_DIR": str(tmp_path)}))
    assert looked[:2] == [Path("/var/run/docker.sock"), tmp_path / "docker.sock"]
    assert looked.index(Path("/home/me/.docker/run/docker.sock")) < looked.index(tmp_path / "podman/podman.sock")


async def test_a_socket_where_nobody_answers_is_passed_over(tmp_path, monkeypatch):
    dead, alive = tmp_path / "dead.sock", tmp_path / "podman.sock"
    monkeypatch.setattr(location, "_usual_sockets", lambda _: [tmp_path / "none.sock", dead, alive])
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(dead))  # and nobody listens
        with pytest.raises(Refusal, match=r"no Docker engine answers: .*dead\.sock: Connection refused"):
            locate({})
        with socket.socket(socket.AF_UNIX) as podman:
            podman.bind(str(alive))
            podman.listen()
            assert locate({}).url == f"unix://{alive}"


async def test_no_socket_at_all_is_a_refusal(tmp_path, monkeypatch):
    monkeypatch.setattr(location, "_usual_sockets", lambda _: [tmp_path / "none.sock"])
    with pytest.raises(Refusal, match=r"DOCKER_HOST is not set and there is no .*none\.sock"):
        locate({})


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """An authority, a server's certificate for loopback, a client's, and another authority, as Docker names them."""
    folder = tmp_path_factory.mktemp("tls")

    def make(name, *more):
        files = ("-keyout", folder / f"{name}-key.pem", "-out", folder / f"{name}.pem")
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")
        subprocess.run(
            ["openssl", "req", "-x509", *key, "-subj", f"/CN={name}", *files, *more], check=True, capture_output=True
        )

    for authority in ("ca", "other"):
        make(authority)
    signed = ("-CA", folder / "ca.pem", "-CAkey", folder / "ca-key.pem")
    make(
        "server", *signed, "-addext", "subjectAltName=IP:127.0.0.1,IP:127.0.0.2", "-addext", "basicConstraints=CA:FALSE"
    )
    make("client", *signed, "-addext", "basicConstraints=CA:FALSE")
    return folder


def material(certificates, folder, *, authority="ca", client=True):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.pem").write_bytes((certificates / f"{authority}.pem").read_bytes())
    if client:
        (folder / "cert.pem").write_bytes((certificates / "client.pem").read_bytes())
        (folder / "key.pem").write_bytes((certificates / "client-key.pem").read_bytes())
    return folder


async def serves_redis(environ, **fields):
    """The endpoint of a service that was given by the engine that ``environ`` names, and answered."""
    async with (
        Docker(session=token_hex(6), project="tests", environ=environ) as docker,
        docker.give(order_of(spec_of("redis", **fields))) as running,
        Redis.from_url(running.endpoint.url) as redis,
    ):
        assert await redis.ping()
        return running.endpoint


@pytest.mark.parametrize("by", ["variables", "context"])
async def test_an_engine_behind_tls_serves(engine, certificates, tmp_path, by):
    async with proxy(engine, certificates) as url:
        if by == "context":
            material(certificates, contexts(tmp_path, "mine", Host=url))
            environ = {"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "mine"}
        else:
            folder = material(certificates, tmp_path / "certs")
            environ = {"DOCKER_HOST": url, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)}
        assert (await serves_redis(environ)).host == "127.0.0.1"


async def refused(environ):
    with pytest.raises(Refusal) as caught:
        async with open_engine(environ):
            pass
    return str(caught.value)


async def test_an_engine_with_a_strange_certificate_is_refused(engine, certificates, tmp_path):
    folder = material(certificates, tmp_path / "certs", authority="other")
    async with proxy(engine, certificates) as url:
        environ = {"DOCKER_HOST": url, "DOCKER_CERT_PATH": str(folder)}
        assert "certificate verify failed" in await refused(environ | {"DOCKER_TLS_VERIFY": "1"})
        async with open_engine(environ | {"DOCKER_TLS": "1"}) as unverified:
            assert unverified.version == engine.version


async def test_files_that_are_missing_or_broken_are_told(tmp_path):
    environ = {"DOCKER_HOST": "tcp://127.0.0.1:1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    assert f"the TLS files of the Docker engine in {tmp_path} can't be used" in await refused(environ)
    (tmp_path / "ca.pem").write_text("no certificate")
    assert "DOCKER_CERT_PATH names another folder" in await refused(environ)


async def test_an_engine_elsewhere_is_reached_at_its_host(engine):
    """127.0.0.2 stands for another machine: it isn't one of our own names, and reaches the same ports."""
    async with proxy(engine, host="127.0.0.2") as url:
        assert (await serves_redis({"DOCKER_HOST": url})).host == "127.0.0.2"
        bind = ContainerOptions(volumes=(Volume(source="/etc", target="/here"),))
        with pytest.raises(
            ProvisionError, match=r"volumes: /etc is on this machine, and the engine at http://127.0.0.2"
        ):
            await serves_redis({"DOCKER_HOST": url}, container=bind)


async def test_a_service_without_a_password_is_not_opened_to_the_network_of_an_engine_elsewhere(engine):
    spec = container_of("httpd -f -p 80", ports={"http": 80})
    async with (
        proxy(engine, host="127.0.0.2") as url,
        Docker(session=token_hex(6), project="tests", environ={"DOCKER_HOST": url}) as docker,
    ):
        with pytest.raises(ProvisionError, match=r"ports: the engine at http://127.0.0.2.*set publish-openly = true"):
            async with docker.give(order_of(spec)):
                pass
        async with docker.give(order_of(msgspec.structs.replace(spec, publish_openly=True))) as running:
            assert running.endpoint.host == "127.0.0.2"
            _, writer = await asyncio.open_connection(running.endpoint.host, running.endpoint.port)
            writer.close()


@pytest.mark.once
async def test_a_port_that_an_engine_elsewhere_does_not_open_to_us_is_named_with_what_would_help(engine, monkeypatch):
    monkeypatch.setattr(docker_reach, "_EVERYWHERE", "127.0.0.1")  # as a rootless engine there
    async with proxy(engine, host="127.0.0.2") as url:
        message = await out_of_reach({"DOCKER_HOST": url}, startup_timeout=2.0)
    assert re.search(
        r"The service 'redis' is out of reach: nobody takes a connection at 127\.0\.0\.2:\d+ \(Connect.*\), where the "
        r"engine at http://127\.0\.0\.2:\d+ publishes its port\. A firewall is between, or that engine publishes on "
        r"its machine's loopback alone .* reach the ports that are drawn at 127\.0\.0\.2; .* ATK_REDIS_URL\.",
        message,
    ), message


@pytest.mark.once
async def test_a_port_of_a_loopback_that_is_not_ours_is_named_with_what_would_help(engine, monkeypatch):
    """An engine behind a tunnel, or that of the machine around our container."""

    async def on_its_own_loopback(self, engine, container):
        found = await places(self, engine, container)
        return dataclasses.replace(found, published=dict.fromkeys(found.published, nobody.getsockname()[1]), gateway="")

    places = Published.places
    monkeypatch.setattr(Published, "places", on_its_own_loopback)
    with socket.socket() as nobody:  # bound, so that it is nobody else's, and not listening
        nobody.bind(("127.0.0.1", 0))
        async with proxy(engine) as url:
            message = await out_of_reach({"DOCKER_HOST": url}, startup_timeout=2.0)
        assert f"nobody takes a connection at 127.0.0.1:{nobody.getsockname()[1]}" in message
    assert "though the engine at http://127.0.0.1" in message
    assert "docker run --network host" in message


async def out_of_reach(environ, **fields):
    with pytest.raises(ProvisionError) as caught:
        await serves_redis(environ, **fields)
    return str(caught.value)


_SSH = f"""#!{sys.executable}
# A double of ssh: the other machine is this one, and the command's only meaning is Docker's dial-stdio.
import os, socket, sys, threading
words = sys.argv[1:]
if "unknown.example" in words:
    sys.exit("ssh: Could not resolve hostname unknown.example")
if words[-5:] != ["--", "localhost", "docker", "system", "dial-stdio"] or words[:2] != ["-l", "me"]:
    sys.exit(f"not expected: {{words}}")
engine = socket.socket(socket.AF_UNIX)
engine.connect("SOCKET")
def there():
    while data := os.read(0, 65536):
        engine.sendall(data)
    engine.shutdown(socket.SHUT_WR)
threading.Thread(target=there, daemon=True).start()
while data := engine.recv(65536):
    os.write(1, data)
"""


@pytest.fixture
def ssh(engine, tmp_path):
    """An environment in which ``ssh`` is a double."""
    program = tmp_path / "ssh"
    program.write_text(_SSH.replace("SOCKET", engine.location.url.removeprefix("unix://")))
    program.chmod(0o755)
    return {"PATH": str(tmp_path)}


async def test_an_engine_behind_ssh_serves(ssh):
    endpoint = await serves_redis(ssh | {"DOCKER_HOST": "ssh://me@localhost"})
    assert endpoint.host == "127.0.0.1"


async def test_what_ssh_complains_of_is_told(ssh):
    message = await refused(ssh | {"DOCKER_HOST": "ssh://unknown.example"})
    assert message == (
        "the Docker engine at ssh://unknown.example can't be reached: ssh: Could not resolve hostname unknown.example"
    )


async def test_no_ssh_is_told(tmp_path):
    environ = {"DOCKER_HOST": "ssh://build.example", "PATH": str(tmp_path)}
    assert "there is no `ssh` on PATH" in await refused(environ)
