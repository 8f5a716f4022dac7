"""What a service is asked to be, and where it was found: plain frozen data.

All times are seconds on ``CLOCK_MONOTONIC``, which every process of one machine shares,
so spans taken in the supervisor line up with spans taken in the runner.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from urllib.parse import parse_qs, quote, unquote

import msgspec

from asynctest_kit.container_options import ContainerOptions, ImageSource
from asynctest_kit.containers import Port, Wait  # noqa: TC001 (msgspec reads them)
from asynctest_kit.errors import ProvisionError
from asynctest_kit.wiring import KIND_OF_IMAGES

__all__ = [
    "SECRET_NAME",
    "TLS_SCHEMES",
    "Endpoint",
    "Output",
    "Phase",
    "Program",
    "ProviderChoice",
    "ProviderName",
    "ServicePhase",
    "ServiceSpec",
    "ServiceState",
    "Stream",
    "image_variable",
    "jar_variable",
    "provider_variable",
    "same_container",
    "same_server",
    "shared_name",
    "url_variable",
]

ProviderName = Literal["docker", "embedded", "external"]
ProviderChoice = Literal["auto", "docker", "embedded", "external"]

Stream = Literal["stdout", "stderr"]

#: Names of variables and of a query's parameters whose values nobody should see.
SECRET_NAME = re.compile(r"PASS|PWD|SECRET|TOKEN|KEY", re.IGNORECASE)

#: URL schemes that ask for TLS.
TLS_SCHEMES = frozenset({"https", "rediss"})

#: PostgreSQL's ways to ask for it.
_TLS_MODES = frozenset({"require", "verify-ca", "verify-full"})

#: libpq's name for what asyncpg calls ``ssl``.
_SSL_MODE = re.compile(r"(?<=[?&])sslmode=")

Phase = Literal[
    "resolve", "pull", "create", "boot", "ready", "migrate", "prepare", "clone", "drop", "snapshot", "remove"
]  # fmt: skip


class ServiceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A service as tests ask for it; :func:`same_server` says which ones are one service. Its repr hides secrets.

    Attributes:
        name: What the user calls it; unique in a run.
        kind: The catalogue entry that knows how to start it and shake hands with it.
        provider: Who should give it; ``auto`` tries docker, embedded, and takes a URL where one is set.
        image: Container image, or None for the catalogue's default.
        url: Where an external service is; None otherwise.
        jar: Absolute path of the jar that the embedded provider runs, for the kinds that have one; None if none is set.
        environment: Extra environment variables of the service.
        command: Extra arguments of the service's command.
        startup_timeout: Seconds from asked, or from when all that it needs is ready, to ready; those for its image
            don't count.
        ports: The ports that a container exposes, by name, the main one first; empty for the kinds that have their own.
        wait: What a container waits for; None for all of its ports.
        needs: Those that must be ready before it starts. They are a part of what it is: with another one it is
            another service.
        once: Whether it is run to its end, and is ready when it ended with exit code 0.
        container: How its container is made, beyond what its kind says.
        images: Where container images come from.
        publish_openly: Whether an engine on another machine may open it to its network though it has no password.
        snapshots: Whether it may start from prepared data, and prepared data of it are kept.
        migrations: The digest of those that tests will make in it; what is kept of its data is kept for these.
        is_own: Whether it is one client's alone, and ends with that client, whoever else keeps services up.
        shares: Whether it is a database on the server of the one service that it needs, and nothing of it is started.

    Templates in ``environment`` and ``command`` (see :mod:`asynctest_kit.wiring`) name services in
    ``needs`` alone.
    """

    name: str
    kind: str
    provider: ProviderChoice = "auto"
    image: str | None = None
    url: str | None = None
    jar: str | None = None
    environment: dict[str, str] = {}
    command: tuple[str, ...] = ()
    startup_timeout: float = 60.0
    ports: dict[str, Port] = {}
    wait: Wait | None = None
    needs: tuple[ServiceSpec, ...] = ()
    once: bool = False
    container: ContainerOptions = ContainerOptions()
    images: ImageSource = ImageSource()
    publish_openly: bool = False
    snapshots: bool = True
    migrations: str = ""
    is_own: bool = False
    shares: bool = False

    def __repr__(self) -> str:
        return f"<ServiceSpec {self.name}: {self.kind} by {self.provider}, image {self.image}>"


