"""How a container is reached from here: by a socket that it shares with us, or by a port that the engine publishes.

Where the engine runs on this very machine, a server that can listen on a unix socket is given a folder of ours to put
it in, and no network at all: nobody else can reach it, it starts and ends faster by what a network costs, and a round
trip is several times faster. For who speaks TCP, a port of 127.0.0.1 is passed on to the socket (see
:mod:`asynctest_kit.provision.forwarding`).

Everywhere else (Docker Desktop, rootless engines, an engine in another container) a socket in a shared folder is dead,
and the engine publishes the port on 127.0.0.1, on a number that it draws; one on another machine on all of its
addresses, for there is no other way to reach it: behind the service's random password, or if the settings allow it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from asynctest_kit.provision.catalog.kind import LONGEST_SOCKET, SOCKETS
from asynctest_kit.provision.forwarding import forwarded
from asynctest_kit.provision.providers.engine import EngineError, NotFoundError
from asynctest_kit.provision.providers.engine.location import LOOPBACK
from asynctest_kit.provision.providers.engine.requests import DEFAULT_NETWORK
from asynctest_kit.provision.readiness import Address
from asynctest_kit.provision.service import url_variable
from asynctest_kit.provision.waiting import to_its_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from asynctest_kit.containers import Port
    from asynctest_kit.provision.catalog.kind import ContainerPlan, Login
    from asynctest_kit.provision.providers.engine import Engine

__all__ = [
    "HOST",
    "Places",
    "Published",
    "Reach",
    "Shared",
    "is_on_this_machine",
    "is_within_reach",
    "obstacle",
    "shared",
]

HOST = LOOPBACK

#: Where an engine on another machine publishes: which of its addresses we reach it at, it may not even know.
_EVERYWHERE = "0.0.0.0"  # noqa: S104

#: Bytes that the names of a container's folder and its socket take.
_NAMES = len("/0123456789ab/.s.PGSQL.5432")

#: Seconds for a published port to take a connection, when it is asked why nobody was reached by it.
_KNOCK = 2.0

_SELINUX = Path("/sys/fs/selinux/enforce")


@dataclass(frozen=True, slots=True)
class Places:
    """Where a container's ports are.

    Attributes:
        host: Where they are published.
        published: The ports there, by name; 0 for one that is not.
        ports: The ports in the container.
        inside: The container's own address, as other containers see it; empty if it has none.
        gateway: That of the network's gateway.
        socket: Path here of its server's unix socket; empty if it has none.
    """

    host: str
    published: Mapping[str, int]
    ports: Mapping[str, int] = field(default_factory=dict)
    inside: str = ""
    gateway: str = ""
    socket: str = ""

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
            socket=self.socket,
        )

    def direct(self) -> dict[str, Address]:
        """The ports at the container's own address; empty if this machine is not on its network.

        It is if the gateway's address is one of this machine's. In front of a virtual machine or another network
        namespace the same address may be anybody's.
        """
        if not self.inside or not self.gateway or not _is_ours(self.gateway):
            return {}
        return {name: Address(host=self.inside, port=port) for name, port in self.ports.items()}


class Reach(Protocol):
    """One way to reach a container."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """More arguments of the container's command."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the container is created with."""

    @property
    def host_settings(self) -> dict[str, Any]:
        """The same, what concerns the host."""

    async def places(self, engine: Engine, container: str) -> Places:
        """Where the started container's ports are; those of one that has ended already are nowhere: port 0."""


@dataclass(frozen=True, slots=True)
class Published:
    """By ports that the engine publishes.

    Attributes:
        ports: The container's, by name.
        host: Where the engine publishes: this machine's loopback, or all addresses of another machine.
    """

    ports: Mapping[str, Port]
    host: str = LOOPBACK
    arguments: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """See :class:`Reach`."""
        return {"ExposedPorts": {f"{port.port}/tcp": {} for port in self.ports.values()}}

    @property
    def host_settings(self) -> dict[str, Any]:
        """See :class:`Reach`."""
        drawn = [{"HostIp": HOST if self.host == LOOPBACK else _EVERYWHERE, "HostPort": ""}]
        return {"PortBindings": {f"{port.port}/tcp": drawn for port in self.ports.values()}}

    async def places(self, engine: Engine, container: str) -> Places:
        """See :class:`Reach`."""
        try:
            network = (await engine.inspect(container))["NetworkSettings"]
        except NotFoundError:
            network = {}
        # Docker 29 tells addresses by network alone, Podman calls its default network otherwise.
        address = (network.get("Networks") or {}).get(DEFAULT_NETWORK) or network
        return Places(
            host=self.host,
            published={
                name: _published(network.get("Ports") or {}, port.port, self.host) for name, port in self.ports.items()
            },
            ports={name: port.port for name, port in self.ports.items()},
            inside=address.get("IPAddress", ""),
            gateway=address.get("Gateway", ""),
        )


