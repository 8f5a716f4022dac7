"""When a container of any image is ready, by what its user says; on a real engine.

What only looks at a container looks at one that all these tests share: it serves, it has written its log, it is well.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from contextlib import AsyncExitStack
from secrets import token_hex

import httpx
import pytest
from provision_traces import BUSYBOX, HEALTHCHECK, IMAGES, SESSION, container_of, order_of

from asynctest_kit.containers import AllOf, AnyOf, Command, Handshake, Health, Http, Listening, Log, Port
from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.providers import Refusal, await_ready
from asynctest_kit.provision.providers import docker as docker_provider
from asynctest_kit.provision.providers.docker import Docker
from asynctest_kit.provision.providers.docker_candidate import StartingContainer
from asynctest_kit.provision.providers.docker_reach import Places, Published
from asynctest_kit.provision.providers.engine import open_engine
from asynctest_kit.provision.service import ServiceSpec

pytestmark = pytest.mark.anyio

WEB = {"web": 8080}
CLOSED = {"web": 8080, "closed": 8081}
SERVE = "mkdir /www; echo fine >/www/health; httpd -p 8080 -h /www"
TELL = "echo ready 1; echo ready 2 >&2; echo steady; echo go >&2"


@pytest.fixture
async def docker(engine):
    async with Docker(session=token_hex(6), project="tests") as provider:
        yield provider
        assert await engine.labelled(f"{SESSION}={provider._labels[SESSION]}") == []


class Box:
    """A container that runs."""

    def __init__(self, engine, running):
        self.name = running.endpoint.detail.rpartition(" in ")[2]
        self.container = docker_provider._Container(engine, self.name)
        self.engine = engine
        self.places = None

    async def waits(self, wait, seconds=20.0, places=None):
        """Wait for it as for one that was just started; the message of what went wrong, or none."""
        order = order_of(container_of("", wait=wait, startup_timeout=seconds))
        candidate = StartingContainer(self.engine, self.name, places or self.places)
        try:
            await await_ready(order, candidate.waiting(wait), self, subject="The box")
        except ProvisionError as error:
            return str(error)
        return ""

    async def ended(self):
        await asyncio.Event().wait()

    async def last_words(self):
        return await self.engine.log_tail(self.name, 20)


@pytest.fixture(scope="module")
async def box():
    async with AsyncExitStack() as stack:
        try:
            engine = await stack.enter_async_context(open_engine(os.environ))
        except Refusal as reason:
            pytest.skip(f"no Docker: {reason}")
        provider = await stack.enter_async_context(Docker(session=token_hex(6), project="tests"))
        script = f"{SERVE}; {TELL}; touch /tmp/well; sleep 600"
        spec = container_of(script, image=HEALTHCHECK, ports=CLOSED, wait=Log("go"))
        found = Box(engine, await stack.enter_async_context(provider.give(order_of(spec))))
        found.places = await Published({"web": Port(8080), "closed": Port(8081)}).places(engine, found.name)
        yield found


async def body(url):
    async with httpx.AsyncClient() as client:
        return (await client.get(url)).text


async def refusal(docker, spec):
    with pytest.raises(ProvisionError) as caught:
        async with docker.give(order_of(spec)):
            pass
    return str(caught.value)


@pytest.mark.parametrize(
    "wait",
    [
        Listening("web"),
        Log(r"^ready \d$", times=2),
        Log(r"ready", stream="stderr"),
        Http("/health", body="^fine$", headers={"X-By": "test"}),
        Http("/none", port="web", status=(404, 410)),
        Http("/health", method="POST", status=501),
        Command(("sh", "-c", "test -e /tmp/well")),
        Health(),
        AllOf((Listening("web"), Log("go"))),
        AnyOf((Log("never"), Command(("/no/such",)), Http("/health"))),
    ],
    ids=lambda wait: type(wait).__name__,
)
async def test_what_is_so_is_seen(box, wait):
    assert await box.waits(wait) == ""


#: What never comes: how it is called in the message, and what is said to have been seen instead.
NEVER = (
    (
        Log("ready", times=2, stream="stdout"),
        "2 lines matching 'ready' in its stdout",
        "1 of them, and the line 'steady'",
    ),
    (Log("reddy"), "a line matching 'reddy' in its log", "the line '(go|steady)'"),
    (
        Http("/health", status=204),
        "GET http://127.0.0.1:PORT/health to be answered with 204",
        r"the status 200 and the body 'fine\\n'",
    ),
    (
        Http("/health", body="great"),
        "GET http://127.0.0.1:PORT/health to be answered with 2xx and a body with 'great'",
        r"the status 200 and the body 'fine\\n'",
    ),
    (Http("/", tls=True), "GET https://127.0.0.1:PORT/ to be answered with 2xx", ".+"),
    (
        Command(("sh", "-c", "echo no; exit 3")),
        "`sh -c 'echo no; exit 3'` in the container to end with exit code 0",
        "exit code 3 and 'no'",
    ),
    (
        Listening("closed"),
        "its port closed to take connections on 127.0.0.1:PORT",
        r"Connect call failed \('[\d.]+', 8081\)",
    ),
    (
        AllOf((Log("go"), Log("went"))),
        "a line matching 'go' in its log, and a line matching 'went' in its log",
        r"the line '(go|steady)' \(of a line matching 'went' in its log\)",
    ),
    (
        AnyOf((Log("went"), Log("gone"))),
        "a line matching 'went' in its log or a line matching 'gone' in its log",
        r"the line .* \(of a line matching 'went' in its log\); the line .* \(of a line matching 'gone' in its log\)",
    ),
)


async def test_a_time_out_says_what_was_waited_for_and_what_was_seen(box):
    messages = await asyncio.gather(*(box.waits(wait, seconds=2.0) for wait, _, _ in NEVER))
    for (_, expectation, seen), message in zip(NEVER, messages, strict=True):
        head, _, tail = message.partition(" Its last words:\n")
        pattern = re.escape(f"The box was not ready within 2 s: waited for {expectation}; last seen: ")
        assert re.fullmatch(pattern.replace("PORT", r"\d+") + f"({seen})\\.", head), message
        assert sorted(tail.splitlines()) == ["  | go", "  | ready 1", "  | ready 2", "  | steady"]


@pytest.mark.parametrize(
    ("wait", "problem"),
    [
        (Command(("/no/such",)), "The box can't run `/no/such`: OCI runtime exec failed:"),
        (
            Handshake("redis"),
            "The box answered the handshake with: what answers there does not speak Redis's protocol.",
        ),
        (AnyOf((Command(("/no/such",)), Handshake("redis", "web"))), "does not speak Redis's protocol"),
    ],
    ids=["no such program", "another protocol", "none of any"],
)
async def test_what_can_never_be_is_told_at_once(box, wait, problem):
    assert problem in await box.waits(wait, seconds=60.0)


async def test_a_proxy_that_hangs_up_does_not_count(box):
    far = Places(box.places.host, box.places.published, box.places.ports, inside="", gateway="")
    assert await box.waits(Listening("web"), places=far) == ""
    message = await box.waits(Listening("closed"), seconds=1.0, places=far)
    assert "last seen: the connection was closed" in message


async def test_a_firewall_before_the_own_address_leaves_the_published_one(box, monkeypatch):
    monkeypatch.setattr("asynctest_kit.provision.readiness.listening._HOP", 0.0)
    assert await box.waits(Listening("web")) == ""


async def test_ports_are_open_when_it_is_ready_and_each_has_a_name(docker):
    script = (
        "mkdir /a /b; echo a >/a/index.html; echo b >/b/index.html; httpd -p 80 -h /a; sleep 0.4; httpd -p 81 -h /b"
    )
    async with docker.give(order_of(container_of(f"{script}; sleep 60", ports={"main": 80, "admin": 81}))) as running:
        endpoint = running.endpoint
        assert (endpoint.scheme, endpoint.host, endpoint.url) == ("http", "127.0.0.1", endpoint.at("main").url)
        assert await body(endpoint.url) == "a\n"
        assert await body(endpoint.at("admin").url) == "b\n"
        assert endpoint.ports["admin"].port == endpoint.at("admin").port != endpoint.port
        with pytest.raises(ProvisionError, match=r"'box' has no port 'metrics'. There are: main, admin"):
            endpoint.at("metrics")


async def test_a_container_without_ports_has_no_url(docker):
    async with docker.give(order_of(container_of("echo works; sleep 60", wait=Log("works")))) as running:
        assert (await running.last_words()).strip() == "works"
        assert running.endpoint.safe_url == "(no port)"
        with pytest.raises(ProvisionError, match="'box' exposes no port, so it has no URL"):
            _ = running.endpoint.url


async def test_a_handshake_of_the_catalogue(docker):
    spec = ServiceSpec(
        name="cache",
        kind="container",
        image=IMAGES["redis"],
        command=("redis-server", "--requirepass", "s3cret", "--save", ""),
        ports={"redis": Port(6379, "redis")},
        wait=Handshake("redis", password="s3cret"),
    )
    async with docker.give(order_of(spec)) as running:
        assert running.endpoint.url.startswith("redis://127.0.0.1:")


async def test_an_unhealthy_image_fails_at_once_with_what_its_check_says(docker):
    spec = container_of("echo up; sleep 60", image=HEALTHCHECK, wait=Health(), startup_timeout=60.0)
    assert await refusal(docker, spec) == (
        f"The container of the service 'box' ({HEALTHCHECK}) is unhealthy: its HEALTHCHECK "
        "`/bin/sh -c 'test -e /tmp/well || { echo \"not well yet\" >&2; exit 1; }'` says 'not well yet'."
        " Its last words:\n  | up"
    )


async def test_an_image_without_a_check_has_no_health(docker):
    message = await refusal(docker, container_of("sleep 60", wait=Health(), startup_timeout=60.0))
    assert "has no HEALTHCHECK in its image by which its health could be known." in message


@pytest.mark.parametrize("wait", [Listening(), Log("never"), Command(("false",))], ids=["port", "log", "command"])
async def test_a_container_that_ends_early_fails_at_once(docker, wait):
    spec = container_of("echo broken >&2; exit 7", ports=WEB, wait=wait, startup_timeout=60.0)
    assert await refusal(docker, spec) == (
        f"The container of the service 'box' ({BUSYBOX}) ended with exit code 7. Its last words:\n  | broken"
    )


async def test_last_words_are_no_readiness(docker, monkeypatch):
    """A container that has ended by the time that somebody is told of its line."""

    async def late(self):
        deadline = time.monotonic() + 20
        while await is_running(self):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        return False

    is_running = StartingContainer.is_running
    monkeypatch.setattr(StartingContainer, "is_running", late)
    message = await refusal(docker, container_of("echo ready", wait=Log("ready"), startup_timeout=60.0))
    assert message.endswith(f"({BUSYBOX}) ended with exit code 0. Its last words:\n  | ready")


async def test_a_job_is_ready_when_it_has_ended_well(docker):
    async with docker.give(order_of(container_of("echo migrated", once=True))) as running:
        assert (await running.last_words()).strip() == "migrated"
        assert running.endpoint.port == 0


async def test_a_job_that_fails_or_does_not_end(docker):
    message = await refusal(docker, container_of("echo no such table >&2; exit 4", once=True))
    assert message.endswith(f"({BUSYBOX}) ended with exit code 4. Its last words:\n  | no such table")
    message = await refusal(docker, container_of("sleep 60", once=True, startup_timeout=1.5))
    assert "did not end within 1.5 s, and is to be run to its end (once = true)." in message


async def test_a_wait_that_is_cancelled_leaves_no_task(engine):
    """On a loop of its own, where every task is one of this test's; each kind of wait has some."""
    wait = AllOf((Log("never"), Http("/never"), Command(("false",)), Health(), AnyOf((Listening("web"), Log("no")))))
    spec = container_of("sleep 60", image=HEALTHCHECK, ports=WEB, wait=wait, startup_timeout=60.0)

    async def start(provider, order):
        async with provider.give(order):
            pass

    async def cancelled():
        is_booted = asyncio.Event()
        order = order_of(spec)
        order.record = lambda phase: is_booted.set() if phase.phase == "boot" else None
        async with Docker(session=token_hex(6), project="tests") as provider:
            starting = asyncio.ensure_future(start(provider, order))
            await is_booted.wait()
            await asyncio.wait((starting,), timeout=0.2)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        return starting.cancelled(), asyncio.all_tasks() - {asyncio.current_task()}

    assert await asyncio.to_thread(asyncio.run, cancelled()) == (True, set())
