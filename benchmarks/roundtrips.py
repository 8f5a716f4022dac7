"""What a round trip to a server in a container costs: by its unix socket, by TCP passed on to that, by Docker's port.

SELECT 1 on a held asyncpg connection, PING on a held Redis connection, one after the other; ways take turns. "16 at
once" is the time for each of many on 16 connections, and "20 MB" one large answer of PostgreSQL's.

    python benchmarks/roundtrips.py [--iterations N] [--rounds N]

Images are ATK_POSTGRES_IMAGE and ATK_REDIS_IMAGE, or the catalogue's defaults; they must be there already.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _aims
import _services
import asyncpg
import msgspec
from redis.asyncio import Redis

from asynctest_kit.isolation.postgres import connect_arguments
from asynctest_kit.provision.client import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctest_kit.provision.service import Endpoint

_AT_ONCE = 16
_LARGE = "SELECT repeat('x', 20000000)"
_SOCKET, _PASSED_ON, _PUBLISHED = "unix socket", "TCP, passed on to it", "port published by Docker"


@dataclass(frozen=True, slots=True)
class Way:
    """Connections of one kind."""

    title: str
    postgres: list[asyncpg.Connection]
    redis: Any


def main() -> None:
    """Measure and print microseconds and ratios."""
    parser = _aims.parser(__doc__)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if problem := asyncio.run(_services.docker_problem()):
        print(f"left out: {problem}")
        return
    asyncio.run(_measure_all(options.iterations, options.rounds))


async def _measure_all(iterations: int, rounds: int) -> None:
    async with _ways() as ways:
        rows: dict[str, list[list[float]]] = {way.title: [] for way in ways}
        for _ in range(rounds):
            for way in ways:
                rows[way.title].append(await _round(way, iterations))
    medians = {title: [statistics.median(column) for column in zip(*row, strict=True)] for title, row in rows.items()}
    print(f"medians of {rounds} rounds of {iterations} iterations; ratios to a published port")
    print(f"{'':26}{'SELECT 1':>20}{'16 at once':>20}{'PING':>20}{'20 MB':>20}")
    for title, columns in medians.items():
        cells = (
            f"{seconds * scale:10.0f} {unit} {seconds / published:4.2f} x"
            for seconds, published, (scale, unit) in zip(
                columns, medians[_PUBLISHED], [(1e6, "us")] * 3 + [(1e3, "ms")], strict=True
            )
        )
        print(f"{title:26}{''.join(f'{cell:>20}' for cell in cells)}")


@asynccontextmanager
async def _ways() -> AsyncIterator[list[Way]]:
    async with AsyncExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory())
        client = stack.enter_context(closing(Client.connect(Path(root))))
        shared = [await client.endpoint(_services.spec(name, "docker")) for name in _services.NAMES]
        ways = [
            await _connected(stack, _PASSED_ON, *(msgspec.structs.replace(endpoint, socket="") for endpoint in shared)),
            await _connected(stack, _PUBLISHED, *[await _services.published(stack, name) for name in _services.NAMES]),
        ]
        if all(endpoint.socket for endpoint in shared):
            yield [await _connected(stack, _SOCKET, *shared), *ways]
        else:
            print("this engine's sockets are not within reach: all ports are published by Docker")
            yield ways


async def _connected(stack: AsyncExitStack, title: str, server: Endpoint, cache: Endpoint) -> Way:
    connections = []
    for _ in range(_AT_ONCE):
        connection = await asyncpg.connect(**connect_arguments(server), database=server.database)
        stack.push_async_callback(connection.close)
        connections.append(connection)
    place = {"unix_socket_path": cache.socket} if cache.socket else {"host": cache.host, "port": cache.port}
    redis = Redis(**place, password=cache.password, single_connection_client=True)
    await stack.enter_async_context(redis)
    return Way(title, connections, redis)


async def _round(way: Way, iterations: int) -> list[float]:
    async def select(connection: asyncpg.Connection, times: int) -> None:
        for _ in range(times):
            await connection.execute("SELECT 1")

    start = time.perf_counter()
    await select(way.postgres[0], iterations)
    alone = time.perf_counter()
    await asyncio.gather(*(select(connection, iterations // _AT_ONCE + 1) for connection in way.postgres))
    together = time.perf_counter()
    for _ in range(iterations):
        await way.redis.ping()
    pinged = time.perf_counter()
    await way.postgres[0].fetchval(_LARGE)
    large = time.perf_counter() - pinged
    return [
        (alone - start) / iterations,
        (together - alone) / ((iterations // _AT_ONCE + 1) * _AT_ONCE),
        (pinged - together) / iterations,
        large,
    ]


if __name__ == "__main__":
    main()
