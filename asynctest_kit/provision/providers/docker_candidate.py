"""A container that is starting, as those see it who wait for it; and one that is run to its end."""

from __future__ import annotations

import asyncio
import socket
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynctest_kit.provision.providers import start_error
from asynctest_kit.provision.providers.engine import EngineError
from asynctest_kit.provision.readiness import Address, NotReadyError
from asynctest_kit.provision.readiness.candidate import Health, Stream
from asynctest_kit.provision.readiness.waits import bound

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from asynctest_kit.containers import Wait
    from asynctest_kit.provision.catalog.kind import Login
    from asynctest_kit.provision.providers import Order, Witness
    from asynctest_kit.provision.providers.engine import Engine
    from asynctest_kit.provision.readiness import Waiting

__all__ = ["Places", "StartingContainer", "await_end"]

_STREAMS: dict[int, Stream] = {1: "stdout", 2: "stderr"}

#: What a container's end is called when it is the one that was wanted.
_DONE = "ended with exit code 0"


@dataclass(frozen=True, slots=True)
class Places:
    """Where a container's ports are.

    Attributes:
        host: Where they are published.
        published: The ports there, by name; 0 for one that is not.
        ports: The ports in the container.
        inside: The container's own address, as other containers see it; empty if it has none.
        gateway: That of the network's gateway.
    """

    host: str
    published: Mapping[str, int]
    ports: Mapping[str, int]
    inside: str
    gateway: str

    def address(self, port: str | None, login: Login | None = None) -> Address:
        """Where to connect to a port, or to the first one."""
        number = next(iter(self.published.values()), 0) if port is None else self.published[port]
        if login is None:
            return Address(host=self.host, port=number)
        return Address(
            host=self.host,
            port=number,
            username=login.username,
            password=login.password,
            database=login.database,
        )

    def direct(self) -> dict[str, Address]:
        """The ports at the container's own address; empty if this machine is not on its network.

        It is if the gateway's address is one of this machine's. In front of a virtual machine or another network
        namespace the same address may be anybody's.
        """
        if not self.inside or not _is_ours(self.gateway):
            return {}
        return {name: Address(host=self.inside, port=port) for name, port in self.ports.items()}


class StartingContainer:
    """A :class:`~asynctest_kit.provision.readiness.candidate.Candidate` on an engine."""

    def __init__(self, engine: Engine, name: str, places: Places) -> None:
        self._engine = engine
        self._name = name
        self.ports = {port: places.address(port) for port in places.published}
        self.direct = places.direct()

    def waiting(self, wait: Wait | None) -> Waiting:
        """What waits for it."""
        return bound(wait, self)

    async def is_running(self) -> bool:
        """Whether it hasn't ended."""
        try:
            return bool((await self._engine.inspect(self._name))["State"]["Running"])
        except EngineError:
            return False

    async def log(self) -> AsyncGenerator[tuple[Stream, str], None]:
        """See :class:`~asynctest_kit.provision.readiness.candidate.Candidate`."""
        with suppress(EngineError):  # it is gone; its witness tells
            async with aclosing(self._engine.follow_log(self._name)) as lines:
                async for stream, line in lines:
                    yield _STREAMS[stream], line

    async def run(self, argv: Sequence[str]) -> tuple[int, str]:
        """See :class:`~asynctest_kit.provision.readiness.candidate.Candidate`."""
        try:
            ended = await self._engine.run(self._name, argv)
        except EngineError as error:
            raise NotReadyError(str(error)) from None
        return ended.code, (ended.stdout + ended.stderr).decode(errors="replace")

    async def check(self) -> tuple[str, ...] | None:
        """See :class:`~asynctest_kit.provision.readiness.candidate.Candidate`."""
        try:
            config = (await self._engine.inspect(self._name))["Config"]
        except EngineError:
            return None
        match (config.get("Healthcheck") or {}).get("Test"):
            case ["CMD", *argv] if argv:
                return tuple(argv)
            case ["CMD-SHELL", script]:
                return (*(config.get("Shell") or ("/bin/sh", "-c")), script)
        return None

    async def health(self) -> AsyncGenerator[Health, None]:
        """See :class:`~asynctest_kit.provision.readiness.candidate.Candidate`."""
        with suppress(EngineError):  # as above
            async with aclosing(self._engine.health_changes(self._name)) as changes:
                async for _ in changes:
                    state = (await self._engine.inspect(self._name))["State"].get("Health") or {}
                    last = (state.get("Log") or [{}])[-1]
                    yield Health(state.get("Status", ""), last.get("Output", ""))


async def await_end(order: Order, witness: Witness, subject: str) -> None:
    """Wait until a container that is run once has ended well.

    Raises:
        ProvisionError: It ended otherwise, or not in time; its last words are in the message.
    """
    try:
        async with asyncio.timeout_at(order.deadline):
            how = await witness.ended()
    except TimeoutError:
        how = f"did not end within {order.allowed}, and is to be run to its end (once = true)"
    if how != _DONE:
        raise await start_error(order, witness, f"{subject} {how}")


def _is_ours(address: str) -> bool:
    """Whether this machine has that address, told by whether it can be bound to."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        return bool(address)
    return False
