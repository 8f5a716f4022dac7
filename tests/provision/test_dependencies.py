"""Services that need each other: in order, at once where they can be, and told where it goes wrong."""

from __future__ import annotations

import asyncio
import socket
import time
from secrets import token_hex

import httpx
import msgspec
import pytest
from provision_traces import BUSYBOX, LABEL, container_of, eventually, spec_of

from asynctest_kit.containers import Log
from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.catalog import kind_of
from asynctest_kit.provision.client import Client
from asynctest_kit.provision.providers import Order, Running
from asynctest_kit.provision.providers.wired import from_containers, from_here, wired
from asynctest_kit.provision.runtime import project_of
from asynctest_kit.provision.service import Endpoint, ServiceSpec

pytestmark = pytest.mark.anyio

REDIS = spec_of("redis", provider="embedded")

#: Answers with what it was started with.
SHOW = 'mkdir /www; echo "$SHOWN" >/www/index.html; httpd -p 8080 -h /www; sleep 600'


@pytest.fixture
async def client(root):
    """Left in a thread, for it waits until the containers are gone."""
    client = Client.connect(root)
    yield client
    await asyncio.to_thread(client.close)


async def fetched(url):
    async with httpx.AsyncClient() as client:
        return (await client.get(url)).text.rstrip("\n")


async def failure(client, spec):
    with pytest.raises(ProvisionError) as caught:
        await client.endpoint(spec)
    return str(caught.value)


def broken(name="base", **fields):
    return container_of("echo out of beans >&2; exit 3", name=name, wait=Log("never"), **fields)


async def test_a_service_reaches_what_it_needs_by_its_name(engine, client):
    cache = spec_of("redis", name="the_cache", provider="docker")
    job = container_of(
        "nc -w 5 $HOST $PORT </dev/null && echo reached",
        name="job",
        needs=(cache,),
        once=True,
        environment={"HOST": "{the_cache.host}", "PORT": "{the_cache.port}"},
    )
    app = container_of(
        SHOW,
        name="app",
        ports={"http": 8080},
        needs=(cache, job),
        environment={"SHOWN": "{the_cache.url} and {the_cache.password}, {{the_cache.url}}"},
    )
    endpoint = await client.endpoint(app)
    password = client.endpoints["the_cache"].password
    shown = await fetched(endpoint.url)
    assert shown == f"redis://:{password}@the-cache:6379/0 and {password}, {{the_cache.url}}"
    assert set(client.endpoints) == {"the_cache", "job", "app"}


@pytest.mark.once
async def test_a_container_reaches_a_port_of_another(engine, client):
    base = container_of(SHOW, name="base", ports={"http": 8080}, environment={"SHOWN": "base"})
    script = f"export SHOWN=$(wget -q -O - $AT); {SHOW}"
    app = container_of(script, name="app", ports={"http": 8080}, needs=(base,), environment={"AT": "{base.url}"})
    assert await fetched((await client.endpoint(app)).url) == "base"


async def test_a_service_starts_after_what_it_needs_and_beside_what_it_does_not(client):
    first, second = (spec_of("redis", name=name, provider="embedded") for name in ("first", "second"))
    last = spec_of("redis", name="last", provider="embedded", needs=(first, second))
    await client.endpoint(last)
    spans = {name: [phase for phase in client.phases if phase.service == name] for name in ("first", "second", "last")}
    ready = {name: next(phase.end for phase in phases if phase.phase == "ready") for name, phases in spans.items()}
    begun = {name: next(phase.start for phase in phases if phase.phase == "create") for name, phases in spans.items()}
    assert begun["last"] >= max(ready["first"], ready["second"])
    assert max(begun["first"], begun["second"]) < min(ready["first"], ready["second"])


async def test_who_waits_for_what_it_needs_says_so(client):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        base = spec_of("redis", name="base", provider="external", url=url)
        client.ensure(spec_of("redis", name="top", provider="embedded", needs=(base, REDIS)))
        await eventually(lambda: client.notes.get("top") == "waiting for base", 30)


async def test_what_is_needed_twice_is_one_service(client):
    others = [spec_of("redis", name=name, provider="embedded", needs=(REDIS,)) for name in ("left", "right")]
    top = spec_of("redis", name="top", provider="embedded", needs=tuple(others))
    await asyncio.gather(*(client.endpoint(spec) for spec in (*others, top, REDIS)))
    boots = [phase.service for phase in client.phases if phase.phase == "boot"]
    assert sorted(boots) == ["left", "redis", "right", "top"]


async def test_waiting_for_others_takes_none_of_its_own_time():
    order = order_with(spec_of("redis", startup_timeout=0.05))

    async def needs():
        await asyncio.sleep(0.1)
        return {}

    order.needs = needs
    await order.meet()
    assert order.deadline > asyncio.get_running_loop().time()
    assert order.allowed == "0.05 s"


async def test_a_failure_fails_those_that_need_it_and_names_the_cause(engine, client):
    base = broken()
    middle = container_of("echo hi", name="middle", once=True, needs=(base,))
    top = spec_of("redis", name="top", provider="embedded", needs=(middle, REDIS))
    cause = f"The container of the service 'base' ({BUSYBOX}) ended with exit code 3. Its last words:\n  | out of beans"
    assert await failure(client, top) == (
        f"The service 'top' was not started: it needs 'middle', which needs 'base', which failed.\n{cause}"
    )
    assert await failure(client, middle) == (
        f"The service 'middle' was not started: it needs 'base', which failed.\n{cause}"
    )
    assert await failure(client, base) == cause
    assert (await client.endpoint(REDIS)).service == "redis"
    assert await engine.labelled(f"{LABEL}={project_of(client._root).key}") == []


