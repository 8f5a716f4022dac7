"""What a test's isolation costs on servers that are up: a transaction, statements in its sandbox, a Redis database.

Each way is done over and over; ways take turns, 20 times a round. The first two tables are a whole test with one
statement: get isolation, run it, let go. "Isolation" is what remains without the same statement on a held connection.

- a transaction: a pool's acquire, BEGIN, ROLLBACK, release with its reset (the usual way); this kit's lease; the floor,
  which is a held connection and ``ROLLBACK; BEGIN`` in one round trip
- a Redis database: a new client, FLUSHDB, close (the usual way); this kit's lease; the floor, which is a held client
  and SELECT, FLUSHDB in one round trip
- statements: on asyncpg's own connection, where nothing is rolled back, and on the sandbox's

Servers are the embedded provider's; containers too, where an engine and the images are there. All ways connect as the
kit does: by a unix socket, where there is one.

    python benchmarks/leases.py [--iterations N] [--rounds N]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _services
import asyncpg
from redis.asyncio import Redis

from asynctest_kit.isolation import postgres, redis
from asynctest_kit.isolation.connection import SandboxConnection
from asynctest_kit.provision.client import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from asynctest_kit.provision.service import Endpoint, ProviderChoice

_BLOCKS = 20
_TABLE = "CREATE TABLE item (id bigserial PRIMARY KEY, name text NOT NULL)"
_SELECT = "SELECT name FROM item WHERE id = 1"
_INSERT = "INSERT INTO item (name) VALUES ('a thing')"


@dataclass(frozen=True, slots=True)
class Way:
    """One row: what is done over and over, ``share`` of the iterations if it is slow."""

    title: str
    once: Callable[[], Awaitable[object]]
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Table:
    """Ways that are compared with the first of them, each less what they all do ``within``."""

    title: str
    ways: tuple[Way, ...]
    within: Way | None = None


def main() -> None:
    """Measure and print tables of milliseconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"medians of {options.rounds} rounds of {options.iterations} iterations each")
    asyncio.run(_measure_all(options.iterations, options.rounds))


async def _measure_all(iterations: int, rounds: int) -> None:
    problems: dict[ProviderChoice, str] = {
        "embedded": _services.embedded_problem(),
        "docker": await _services.docker_problem(),
    }
    for provider, problem in problems.items():
        if problem:
            print(f"\nleft out: {provider} ({problem})")
            continue

        async with _servers(provider) as (server, cache):
            for tables in (_transactions(server), _databases(cache), _statements(server)):
                await _measure(provider, tables, iterations, rounds)


@asynccontextmanager
async def _servers(provider: ProviderChoice) -> AsyncIterator[tuple[Endpoint, Endpoint]]:
    with tempfile.TemporaryDirectory() as root:
        client = Client.connect(Path(root))
        try:
            server, cache = [await client.endpoint(_services.spec(name, provider)) for name in _services.NAMES]
            connection = await postgres.connect(server)
            await connection.execute(_TABLE)
            await connection.close()
            yield server, cache
        finally:
            await asyncio.to_thread(client.close)


@asynccontextmanager
async def _transactions(server: Endpoint) -> AsyncIterator[list[Table]]:
    async with (
        postgres.open_slots(server) as slots,
        asyncpg.create_pool(
            **postgres.connect_arguments(server), database=server.database, min_size=1, max_size=1
        ) as pool,
        _connection(server) as held,
        _connection(server) as bare,
    ):

        async def usual() -> None:
            async with pool.acquire() as connection:
                transaction = connection.transaction()
                await transaction.start()
                await connection.execute(_SELECT)
                await transaction.rollback()

        async def lease() -> None:
            async with slots.lease() as sandbox:
                await SandboxConnection(sandbox, commits=False).execute(_SELECT)

        async def floor() -> None:
            await held.execute("ROLLBACK; BEGIN")
            await held.execute(_SELECT)

        async def statement() -> None:
            await bare.execute(_SELECT)

        await held.execute("BEGIN")
        yield [
            Table(
                "a test's transaction",
                (
                    Way("pool, BEGIN, ROLLBACK", usual),
                    Way("asynctest_kit's lease", lease),
                    Way("floor: one round trip", floor),
                ),
                within=Way("", statement),
            )
        ]


