"""The ways to have several PostgreSQL and Redis servers, each a process of its own: ``_starting.py WAY NAME ...``.

It imports what it needs, starts a server for each name (``postgres`` or ``redis``, any number of times), logs in to
each, removes them, and prints as JSON what it noted, in seconds on CLOCK_MONOTONIC, which the parent shares: ``asked``
(before anything is asked for), ``answered`` (all have) and ``removed``. All ways end with the same proof, the kit's own
handshakes from this process.

The kit's ways are its providers, without the supervisor that a run has around them; ``supervised`` is with it, and
counts the imports too.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import _services

from asynctest_kit.provision.readiness import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from asynctest_kit.provision.catalog.kind import ContainerPlan, Kind, Login
    from asynctest_kit.provision.service import Endpoint, ProviderChoice

_HOST = "127.0.0.1"

#: Starts what is named when it is entered; imports come before, unless they are to be counted.
Way: TypeAlias = "Callable[[Sequence[str]], AbstractContextManager[list[Address]]]"


def main() -> None:
    """Start, prove, remove; print the times."""
    way, names = _WAYS[sys.argv[1]](), sys.argv[2:]
    asked = time.monotonic()
    with way(names) as addresses:
        _greet(names, addresses)
        answered = time.monotonic()
    print(json.dumps({"asked": asked, "answered": answered, "removed": time.monotonic()}))


def _kit(provider: ProviderChoice, *, may_keep: bool = False) -> Way:
    import aiodocker  # noqa: F401

    from asynctest_kit.provision.providers.docker import Docker
    from asynctest_kit.provision.providers.embedded import Embedded

    @contextmanager
    def start(names: Sequence[str]) -> Iterator[list[Address]]:
        with asyncio.Runner() as runner, tempfile.TemporaryDirectory(prefix="atk") as folder:
            docker = Docker(session="benchmark", project="benchmark", sockets=Path(folder))
            stack = AsyncExitStack()
            try:
                giver = runner.run(stack.enter_async_context(docker)) if provider == "docker" else Embedded()
                yield runner.run(_give(giver, names, stack, may_keep=may_keep))
            finally:
                runner.run(stack.aclose())

    return start


async def _give(giver: Any, names: Sequence[str], stack: AsyncExitStack, *, may_keep: bool) -> list[Address]:
    """All at once, as the supervisor does it: each in a task that lives as long as its service."""
    over = asyncio.Event()
    places: list[asyncio.Future[Address]] = [asyncio.get_running_loop().create_future() for _ in names]
    tasks = [
        asyncio.ensure_future(_hold(giver, name, place, over, may_keep=may_keep))
        for name, place in zip(names, places, strict=True)
    ]

    async def end() -> None:
        over.set()
        await asyncio.gather(*tasks)

    stack.push_async_callback(end)
    return await asyncio.gather(*places)


async def _hold(giver: Any, name: str, place: asyncio.Future[Address], over: asyncio.Event, *, may_keep: bool) -> None:
    from asynctest_kit.provision.providers import Order

    order = Order(
        spec=_services.spec(name, giver.name), kind=_services.kind(name), asked=time.monotonic(), record=lambda _: None
    )
    order.may_keep = may_keep
    try:
        async with giver.give(order) as running:
            place.set_result(_address_of(running.endpoint))
            await over.wait()
    except Exception as error:  # whoever waits for the place is to hear of it
        if place.done():
            raise
        place.set_exception(error)


def _supervised(provider: ProviderChoice) -> Way:
    @contextmanager
    def start(names: Sequence[str]) -> Iterator[list[Address]]:
        from asynctest_kit.provision.client import Client

        with tempfile.TemporaryDirectory() as root:
            client = Client.connect(Path(root))
            try:
                specs = [_services.spec(name, provider, number) for number, name in enumerate(names)]
                futures = [client.ensure(spec) for spec in specs]
                for name in names:
                    _services.kind(name)
                yield [_address_of(future.result()) for future in futures]
            finally:
                client.close()

    return start


def _aiodocker() -> Way:
    import aiodocker  # noqa: F401

    for name in _services.NAMES:
        _services.kind(name)

    @contextmanager
    def start(names: Sequence[str]) -> Iterator[list[Address]]:
        with asyncio.Runner() as runner:
            running = _Containers(names)
            try:
                yield runner.run(running.start())
            finally:
                runner.run(running.remove())

    return start


class _Containers:
    """All containers as a careful user of aiodocker would start them: at once, ready when they answer."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = {f"atk-bench-{name}-{secrets.token_hex(4)}": name for name in names}
        self._docker: Any = None

    async def start(self) -> list[Address]:
        import aiodocker

        self._docker = aiodocker.Docker()
        # A failed start waits for the others: a container that is being created can't be removed yet.
        started = await asyncio.gather(
            *(self._start(container, name) for container, name in self._names.items()), return_exceptions=True
        )
        for result in started:
            if isinstance(result, BaseException):
                raise result

        return [result for result in started if not isinstance(result, BaseException)]

    async def _start(self, name: str, service: str) -> Address:
        from asynctest_kit.provision.readiness import Greeting

        kind, login, plan = _plan(service)
        port = f"{kind.port}/tcp"
        container = await self._docker.containers.create(
            {
                "Image": _services.image(service),
                "Env": [f"{key}={value}" for key, value in plan.environment.items()],
                "Cmd": list(plan.command),
                "ExposedPorts": {port: {}},
                "HostConfig": {
                    "PortBindings": {port: [{"HostIp": _HOST, "HostPort": ""}]},
                    "Tmpfs": dict.fromkeys(plan.memory, "rw"),
                },
            },
            name=name,
        )
        await container.start()
        shown = await container.show()
        address = _address(login, int(shown["NetworkSettings"]["Ports"][port][0]["HostPort"]))
        await Greeting(kind.handshake, address).wait(lambda _: None)
        return address

    async def remove(self) -> None:
        containers = [self._docker.containers.container(name) for name in self._names]
        try:
            # All are tried, also after a start that failed and left one of them out.
            removals = (container.delete(force=True, v=True) for container in containers)
            for error in filter(None, await asyncio.gather(*removals, return_exceptions=True)):
                print(error, file=sys.stderr)
        finally:
            await self._docker.close()