@pytest.mark.once
async def test_what_needs_a_service_that_has_ended_ends_too(engine, client, root):
    base = container_of("echo up; sleep 600", name="base", wait=Log("up"))
    app = container_of("echo up; sleep 600", name="app", wait=Log("up"), needs=(base,))
    label = f"{LABEL}={project_of(root).key}"
    before = await client.endpoint(app)
    container = client.endpoints["base"].detail.rpartition(" in ")[2]
    await engine.remove(container)
    deadline = time.monotonic() + 20
    while await engine.labelled(label):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await eventually(lambda: "app" in client.losses)
    assert client.losses["app"].partition("\n")[0] == (
        f"The service 'app' ({before.detail}) lost 'base', which it needs, while it was in use. Its last words:"
    )
    other = Client.connect(root)
    try:
        assert (await other.endpoint(app)).detail != before.detail
    finally:
        await asyncio.to_thread(other.close)


@pytest.mark.once
async def test_a_service_that_starts_when_what_it_needs_ends_is_told_why(engine, client, root):
    base = container_of("echo up; sleep 600", name="base", wait=Log("up"))
    app = container_of("echo starting; sleep 600", name="app", wait=Log("never"), needs=(base,), startup_timeout=60.0)
    asked = asyncio.ensure_future(failure(client, app))
    label = f"{LABEL}={project_of(root).key}"
    deadline = time.monotonic() + 60
    while "base" not in client.endpoints or len(await engine.labelled(label)) < 2:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await engine.remove(client.endpoints["base"].detail.rpartition(" in ")[2])
    assert await asked == "The service 'app' lost 'base', which it needs, before it was ready."


async def test_an_embedded_server_is_out_of_a_containers_reach_and_the_mend_is_told(engine, client):
    app = container_of(SHOW, name="app", ports={"http": 8080}, needs=(REDIS,), environment={"SHOWN": "{redis.url}"})
    message = await failure(client, app)
    port = client.endpoints["redis"].port
    assert message == (
        "The service 'app' runs in a container and is wired to 'redis', which the provider 'embedded' gives at "
        f"127.0.0.1:{port}: the loopback of this machine, which no container can reach. Have 'redis' in a container "
        'too (provider = "docker" in its settings), or give it a URL whose host containers can reach.'
    )
    needs_only = container_of("true", name="job", once=True, needs=(REDIS,))
    assert (await client.endpoint(needs_only)).service == "job"


async def test_no_docker_is_a_refusal_that_names_all(client):
    spec = container_of("true", once=True, provider="embedded")
    message = await failure(client, spec)
    assert "No provider can give the service 'box' (a container of an image; provider = 'embedded'):" in message
    assert "  embedded: an image runs in a container only" in message


async def never():
    return ""


def order_with(spec, **met):
    order = Order(spec=spec, kind=kind_of(spec), asked=time.monotonic(), record=lambda _: None)
    order.met = met
    return order


async def test_who_looks_decides_which_address_is_seen():
    at = Endpoint(
        service="db", kind="redis", provider="docker", scheme="redis", host="127.0.0.1", port=4242, password="s3c/ret"
    )

    within = msgspec.structs.replace(at, host="172.17.0.9", port=6379)
    contained = Running(endpoint=at, ended=never, inside=answering(within))
    elsewhere = msgspec.structs.replace(at, provider="external", host="db.internal", port=1)
    external = Running(endpoint=elsewhere, ended=never, inside=answering(elsewhere))
    needs = (spec_of("redis", name="d_b"), spec_of("redis", name="ext"))
    spec = container_of(
        "{d_b.url}",
        needs=needs,
        environment={"A": "{d_b.host}:{d_b.port} {d_b.username}|{d_b.database}", "B": "{ext.url}"},
    )
    order = order_with(spec, d_b=contained, ext=external)
    view = await from_containers(order)
    seen = wired(order, view)
    assert seen.command == ("sh", "-c", "redis://:s3c%2Fret@d-b:6379")
    assert seen.environment == {"A": "d-b:6379 |", "B": "redis://:s3c%2Fret@db.internal:1"}
    assert view.hosts == {"d-b": "172.17.0.9"}
    assert wired(order, from_here(order)).environment["A"] == "127.0.0.1:4242 |"
    assert order.redact("said s3c/ret and redis://:s3c%2Fret@x") == "said *** and redis://:***@x"


def answering(value):
    async def answer():
        return value

    return answer


@pytest.mark.once
async def test_a_container_without_a_network_joins_one_when_another_is_wired_to_it(engine):
    names = [f"asynctest_kit-apart-{token_hex(6)}" for _ in range(2)]
    alone = {"Image": BUSYBOX, "Cmd": ["sh", "-c", SHOW], "HostConfig": {"NetworkMode": "none"}}
    try:
        await engine.create(names[0], alone)
        await engine.start(names[0])
        address = await engine.address_of(names[0])
        await engine.create(names[1], {"Image": BUSYBOX, "Cmd": ["sleep", "60"]})
        await engine.start(names[1])
        assert await engine.execute(names[1], ["wget", "-q", "-O", "-", f"http://{address}:8080"]) == b"\n"
        assert await engine.address_of(names[0]) == address
    finally:
        await asyncio.gather(*map(engine.remove, names))


async def test_a_spec_and_what_it_needs_go_over_the_socket():
    spec = ServiceSpec(name="a", kind="redis", needs=(container_of("x", wait=Log("y")),))
    assert msgspec.json.decode(msgspec.json.encode(spec), type=ServiceSpec) == spec
    assert "x" not in repr(spec)