def same_server(spec: ServiceSpec) -> bytes:
    """What tells the server that ``spec`` makes from others, whoever gives it: equal for those that differ in limits.

    What it needs is told beside it, and what a provider makes it of by the provider's source.
    """
    plain = ServiceSpec(
        name=spec.name,
        kind=spec.kind,
        url=spec.url,
        environment=spec.environment,
        command=spec.command,
        ports=spec.ports,
        wait=spec.wait,
        once=spec.once,
        shares=spec.shares,
    )
    return msgspec.json.encode(plain, order="deterministic")


def same_container(spec: ServiceSpec, usual_image: str) -> bytes:
    """What tells the containers that are made for ``spec`` apart, beside that: not when and how their image is fetched.

    Args:
        spec: What is asked for.
        usual_image: The image of its kind.
    """
    build = spec.container.build
    if build is not None:
        build = msgspec.structs.replace(build, timeout=0.0)
    plain = ServiceSpec(
        name=spec.name,
        kind=spec.kind,
        image=spec.images.name_of(spec.image or usual_image),
        container=msgspec.structs.replace(spec.container, pull=None, build=build),
    )
    return msgspec.json.encode(plain, order="deterministic")


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service that is ready can be reached. Its repr never shows the password.

    Attributes:
        service: The name in its spec.
        kind: The kind in its spec.
        provider: Who gave it.
        scheme: URL scheme, e.g. ``postgresql`` or ``redis``.
        host: Address to connect to; a loopback address unless external.
        port: TCP port; 0 if the service exposes none.
        username: User to authenticate as, or None.
        password: Secret of this run, or None.
        database: Database (PostgreSQL name, Redis number), or None.
        socket: Path of a unix socket on which it answers too, several times faster than by TCP; empty if there is none.
        query: The query of an external service's URL as the user gave it, e.g. ``sslmode=require``; without the user
            and the password, if they were in it.
        detail: For people: the image and container, or the binary and its version.
        ports: Where each port that a container exposes can be reached on ``host``, by name; see :meth:`at`.
        shares: The service whose server it is on; empty if it has one of its own.
    """

    service: str
    kind: str
    provider: ProviderName
    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = None
    database: str | None = None
    socket: str = ""
    query: str = ""
    detail: str = ""
    ports: dict[str, Port] = {}
    shares: str = ""

    @property
    def url(self) -> str:
        """The URL with its credentials. Don't log it; log :attr:`safe_url`.

        Raises:
            ProvisionError: The service exposes no port.
        """
        if not self.port:
            raise ProvisionError(f"The service {self.service!r} exposes no port, so it has no URL.")
        return self._url(self.password, self.query)

    def url_for(self, driver: str) -> str:
        """The URL that names a driver, as SQLAlchemy wants it: ``url_for("psycopg")`` is ``postgresql+psycopg://...``.

        Without one, :attr:`url` is what drivers themselves and libpq understand.

        Raises:
            ProvisionError: The service exposes no port, or ``driver`` is no name.
        """
        if not driver.isidentifier():
            raise ProvisionError(f"{driver!r} is no driver's name. Give it as in SQLAlchemy's URLs, e.g. 'psycopg'.")

        url = self.url.replace("://", f"+{driver}://", 1)
        return _SSL_MODE.sub("ssl=", url) if driver == "asyncpg" else url

    @property
    def safe_url(self) -> str:
        """The URL with its secrets starred out, in its query too; for people, so it is a word where there is none."""
        if not self.port:
            return "(no port)"
        return self._url("***" if self.password else None, "&".join(map(_starred, self.query.split("&"))))

    @property
    def asks_for_tls(self) -> bool:
        """Whether its URL wants every connection encrypted."""
        return self.scheme in TLS_SCHEMES or not _TLS_MODES.isdisjoint(parse_qs(self.query).get("sslmode", ()))

    def at(self, port: str) -> Endpoint:
        """The same service's endpoint at another of its ports.

        Raises:
            ProvisionError: It exposes none of that name.
        """
        try:
            found = self.ports[port]
        except KeyError:
            known = ", ".join(self.ports) or "none"
            raise ProvisionError(f"The service {self.service!r} has no port {port!r}. There are: {known}.") from None
        return msgspec.structs.replace(self, port=found.port, scheme=found.scheme)

    def _url(self, password: str | None, query: str) -> str:
        user = quote(self.username or "", safe="")
        secret = f":{quote(password, safe='*')}" if password else ""
        at = "@" if user or secret else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        # Of a server of the user's own it is whatever path the URL has.
        path = f"/{quote(self.database, safe='/' if self.kind == KIND_OF_IMAGES else '')}" if self.database else ""
        asked = f"?{query}" if query else ""
        return f"{self.scheme}://{user}{secret}{at}{host}:{self.port}{path}{asked}"

    def __hash__(self) -> int:
        return hash((self.service, self.provider, self.host, self.port, self.database))

    def __repr__(self) -> str:
        return f"<Endpoint {self.service}: {self.safe_url} ({self.provider}, {self.detail})>"


def url_variable(service: str) -> str:
    """The variable that gives the URL of a server to be used instead."""
    return _variable(service, "URL")


def jar_variable(service: str) -> str:
    """The variable that gives the jar of a server that Java runs."""
    return _variable(service, "JAR")


def image_variable(service: str) -> str:
    """The variable that gives the image of its container."""
    return _variable(service, "IMAGE")


def provider_variable(service: str) -> str:
    """The variable that says who should give it."""
    return _variable(service, "PROVIDER")


def shared_name(service: str) -> str:
    """Its name in the settings, also of a server that is a single test's own."""
    return service.partition(".")[0]


