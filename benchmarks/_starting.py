"""The ways to have one PostgreSQL and one Redis, each a process of its own: ``python _starting.py WAY``.

It starts both, logs in to each, notes the time, removes them, and prints what it noted as JSON: ``answered`` (seconds
on CLOCK_MONOTONIC, which the parent shares) and ``removed`` (seconds that the removal took). All ways end with the same
proof, the kit's own handshakes from this process. Imports are inside the ways: each pays for its own.
"""

from __future__ import annotations

import json
import secrets
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _services

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asynctest_kit.provision.catalog.kind import ContainerPlan, Kind, Login
    from asynctest_kit.provision.readiness import Address
    from asynctest_kit.provision.service import ProviderChoice

_HOST = "127.0.0.1"


def main() -> None:
    """Start, prove, remove; print the two times."""
    with _WAYS[sys.argv[1]]() as addresses:
        _greet(addresses)
        answered = time.monotonic()
    print(json.dumps({"answered": answered, "removed": time.monotonic() - answered}))


@contextmanager
def _kit(provider: ProviderChoice) -> Iterator[list[Address]]:
    from asynctest_kit.provision.client import Client

    with tempfile.TemporaryDirectory() as root:
        client = Client.connect(Path(root))
        try:
            futures = [client.ensure(_services.spec(name, provider)) for name in _services.NAMES]
            # As `atk run` does: what needs imports is imported while the services boot.
            import asyncio  # noqa: F401

            from asynctest_kit.provision.readiness import Address

            for name in _services.NAMES:
                _services.kind(name)
            endpoints = [future.result() for future in futures]
            yield [
                Address(
                    host=endpoint.host,
                    port=endpoint.port,
                    username=endpoint.username,
                    password=endpoint.password,
                    database=endpoint.database,
                )
                for endpoint in endpoints
            ]
        finally:
            client.close()


@contextmanager
def _aiodocker() -> Iterator[list[Address]]:
    import asyncio

    with asyncio.Runner() as runner:
        running = _Containers()
        try:
            yield runner.run(running.start())
        finally:
            runner.run(running.remove())


class _Containers:
    """Both containers as a careful user of aiodocker would start them: at once, ready when they answer."""

    def __init__(self) -> None:
        self._names = {name: f"atk-bench-{name}-{secrets.token_hex(4)}" for name in _services.NAMES}
        self._docker: Any = None

    async def start(self) -> list[Address]:
        import asyncio

        import aiodocker

        self._docker = aiodocker.Docker()
        # A failed start waits for the other one: a container that is being created can't be removed yet.
        started = await asyncio.gather(*(self._start(name) for name in _services.NAMES), return_exceptions=True)
        for result in started:
            if isinstance(result, BaseException):
                raise result

        return [result for result in started if not isinstance(result, BaseException)]

    async def _start(self, name: str) -> Address:
        from asynctest_kit.provision.readiness import Greeting

        kind, login, plan = _plan(name)
        port = f"{kind.port}/tcp"
        container = await self._docker.containers.create(
            {
                "Image": _services.image(name),
                "Env": [f"{key}={value}" for key, value in plan.environment.items()],
                "Cmd": list(plan.command),
                "ExposedPorts": {port: {}},
                "HostConfig": {
                    "PortBindings": {port: [{"HostIp": _HOST, "HostPort": ""}]},
                    "Tmpfs": dict.fromkeys(plan.memory, "rw"),
                },
            },
            name=self._names[name],
        )
        await container.start()
        shown = await container.show()
        address = _address(login, int(shown["NetworkSettings"]["Ports"][port][0]["HostPort"]))
        await Greeting(kind.handshake, address).wait(lambda _: None)
        return address

    async def remove(self) -> None:
        import asyncio

        containers = [self._docker.containers.container(name) for name in self._names.values()]
        try:
            # All are tried, also after a start that failed and left one of them out.
            removals = (container.delete(force=True, v=True) for container in containers)
            for error in filter(None, await asyncio.gather(*removals, return_exceptions=True)):
                print(error, file=sys.stderr)
        finally:
            await self._docker.close()


@contextmanager
def _testcontainers(*, threads: int, tuned: bool = False) -> Iterator[list[Address]]:
    containers = _tuned() if tuned else _shipped()
    with ExitStack() as stack, ThreadPoolExecutor(threads) as pool:
        for container, _ in containers:
            stack.callback(container.stop)
        list(pool.map(lambda pair: pair[0].start(), containers))
        yield [_address(login, int(container.get_exposed_port(container.port))) for container, login in containers]
        list(pool.map(lambda pair: pair[0].stop(), containers))
        stack.pop_all()


def _shipped() -> list[tuple[Any, Login]]:
    from testcontainers.community.postgres import PostgresContainer
    from testcontainers.community.redis import RedisContainer

    from asynctest_kit.provision.catalog.kind import Login

    return [
        (PostgresContainer(_services.image("postgres")), Login(username="test", password="test", database="test")),
        (
            RedisContainer(_services.image("redis"), password="test"),
            Login(username=None, password="test", database="0"),
        ),
    ]


def _tuned() -> list[tuple[Any, Login]]:
    """As shipped, but without durability and on tmpfs, as ours are; the polling interval is the environment's."""
    containers = _shipped()
    for name, (container, _) in zip(_services.NAMES, containers, strict=True):
        _, _, plan = _plan(name)
        for path in plan.memory:
            container.with_tmpfs_mount(path)
        if name == "postgres":
            container.with_command(list(plan.command))
            for key in ("PGDATA", "POSTGRES_INITDB_ARGS"):
                container.with_env(key, plan.environment[key])
        else:
            container.with_command(["redis-server", "--requirepass", "test", "--save", "", "--appendonly", "no"])
    return containers


def _greet(addresses: Iterable[Address]) -> None:
    import asyncio

    async def greet() -> None:
        await asyncio.gather(
            *(
                _services.kind(name).handshake.attempt(address)
                for name, address in zip(_services.NAMES, addresses, strict=True)
            )
        )

    asyncio.run(greet())


def _plan(name: str) -> tuple[Kind, Login, ContainerPlan]:
    spec, kind = _services.spec(name, "docker"), _services.kind(name)
    login = kind.login(spec, secrets.token_hex(16))
    return kind, login, kind.container(spec, login)


def _address(login: Login, port: int) -> Address:
    from asynctest_kit.provision.readiness import Address

    return Address(host=_HOST, port=port, username=login.username, password=login.password, database=login.database)


_WAYS = {
    "kit-docker": lambda: _kit("docker"),
    "kit-embedded": lambda: _kit("embedded"),
    "aiodocker": _aiodocker,
    "testcontainers": lambda: _testcontainers(threads=1),
    "testcontainers-threads": lambda: _testcontainers(threads=2),
    "testcontainers-tuned": lambda: _testcontainers(threads=2, tuned=True),
}

if __name__ == "__main__":
    main()
