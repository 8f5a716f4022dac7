"""What a server has to lease: logical databases, or where it has none, prefixes of keys."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.crc import key_slot
from redis.exceptions import ResponseError

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.redis_client import connection_class
from asynctest_kit.isolation.redis_names import Commands

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asynctest_kit.provision.service import Endpoint

__all__ = ["Layout", "Room", "connected", "listener", "options_of", "read_layout"]

#: What a server has unless it says otherwise.
_DATABASES = 16

#: Prefixes of keys, where there are no databases.
_PREFIXES = 256

#: Connections as the server's own user, for what tests may not do.
_MANAGERS = 2

_CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Room:
    """What one lease may reach.

    Attributes:
        name: The lease's; of its users, too.
        database: The number of the only database that it may select.
        place: The server, or the node of a cluster that has all the lease's keys.
        channels: How its channels begin.
        keys: How its keys begin; empty where it has a database of its own.
    """

    name: str
    database: int
    place: Endpoint
    channels: str
    keys: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """What there is to lease.

    Attributes:
        rooms: By name.
        nodes: The server; of a cluster all that answer, the one first that tells what is leased.
        commands: Where the keys of commands are; None where there are databases.
        strays: How many keys are in database 0.
        shortcoming: What tests don't have for want of databases; empty where they have them.
    """

    rooms: dict[str, Room]
    nodes: tuple[Endpoint, ...]
    commands: Commands | None = field(default=None, repr=False)
    strays: int = 0
    shortcoming: str = ""


async def read_layout(endpoint: Endpoint, server: Redis) -> Layout:
    """Ask a server what it has.

    Args:
        endpoint: Where it is.
        server: A client of it.

    Raises:
        IsolationError: Prefixes are needed, and it is too old to tell where the keys of commands are.
    """
    pipeline = server.pipeline(transaction=False)
    for question in (("INFO", "cluster"), ("CONFIG", "GET", "databases"), ("DBSIZE",)):
        pipeline.execute_command(*question)
    about, databases, strays = await pipeline.execute(raise_on_error=False)
    if about.get("cluster_enabled"):
        return await _prefixes(endpoint, server, await _nodes(endpoint, server), "is a Redis Cluster")

    count = _database_count(databases)
    if count > 1 or endpoint.provider != "external":
        # Who doesn't select one writes to 0: it is nobody's, and on a server of others theirs.
        numbers = range(1, count) if count > 1 else range(1)
        rooms = {str(number): _database(endpoint, number) for number in numbers}
        return Layout(rooms=rooms, nodes=(endpoint,), strays=strays)

    whole = [(range(1 << 14), (endpoint,))]
    return await _prefixes(endpoint, server, whole, "has one logical database")


def _database(endpoint: Endpoint, number: int) -> Room:
    return Room(name=str(number), database=number, place=endpoint, channels=f"atk:{number}:")


async def _prefixes(
    endpoint: Endpoint, server: Redis, slots: Sequence[tuple[range, tuple[Endpoint, ...]]], reason: str
) -> Layout:
    commands = await Commands.of(server)
    if not commands:
        raise IsolationError(
            f"{endpoint.safe_url} {reason}, so tests would be told apart by a prefix of their keys; for that it takes "
            "Redis 7 or Valkey. Use such a server, or one with more databases (--databases 256)."
        )

    rooms = {}
    for number in range(_PREFIXES):
        # What stands in braces decides alone on which node a key is: all keys of a lease are on one.
        name, prefix = f"p{number}", f"{{atk:p{number}}}:"
        slot = key_slot(prefix.encode())
        place = next((nodes[0] for numbers, nodes in slots if slot in numbers), endpoint)
        rooms[name] = Room(name=name, database=0, place=place, channels=prefix, keys=prefix)
    return Layout(
        rooms=rooms,
        nodes=tuple(dict.fromkeys(node for _, nodes in slots for node in nodes)),
        commands=commands,
        shortcoming=(
            f"{endpoint.safe_url} {reason}: tests have no database of their own there, and are told apart by a prefix "
            "of their keys, which an application with a client of its own must add itself (fixture redis_prefix)."
        ),
    )


async def _nodes(endpoint: Endpoint, server: Redis) -> list[tuple[range, tuple[Endpoint, ...]]]:
    """Which nodes of a cluster have which slots; in the order of these, the one that writes first."""
    found = []
    for first, last, *nodes in await server.execute_command("CLUSTER", "SLOTS"):  # type: ignore[no-untyped-call]
        places = tuple(
            msgspec.structs.replace(endpoint, host=_text(node[0]) or endpoint.host, port=int(node[1]), socket="")
            for node in nodes
        )
        found.append((range(first, last + 1), places))
    return sorted(found, key=lambda each: each[0].start)


def _database_count(answer: Any) -> int:
    if isinstance(answer, ResponseError):
        # Managed servers refuse CONFIG.
        return _DATABASES

    values = list(answer.values()) if isinstance(answer, dict) else answer[1::2]
    return int(values[0]) if values else _DATABASES


@asynccontextmanager
async def connected(endpoint: Endpoint) -> AsyncIterator[Redis]:
    """A client as whoever was given; of few connections, for what they are used for takes a round trip."""
    pool = BlockingConnectionPool(
        _MANAGERS,
        timeout=None,
        connection_class=connection_class(endpoint, guarded=False),
        **options_of(endpoint) | {"db": 0},
    )
    client = Redis.from_pool(pool)
    try:
        yield client
    finally:
        await client.aclose()


def listener(endpoint: Endpoint) -> Any:
    """A connection that subscribes and waits."""
    options = options_of(endpoint) | {"db": 0, "protocol": 2, "socket_timeout": None}
    return connection_class(endpoint, guarded=False)(**options)


def options_of(endpoint: Endpoint) -> dict[str, Any]:
    """What redis-py's connections take."""
    options: dict[str, Any] = {**parse_url(endpoint.url), "socket_connect_timeout": _CONNECT_SECONDS, **_driver()}
    options.pop("connection_class", None)
    if endpoint.socket:
        del options["host"], options["port"]
        options["path"] = endpoint.socket
    return options


@cache
def _driver() -> dict[str, Any]:
    """What newer versions of redis-py tell a server of themselves, which each connection else reads from files."""
    try:
        from redis.driver_info import DriverInfo
    except ImportError:
        return {}
    return {"driver_info": DriverInfo()}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