@asynccontextmanager
async def _statements(server: Endpoint) -> AsyncIterator[list[Table]]:
    async with (
        _connection(server) as bare,
        postgres.open_slots(server) as slots,
        slots.lease() as sandbox,
    ):
        sandboxed = SandboxConnection(sandbox, commits=True)
        yield [
            Table(
                title, (Way("asyncpg", lambda work=work: work(bare)), Way("sandbox", lambda work=work: work(sandboxed)))
            )
            for title, work in (("SELECT", _select), ("INSERT", _insert), ("INSERT in transaction()", _insert_within))
        ]


async def _select(connection: Any) -> None:
    await connection.execute(_SELECT)


async def _insert(connection: Any) -> None:
    await connection.execute(_INSERT)


async def _insert_within(connection: Any) -> None:
    async with connection.transaction():
        await connection.execute(_INSERT)


@asynccontextmanager
async def _databases(cache: Endpoint) -> AsyncIterator[list[Table]]:
    place = {"unix_socket_path": cache.socket} if cache.socket else {"host": cache.host, "port": cache.port}
    options: dict[str, Any] = place | {"password": cache.password}
    async with (
        redis.open_slots(cache) as slots,
        Redis(**options, db=200, single_connection_client=True) as held,
        Redis(**options, db=201) as bare,
    ):

        async def usual() -> None:
            async with Redis(**options, db=202) as client:
                await client.flushdb()
                await client.set("key", "value")

        async def lease() -> None:
            async with slots.lease() as lease:
                await lease.client.set("key", "value")

        async def floor() -> None:
            await held.pipeline(transaction=False).execute_command("SELECT", 200).flushdb().execute()
            await held.set("key", "value")

        async def command() -> None:
            await bare.set("key", "value")

        yield [
            Table(
                "a test's Redis database",
                (
                    Way("new client, FLUSHDB", usual, share=0.2),
                    Way("asynctest_kit's lease", lease),
                    Way("floor: one round trip", floor),
                ),
                within=Way("", command),
            )
        ]


@asynccontextmanager
async def _connection(server: Endpoint) -> AsyncIterator[Any]:
    connection = await postgres.connect(server)
    try:
        yield connection
    finally:
        await connection.close()


async def _measure(
    provider: ProviderChoice, opened: AbstractAsyncContextManager[list[Table]], iterations: int, rounds: int
) -> None:
    async with opened as tables:
        for table in tables:
            ways = (*table.ways, table.within) if table.within else table.ways
            for way in ways:
                await way.once()
            _print(provider, table, [await _round(ways, iterations) for _ in range(rounds)])


async def _round(ways: Sequence[Way], iterations: int) -> list[float]:
    """Seconds of each way, once. They take turns in short blocks, so that what else the machine does hits them all."""
    blocks = [[await _time(way, iterations // _BLOCKS) for way in ways] for _ in range(_BLOCKS)]
    return [statistics.mean(column) for column in zip(*blocks, strict=True)]


async def _time(way: Way, iterations: int) -> float:
    count = max(1, round(iterations * way.share))
    start = time.perf_counter()
    for _ in range(count):
        await way.once()
    return (time.perf_counter() - start) / count


def _print(provider: ProviderChoice, table: Table, rounds: Sequence[Sequence[float]]) -> None:
    columns = list(zip(*rounds, strict=True))
    within = columns[-1] if table.within else [0.0] * len(rounds)
    costs = [statistics.median(a - b for a, b in zip(column, within, strict=True)) for column in columns]
    print(f"\n{f'{table.title}, {provider}':36}{'whole':>12}" + (f"{'isolation':>15}" if table.within else ""))
    for way, column, cost in zip(table.ways, columns, costs, strict=False):
        isolation = f"{cost * 1000:12.3f} ms" if table.within else ""
        print(f"  {way.title:34}{statistics.median(column) * 1000:9.3f} ms{isolation}{cost / costs[0]:8.2f} x")


if __name__ == "__main__":
    main()
