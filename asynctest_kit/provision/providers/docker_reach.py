"""How a container is reached from here: by a socket that it shares with us, or by a port that the engine publishes.

Where the engine runs on this very machine, a server that can listen on a unix socket is given a folder of ours to put
it in, and no network at all: nobody else can reach it, it starts and ends faster by what a network costs, and a round
trip is several times faster. For who speaks TCP, a port of 127.0.0.1 is passed on to the socket (see
:mod:`asynctest_kit.provision.forwarding`).

Everywhere else (Docker Desktop, rootless engines, an engine in another container) a socket in a shared folder is dead,
and the engine publishes the port on 127.0.0.1, on a number that it draws.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from asynctest_kit.provision.catalog.kind import LONGEST_SOCKET, SOCKETS
from asynctest_kit.provision.forwarding import forwarded
from asynctest_kit.provision.providers.engine import EngineError, NotFoundError
from asynctest_kit.provision.waiting import to_its_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctest_kit.provision.catalog.kind import ContainerPlan
    from asynctest_kit.provision.providers.engine import Engine

__all__ = ["HOST", "Place", "Published", "Reach", "Shared", "is_within_reach", "shared"]

HOST = "127.0.0.1"

#: Bytes that the names of a container's folder and its socket take.
_NAMES = len("/0123456789ab/.s.PGSQL.5432")

_SELINUX = Path("/sys/fs/selinux/enforce")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container's server is reached.

    Attributes:
        port: Of 127.0.0.1; 0 if the container has ended already, and waiting for it will tell how.
        socket: Path of its unix socket; empty if it has none.
    """

    port: int
    socket: str = ""


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

    async def place(self, engine: Engine, container: str) -> Place:
        """Where the started container is."""


@dataclass(frozen=True, slots=True)
class Published:
    """By a port that the engine publishes.

    Attributes:
        port: The container's.
    """

    port: int
    arguments: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """See :class:`Reach`."""
        return {"ExposedPorts": {f"{self.port}/tcp": {}}}

    @property
    def host_settings(self) -> dict[str, Any]:
        """See :class:`Reach`."""
        return {"PortBindings": {f"{self.port}/tcp": [{"HostIp": HOST, "HostPort": ""}]}}

    async def place(self, engine: Engine, container: str) -> Place:
        """See :class:`Reach`."""
        try:
            bindings = (await engine.inspect(container))["NetworkSettings"]["Ports"].get(f"{self.port}/tcp")
        except NotFoundError:
            return Place(0)
        if not bindings:
            return Place(0)

        # Docker 20.10 publishes on every address if it can't make sense of the one that it was given.
        if strangers := {binding["HostIp"] for binding in bindings} - {HOST}:
            raise EngineError(f"it published port {self.port} on {', '.join(strangers)} instead of {HOST} alone")

        return Place(int(bindings[0]["HostPort"]))


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

    async def place(self, engine: Engine, container: str) -> Place:  # noqa: ARG002  # Reach's
        """See :class:`Reach`."""
        return Place(self.port, str(self.folder / self.file))


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
    """Whether sockets that containers make in ``folder`` can be connected to from here.

    So it is if the engine runs on our kernel, has a process id here and its bridge in our network: neither of us is in
    a virtual machine or a container of its own.
    """
    if not url.startswith("unix://") or len(str(folder)) + _NAMES > LONGEST_SOCKET or _is_selinux_enforced():
        return False

    try:
        kernel, gateways = await asyncio.gather(engine.kernel(), engine.bridge_gateways())
    except EngineError:
        return False
    return kernel == os.uname().release and any(map(_is_ours, gateways)) and _is_visible_process(url)


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
