"""The external provider against real servers."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from provision_traces import container_of, order_of, spec_of

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.providers import Refusal, external
from asynctest_kit.provision.providers.embedded import Embedded
from asynctest_kit.provision.providers.external import External
from asynctest_kit.provision.readiness import Address
from asynctest_kit.provision.service import ServiceSpec

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["postgres", "redis"])
async def server(request):
    async with Embedded().give(order_of(spec_of(request.param))) as running:
        yield running.endpoint


async def test_a_url_is_used_as_it_is_and_survives(server):
    phases = []
    for _ in range(2):
        order = order_of(spec_of(server.kind, name="mine", provider="external", url=server.url), phases)
        async with External().give(order) as running:
            assert running.endpoint.url == server.url
            assert (running.endpoint.service, running.endpoint.provider) == ("mine", "external")
    assert [phase.phase for phase in phases] == ["resolve", "ready"] * 2


async def test_a_wrong_password_is_told_at_once_and_not_shown(server):
    url = server.url.replace(server.password, "s3cret-guess")
    with pytest.raises(ProvisionError, match="answered the handshake with") as caught:
        async with External().give(order_of(spec_of(server.kind, provider="external", url=url))):
            pass
    assert "s3cret-guess" not in str(caught.value)
    assert "***" in str(caught.value)


async def test_a_server_that_is_not_there_is_named_without_its_password():
    spec = spec_of("redis", provider="external", url="redis://:s3cret@127.0.0.1:1/0", startup_timeout=0.2)
    with pytest.raises(ProvisionError, match=r"redis://:\*\*\*@127\.0\.0\.1:1/0 was not ready within 0\.2 s") as caught:
        async with External().give(order_of(spec)):
            pass
    assert "Connect" in str(caught.value) or "refused" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:s3cret@localhost/db",
        "postgresql://u:s3cret@localhost:port/db",
        "postgresql://u:s3/cret@localhost/db",
        "postgresql://u:s3cret@/db",
        "s3cret",
        "postgresql://u:s3cret@localhost:99999/db",
        "postgresql://[s3cret",
    ],
)
async def test_a_url_that_can_not_be_used_is_told_without_its_password(url):
    with pytest.raises(ProvisionError, match="The URL of the service 'postgres' can't be used") as caught:
        async with External().give(order_of(spec_of("postgres", provider="external", url=url))):
            pass
    assert "s3" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_without_a_url_it_refuses():
    with pytest.raises(Refusal, match="no URL is set"):
        async with External().give(order_of(spec_of("postgres"))):
            pass


async def test_the_query_of_a_url_is_kept():
    async with Embedded().give(order_of(spec_of("postgres"))) as running:
        url = f"{running.endpoint.url}?application_name=mine"
        async with External().give(order_of(spec_of("postgres", url=url))) as external:
            connection = await asyncpg.connect(external.endpoint.url)
            assert await connection.fetchval("SHOW application_name") == "mine"
            await connection.close()


async def test_credentials_in_the_query_of_a_url_are_used_and_not_shown(server):
    name = "username" if server.kind == "redis" else "user"
    bare = server.url.replace(f"{server.username or ''}:{server.password}@", "")
    url = f"{bare}?{name}={server.username or 'default'}&password={server.password}&sslpassword=pa55&x=1"
    async with External().give(order_of(spec_of(server.kind, url=url))) as running:
        endpoint = running.endpoint
    assert endpoint.password == server.password
    assert endpoint.query == "sslpassword=pa55&x=1"
    assert endpoint.url == f"{endpoint.safe_url.replace('***', server.password, 1).replace('***', 'pa55')}"
    for shown in (endpoint.safe_url, repr(endpoint)):
        assert "***" in shown
        assert server.password not in shown
        assert "pa55" not in shown
    guessed = url.replace(server.password, "s3cret%40%2Fguess")
    with pytest.raises(ProvisionError, match="answered the handshake with") as caught:
        async with External().give(order_of(spec_of(server.kind, url=guessed))):
            pass
    assert "s3cret" not in str(caught.value)


async def test_the_query_of_another_server_is_left_as_it_is():
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/base?user=me&api_key=s3cret"
        async with External().give(order_of(container_of("", ports={"web": 80}, url=url))) as running:
            assert running.endpoint.url == url
            assert running.endpoint.safe_url == url.replace("s3cret", "***")


@pytest.mark.parametrize(
    ("kind", "url", "port", "has_tls"),
    [
        ("postgres", "postgresql://ann:pa55@db/shop?sslmode=require", 5432, True),
        ("postgres", "postgres://ann:pa55@db:5433/shop?sslmode=prefer", 5433, False),
        ("redis", "rediss://ann:pa55@db/shop", 6379, True),
        ("redis", "redis://ann:pa55@db/shop", 6379, False),
        ("wiremock", "https://ann:pa55@db:8443/shop", 8443, True),
    ],
)
async def test_who_has_the_endpoint_reaches_it_as_its_url_says(kind, url, port, has_tls):
    """The supervisor, which looks whether it is still there, and the API of a server have no URL."""
    order = order_of(ServiceSpec(name="mine", kind=kind, provider="external", url=url))
    reached = Address(host="db", port=port, username="ann", password="pa55", database="shop", tls=has_tls)
    assert Address.of(external._endpoint(order, external._parsed(order))) == reached
    assert external.address_of(order) == reached


async def test_tls_that_the_server_does_not_offer_is_told():
    async with Embedded().give(order_of(spec_of("postgres"))) as running:
        url = f"{running.endpoint.url}?sslmode=require"
        with pytest.raises(ProvisionError, match="does not offer TLS"):
            async with External().give(order_of(spec_of("postgres", url=url))):
                pass


async def test_a_server_in_the_place_of_a_container_is_taken_at_its_word():
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://user:pass@127.0.0.1:{port}/base/v1?x=1"
        spec = container_of("", ports={"web": 80, "admin": 81}, url=url)
        async with External().give(order_of(spec)) as running:
            endpoint = running.endpoint
            assert (endpoint.url, endpoint.at("web").url, endpoint.scheme) == (url, url, "http")
            with pytest.raises(ProvisionError, match=r"'box' has no port 'admin'\. There are: web\."):
                endpoint.at("admin")
            assert await running.inside() is None
    spec = container_of("", ports={"web": 80}, url=f"http://127.0.0.1:{port}", startup_timeout=0.3)
    with pytest.raises(ProvisionError, match=rf"not ready within 0\.3 s: waited for its port {port} to take"):
        async with External().give(order_of(spec)):
            pass


@pytest.mark.parametrize(
    ("host", "is_seen"), [("127.0.0.9", False), ("localhost", False), ("::1", False), ("db.internal", True)]
)
async def test_containers_reach_no_loopback(host, is_seen):
    assert external.is_loopback(host) is not is_seen