def _variable(service: str, what: str) -> str:
    return f"ATK_{shared_name(service).upper().replace('-', '_')}_{what}"


def _starred(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    return f"{name}=***" if equals and value and SECRET_NAME.search(unquote(name)) else parameter


class ServiceState(msgspec.Struct, frozen=True, kw_only=True):
    """One service as its supervisor sees it now.

    Attributes:
        name: The name in its spec.
        kind: The kind in its spec.
        asked: When it was first asked for, in seconds on CLOCK_MONOTONIC.
        users: How many connected clients have asked for it.
        endpoint: Where it is; None while it starts.
        is_own: Whether it came from what the one who asks has around it, too: its engine, its binaries.
    """

    name: str
    kind: str
    asked: float
    users: int
    endpoint: Endpoint | None = None
    is_own: bool = True


class ServicePhase(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of a service's start or end, for the budget's ledger."""

    service: str
    phase: Phase
    start: float
    end: float
    provider: ProviderName | None = None


class Output(NamedTuple):
    """A piece of what a service or a program in it has written, and to which of its streams."""

    stream: Stream
    data: bytes


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """Something to run in a service. Its repr shows no arguments, which may be secret.

    Attributes:
        argv: The program and its arguments; no shell reads them.
        environment: Variables beside the service's own.
        user: As whom, as ``name``, ``uid`` or ``uid:gid``; None for the service's user.
        directory: Where; None for the service's working directory.
    """

    argv: tuple[str, ...]
    environment: dict[str, str] = {}
    user: str | None = None
    directory: str | None = None

    def __repr__(self) -> str:
        return f"<Program {self.argv[0]}>"