def _testcontainers(*, is_threaded: bool, is_tuned: bool = False) -> Way:
    from testcontainers.community.postgres import PostgresContainer  # noqa: F401
    from testcontainers.community.redis import RedisContainer  # noqa: F401

    @contextmanager
    def start(names: Sequence[str]) -> Iterator[list[Address]]:
        containers = [_tuned(name) if is_tuned else _shipped(name) for name in names]
        with ExitStack() as stack, ThreadPoolExecutor(len(names) if is_threaded else 1) as pool:
            for container, _ in containers:
                stack.callback(container.stop)
            list(pool.map(lambda pair: pair[0].start(), containers))
            yield [_address(login, int(container.get_exposed_port(container.port))) for container, login in containers]
            list(pool.map(lambda pair: pair[0].stop(), containers))
            stack.pop_all()

    return start


def _shipped(name: str) -> tuple[Any, Login]:
    from testcontainers.community.postgres import PostgresContainer
    from testcontainers.community.redis import RedisContainer

    from asynctest_kit.provision.catalog.kind import Login

    image = _services.image(name)
    if name == "postgres":
        return PostgresContainer(image), Login(username="test", password="test", database="test")
    return RedisContainer(image, password="test"), Login(username=None, password="test", database="0")


def _tuned(name: str) -> tuple[Any, Login]:
    """As shipped, but without durability and on tmpfs, as ours are; the polling interval is the environment's."""
    container, login = _shipped(name)
    _, _, plan = _plan(name)
    for path in plan.memory:
        container.with_tmpfs_mount(path)
    if name == "postgres":
        container.with_command(list(plan.command))
        for key in ("PGDATA", "POSTGRES_INITDB_ARGS"):
            container.with_env(key, plan.environment[key])
    else:
        container.with_command(["redis-server", "--requirepass", "test", "--save", "", "--appendonly", "no"])
    return container, login


def _greet(names: Sequence[str], addresses: Sequence[Address]) -> None:
    async def greet() -> None:
        await asyncio.gather(
            *(_services.kind(name).handshake.attempt(address) for name, address in zip(names, addresses, strict=True))
        )

    asyncio.run(greet())


def _plan(name: str) -> tuple[Kind, Login, ContainerPlan]:
    spec, kind = _services.spec(name, "docker"), _services.kind(name)
    login = kind.login(spec, secrets.token_hex(16))
    return kind, login, kind.container(spec, login)


def _address(login: Login, port: int) -> Address:
    return Address(host=_HOST, port=port, username=login.username, password=login.password, database=login.database)


def _address_of(endpoint: Endpoint) -> Address:
    return Address(
        host=endpoint.host,
        port=endpoint.port,
        username=endpoint.username,
        password=endpoint.password,
        database=endpoint.database,
        socket=endpoint.socket,
    )


_WAYS: dict[str, Callable[[], Way]] = {
    "kit-docker": partial(_kit, "docker"),
    "kit-docker-keeping": partial(_kit, "docker", may_keep=True),
    "kit-embedded": partial(_kit, "embedded"),
    "kit-embedded-keeping": partial(_kit, "embedded", may_keep=True),
    "supervised-docker": partial(_supervised, "docker"),
    "supervised-embedded": partial(_supervised, "embedded"),
    "aiodocker": _aiodocker,
    "testcontainers": partial(_testcontainers, is_threaded=False),
    "testcontainers-threads": partial(_testcontainers, is_threaded=True),
    "testcontainers-tuned": partial(_testcontainers, is_threaded=True, is_tuned=True),
}

if __name__ == "__main__":
    main()
