"""WireMock and MockServer as services: from a jar, in a container, or the user's own."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from zipfile import ZipFile

import httpx
import pytest
from provision_traces import order_of

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.catalog import kind_of
from asynctest_kit.provision.checkup.services import examine_service
from asynctest_kit.provision.providers import Refusal
from asynctest_kit.provision.providers.docker import Docker
from asynctest_kit.provision.providers.embedded import Embedded, Search, offer
from asynctest_kit.provision.providers.external import External
from asynctest_kit.provision.selection import give
from asynctest_kit.provision.service import ServiceSpec
from asynctest_kit.settings import load

pytestmark = pytest.mark.anyio

KINDS = ("wiremock", "mockserver")


def spec_of(kind, **fields):
    return ServiceSpec(**{"name": kind, "kind": kind} | fields)


async def is_stubbed(endpoint):
    """Whether the server at ``endpoint`` takes a stub, and answers by it; and nothing else, whatever it is called."""
    async with httpx.AsyncClient(base_url=endpoint.url, verify=False, timeout=60) as client:
        if endpoint.kind == "wiremock":
            stub = {"request": {"urlPath": "/tea"}, "response": {"status": 200, "body": "tea"}}
            await client.post("/__admin/mappings", json=stub)
        else:
            stub = {"httpRequest": {"path": "/tea"}, "httpResponse": {"statusCode": 200, "body": "tea"}}
            await client.put("/mockserver/expectation", json=[stub])
        assert (await client.get("/milk", headers={"Host": "shop.example.org"})).status_code == 404
        return (await client.get("/tea")).text == "tea"


@pytest.mark.once
@pytest.mark.parametrize("kind", KINDS)
async def test_a_container_serves(engine, kind):
    image = os.environ.get(f"ATK_{kind.upper()}_IMAGE") or kind_of(spec_of(kind)).image
    if not await engine.has_image(image):
        pytest.skip(f"no Docker image {image}")
    spec = spec_of(kind, image=image, startup_timeout=300)
    async with Docker(session=f"java-{kind}", project="java") as docker, docker.give(order_of(spec)) as running:
        assert running.endpoint.url.startswith("http://127.0.0.1:")
        assert await is_stubbed(running.endpoint)


@pytest.fixture
def jar():
    path = os.environ.get("ATK_WIREMOCK_JAR")
    if not path:
        pytest.skip("ATK_WIREMOCK_JAR not set")
    return path


async def test_a_jar_serves_on_loopback_alone_and_its_process_ends(jar):
    order = order_of(spec_of("wiremock", jar=jar, command=("--max-request-journal-entries", "7"), startup_timeout=300))
    async with Embedded().give(order) as running:
        endpoint = running.endpoint
        assert endpoint.detail.startswith("WireMock 3.")
        assert endpoint.detail.endswith(f" from {jar}")
        assert await is_stubbed(endpoint)
        async with httpx.AsyncClient(verify=False, timeout=60) as client:
            for number in range(9):
                await client.get(f"{endpoint.url}/{number}")
            assert (await client.get(f"{endpoint.url}/__admin/requests")).json()["meta"]["total"] == 7
        external = spec_of("wiremock", url=endpoint.url)
        async with External().give(order_of(external)) as known:
            assert known.endpoint.url == endpoint.url
        with pytest.raises(ProvisionError, match=r"answered the handshake with: '404 .*', as MockServer would not"):
            async with External().give(order_of(spec_of("mockserver", url=endpoint.url))):
                raise AssertionError
    with pytest.raises(OSError):
        await asyncio.open_connection(endpoint.host, endpoint.port)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_looked_for_is_told(kind, tmp_path):
    variable = f"ATK_{kind.upper()}_JAR"
    with pytest.raises(ProvisionError) as caught:
        async with give([Embedded()], order_of(spec_of(kind, provider="embedded"))):
            raise AssertionError
    told = str(caught.value)
    assert (
        f"no jar of it is named: `jar` in [tool.asynctest_kit.services.{kind}] and {variable} were looked for" in told
    )
    assert f"Java and {variable} set to the server's jar, or ATK_{kind.upper()}_URL" in told
    missing = tmp_path / "server.jar"
    with pytest.raises(Refusal, match=rf"its jar {missing} is not there"):
        await offer(order_of(spec_of(kind, jar=str(missing))), Search())
    missing.write_bytes(b"no archive")
    with pytest.raises(Refusal, match="is no jar: "):
        await offer(order_of(spec_of(kind, jar=str(missing))), Search())
    with pytest.raises(Refusal, match=rf"no `java` in JAVA_HOME \({tmp_path}\), PATH"):
        await offer(order_of(spec_of(kind, jar=str(missing))), Search(path="", java=str(tmp_path)))


async def test_java_home_comes_before_the_path(tmp_path):
    java = tmp_path / "bin/java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\nexit 3\n")
    java.chmod(0o755)
    jar = tmp_path / "stubs.jar"
    with ZipFile(jar, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\nImplementation-Version: 3.9.9\n")
    search = Search(java=str(tmp_path))
    order = order_of(spec_of("wiremock", jar=str(jar)))
    assert await offer(order, search) == f"WireMock 3.9.9 from {jar} by {java}"
    with pytest.raises(ProvisionError, match=r"WireMock for the service 'wiremock' .* ended with exit code 3"):
        async with Embedded(search=search).give(order):
            raise AssertionError


async def test_a_server_that_is_busy_is_waited_for_and_asked_as_its_url_says():
    statuses, heads = ["503 Service Unavailable", "200 OK"], []

    async def answer(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        status = statuses.pop(0)
        writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode() + json.dumps({"status": "healthy"}).encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    url = f"http://ann:s3cret@127.0.0.1:{server.sockets[0].getsockname()[1]}/stubs"
    async with External().give(order_of(spec_of("wiremock", url=url))):
        assert statuses == []
    for head in heads:
        assert head.startswith(b"GET /stubs/__admin/health ")
        assert base64.b64encode(b"ann:s3cret") in head
    server.close()


async def test_doctor_tells_of_those_that_are_declared_alone(tmp_path):
    settings = load(paths=(), directory=tmp_path, environ={"ATK_WIREMOCK_IMAGE": "own:1"}, options={})
    assert settings.usual_services == ("postgres", "redis")
    (tmp_path / "pyproject.toml").write_text("[tool.asynctest_kit.services.mockserver]\njar = 'server.jar'")
    settings = load(paths=(), directory=tmp_path, environ={}, options={})
    assert sorted(settings.usual_services) == ["mockserver", "postgres", "redis"]
    (finding,) = await examine_service("mockserver", settings, None)
    assert f"embedded: its jar {tmp_path / 'server.jar'} is not there" in finding.text
    assert "install Java, and set ATK_MOCKSERVER_JAR" in finding.mend