@dataclass(frozen=True, slots=True)
class Shared:
    """By a socket in a folder that the container shares with us.

    Attributes:
        folder: Ours.
        port: Passed on to the socket.
        file: The socket's name in the folder.
        arguments: See :class:`Reach`.
    """

    folder: Path
    port: int
    file: str
    arguments: tuple[str, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """See :class:`Reach`."""
        return {}

    @property
    def host_settings(self) -> dict[str, Any]:
        """See :class:`Reach`."""
        # A mount and not a bind: an engine that doesn't see the folder says so, and makes none of its own.
        mount = {"Type": "bind", "Source": str(self.folder), "Target": SOCKETS}
        return {"NetworkMode": "none", "Mounts": [mount]}

    async def places(self, engine: Engine, container: str) -> Places:  # noqa: ARG002  # Reach's
        """See :class:`Reach`."""
        return Places(host=HOST, published={"": self.port}, socket=str(self.folder / self.file))


@asynccontextmanager
async def shared(plan: ContainerPlan, folder: Path) -> AsyncIterator[Shared]:
    """Make ``folder`` and pass a port on to the socket in it; both are gone at the end.

    The folder that it is in must be private: this one has to be open to whatever user the server runs as.
    """
    _make_open(folder)
    try:
        async with forwarded(str(folder / plan.socket)) as port:
            yield Shared(folder, port, plan.socket, plan.socket_arguments)
    finally:
        await to_its_end(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))


async def is_within_reach(engine: Engine, url: str, folder: Path) -> bool:
    """Whether sockets that containers make in ``folder`` can be connected to from here."""
    if len(str(folder)) + _NAMES > LONGEST_SOCKET or _is_selinux_enforced():
        return False

    return await is_on_this_machine(engine, url)


async def is_on_this_machine(engine: Engine, url: str) -> bool:
    """Whether a path means the same to the engine and to us.

    So it is if the engine runs on our kernel, has a process id here and its bridge in our network: neither of us is in
    a virtual machine or a container of its own.
    """
    if not url.startswith("unix://"):
        return False

    try:
        kernel, gateways = await asyncio.gather(engine.kernel(), engine.bridge_gateways())
    except EngineError:
        return False
    return kernel == os.uname().release and any(map(_is_ours, gateways)) and _is_visible_process(url)


async def obstacle(engine: Engine, places: Places, service: str) -> str:
    """What keeps us from a container's published port, as a sentence without its full stop; empty if nothing does.

    Of an engine on this machine nothing is said: there a port that takes no connection is the server's own affair.
    """
    location, address = engine.location, places.address(None)
    if places.socket or not address.port or await is_on_this_machine(engine, location.url):
        return ""
    try:
        async with asyncio.timeout(_KNOCK):
            _, writer = await address.connect()
    except (OSError, TimeoutError) as error:
        seen = f"nobody takes a connection at {address} ({getattr(error, 'strerror', None) or 'no answer'})"
    else:
        writer.close()
        return ""
    other = f'provider = "embedded", or a server of yours: {url_variable(service)}'
    if not location.is_local:
        return (
            f"The service {service!r} is out of reach: {seen}, where the engine at {location} publishes its port. A "
            f"firewall is between, or that engine publishes on its machine's loopback alone (a rootless one, or one "
            f'set so with "ip"). What would help: let this machine reach the ports that are drawn at {address.host}; '
            f"{other}"
        )
    return (
        f"The service {service!r} is out of reach: {seen}, though the engine at {location} publishes its port there. "
        f"That engine's {LOOPBACK} is not ours: it is in a virtual machine or behind a tunnel, or the tests run in a "
        f"container. What would help: that container in its host's network (docker run --network host); DOCKER_HOST "
        f"with a name or address of the engine's machine (tcp://NAME:2376, ssh://NAME), at which ports are looked for "
        f"then; {other}"
    )


def _published(bindings: Mapping[str, list[dict[str, str]] | None], port: int, host: str) -> int:
    found = bindings.get(f"{port}/tcp")
    if not found:
        return 0

    # Docker 20.10 publishes on every address if it can't make sense of the one that it was given.
    strangers = {binding["HostIp"] for binding in found} - {HOST}
    if strangers and host == LOOPBACK:
        raise EngineError(f"it published port {port} on {', '.join(strangers)} instead of {HOST} alone")

    return int(found[0]["HostPort"])


def _make_open(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)


def _is_ours(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.bind((address, 0))
        return True
    return False


def _is_visible_process(url: str) -> bool:
    """Whether who listens at the socket has a process id here."""
    if not hasattr(socket, "SO_PEERCRED"):
        return False

    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(url.removeprefix("unix://"))
            pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError:
            return False
    return bool(pid)


def _is_selinux_enforced() -> bool:
    """Whether containers are kept from folders that are not labelled for them."""
    try:
        return _SELINUX.read_text(encoding="ascii").strip() == "1"
    except OSError:
        return False
