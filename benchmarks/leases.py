"""What a test's isolation costs on servers that are up: a transaction, statements in its sandbox, a Redis database.

Each way is done over and over; ways take turns, 20 times a round. The first two tables are a whole test with one
statement: get isolation, run it, let go. "Isolation" is what remains without the same statement on a held connection
to the same place.

- a transaction: a pool's acquire, BEGIN, ROLLBACK, release with its reset (the usual way), of a container by the port
  that Docker publishes, as everyone does; this kit's lease; the floor, which is a held connection and
  ``ROLLBACK; BEGIN`` in one round trip
- a Redis database: a new client, SELECT, FLUSHDB, close (the usual way, likewise); this kit's lease; the floor, which
  is a held client and SELECT, FLUSHDB in one round trip
- a database of a test's own: one that was cloned before it was asked for, with a connection to it; the floor, which is
  such a connection to a database that stays. What is made and dropped meanwhile is waited for between two leases
- statements: on asyncpg's own connection, where nothing is rolled back, and on the sandbox's

Servers are the embedded provider's; containers too, where an engine and the images are there. But for what is said
above all ways connect as the kit does: by a unix socket, where there is one.

    python benchmarks/leases.py [--check] [--iterations N] [--rounds N]
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import _aims
import _services
import asyncpg
from redis.asyncio import Redis

from asynctest_kit.isolation import postgres, redis
from asynctest_kit.isolation.clones import Clones
from asynctest_kit.isolation.connection import SandboxConnection
from asynctest_kit.isolation.templates import ensure_template
from asynctest_kit.provision.client import Client
from asynctest_kit.settings import Migrations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from asynctest_kit.provision.service import Endpoint, ProviderChoice

_BLOCKS = 20
_TABLE = "CREATE TABLE item (id bigserial PRIMARY KEY, name text NOT NULL)"
_SELECT = "SELECT name FROM item WHERE id = 1"
_INSERT = "INSERT INTO item (name) VALUES ('a thing')"

Work: TypeAlias = "Callable[[], Awaitable[object]]"


@dataclass(frozen=True, slots=True)
class Way:
    """One row.

    Attributes:
        title: What it is called.
        once: What is done over and over.
        within: The part of it that isn't isolation.
        share: Of the iterations, if it is slow.
        between: What must be done before the next, and doesn't count.
    """

    title: str
    once: Work
    within: Work | None = None
    share: float = 1.0
    between: Work | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Ways that are compared with the first of them, in what they cost beyond what is within."""

    title: str
    ways: tuple[Way, ...]
    aims: tuple[Aim, ...] = ()


@dataclass(frozen=True, slots=True)
class Aim:
    """That a row costs at most so many times what another one does."""

    row: int
    of: int
    limit: float


def main() -> None:
    """Measure and print tables of milliseconds and ratios."""
    parser = _aims.parser(__doc__)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"medians of {options.rounds} rounds of {options.iterations} iterations each")
    aims = _aims.Aims()
    asyncio.run(_measure_all(options.iterations, options.rounds, aims))
    aims.end(options)


async def _measure_all(iterations: int, rounds: int, aims: _aims.Aims) -> None:
    problems: dict[ProviderChoice, str] = {
        "embedded": _services.embedded_problem(),
        "docker": await _services.docker_problem(),
    }
    for provider, problem in problems.items():
        if problem:
            print(f"\nleft out: {provider} ({problem})")
            continue

        async with _servers(provider) as (server, cache), AsyncExitStack() as stack:
            usual_server, usual_cache = server, cache
            if provider == "docker":
                usual_server, usual_cache = [await _services.published(stack, name) for name in _services.NAMES]
                await _make_table(usual_server)
            for tables in (
                _transactions(server, usual_server),
                _clones(server),
                _databases(cache, usual_cache),
                _statements(server),
            ):
                await _measure(provider, tables, iterations, rounds, aims)


@asynccontextmanager
async def _servers(provider: ProviderChoice) -> AsyncIterator[tuple[Endpoint, Endpoint]]:
    with tempfile.TemporaryDirectory() as root:
        client = Client.connect(Path(root))
        try:
            server, cache = [await client.endpoint(_services.spec(name, provider)) for name in _services.NAMES]
            await _make_table(server)
            yield server, cache
        finally:
            await asyncio.to_thread(client.close)


async def _make_table(server: Endpoint) -> None:
    async with _connection(server) as connection:
        await connection.execute(_TABLE)


@asynccontextmanager
async def _transactions(server: Endpoint, usual_server: Endpoint) -> AsyncIterator[list[Table]]:
    async with (
        postgres.open_slots(server) as slots,
        asyncpg.create_pool(
            **postgres.connect_arguments(usual_server), database=usual_server.database, min_size=1, max_size=1
        ) as pool,
        _connection(server) as held,
        _connection(server) as bare,
        _connection(usual_server) as usual_bare,
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

        async def usual_statement() -> None:
            await usual_bare.execute(_SELECT)

        await held.execute("BEGIN")
        yield [
            Table(
                "a test's transaction",
                (
                    Way("pool, BEGIN, ROLLBACK", usual, usual_statement),
                    Way("asynctest_kit's lease", lease, statement),
                    Way("floor: one round trip", floor, statement),
                ),
                (Aim(1, 0, 0.3), Aim(1, 2, 1.5)) if usual_server is not server else (Aim(1, 2, 1.5),),
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


@asynccontextmanager
async def _clones(server: Endpoint) -> AsyncIterator[list[Table]]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "01_table.sql").write_text(_TABLE)
        template = await ensure_template(server, Migrations(sql=Path(folder)), root=Path(folder))
    async with Clones(template, expected=1_000_000) as clones, _connection(server) as bare:

        async def raw() -> None:
            async with _connection(server) as connection:
                await connection.execute("SELECT 1")

        async def lease() -> None:
            async with clones.lease() as database, _connection(database) as connection:
                await connection.execute("SELECT 1")

        async def in_stock() -> None:
            while not clones.is_at_rest:  # noqa: ASYNC110  # for nothing else than this would an event be there
                await asyncio.sleep(0.005)

        async def statement() -> None:
            await bare.execute("SELECT 1")

        await in_stock()
        yield [
            Table(
                "a test's own database",
                (
                    Way("floor: a connection", raw, statement, share=0.03, between=in_stock),
                    Way("asynctest_kit's clone", lease, statement, share=0.03, between=in_stock),
                ),
                (Aim(1, 0, 1.5),),
            )
        ]


async def _select(connection: Any) -> None:
    await connection.execute(_SELECT)


async def _insert(connection: Any) -> None:
    await connection.execute(_INSERT)


async def _insert_within(connection: Any) -> None:
    async with connection.transaction():
        await connection.execute(_INSERT)


@asynccontextmanager
async def _databases(cache: Endpoint, usual_cache: Endpoint) -> AsyncIterator[list[Table]]:
    options, usual_options = _redis_options(cache), _redis_options(usual_cache)
    async with (
        redis.open_slots(cache) as slots,
        Redis(**options, db=200, single_connection_client=True) as held,
        Redis(**options, db=201) as bare,
        Redis(**usual_options, db=201) as usual_bare,
    ):

        async def usual() -> None:
            async with Redis(**usual_options, db=202) as client:
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

        async def usual_command() -> None:
            await usual_bare.set("key", "value")

        yield [
            Table(
                "a test's Redis database",
                (
                    Way("new client, FLUSHDB", usual, usual_command, share=0.2),
                    Way("asynctest_kit's lease", lease, command),
                    Way("floor: one round trip", floor, command),
                ),
                (Aim(1, 0, 0.4),),
            )
        ]


def _redis_options(cache: Endpoint) -> dict[str, Any]:
    place = {"unix_socket_path": cache.socket} if cache.socket else {"host": cache.host, "port": cache.port}
    return place | {"password": cache.password}


@asynccontextmanager
async def _connection(server: Endpoint) -> AsyncIterator[Any]:
    connection = await postgres.connect(server)
    try:
        yield connection
    finally:
        await connection.close()


async def _measure(
    provider: ProviderChoice,
    opened: AbstractAsyncContextManager[list[Table]],
    iterations: int,
    rounds: int,
    aims: _aims.Aims,
) -> None:
    async with opened as tables:
        for table in tables:
            ways = {way.once: way for way in table.ways}
            ways |= {way.within: Way("", way.within) for way in table.ways if way.within is not None}
            for once in ways:
                await once()
            _print(provider, table, [await _round(ways.values(), iterations) for _ in range(rounds)], aims)


async def _round(ways: Collection[Way], iterations: int) -> dict[Work, float]:
    """Seconds of each, once. They take turns in short blocks, so that what else the machine does hits them all."""
    blocks = [{way.once: await _time(way, iterations // _BLOCKS) for way in ways} for _ in range(_BLOCKS)]
    return {way.once: statistics.median(block[way.once] for block in blocks) for way in ways}


async def _time(way: Way, iterations: int) -> float:
    count = max(1, round(iterations * way.share))
    seconds = 0.0
    for times in [count] if way.between is None else [1] * count:
        start = time.perf_counter()
        for _ in range(times):
            await way.once()
        seconds += time.perf_counter() - start
        if way.between is not None:
            await way.between()
    return seconds / count


def _print(provider: ProviderChoice, table: Table, rounds: Sequence[Mapping[Work, float]], aims: _aims.Aims) -> None:
    medians = {once: statistics.median(seconds[once] for seconds in rounds) for once in rounds[0]}
    costs = [
        statistics.median(seconds[way.once] - (seconds[way.within] if way.within else 0.0) for seconds in rounds)
        for way in table.ways
    ]
    has_parts = table.ways[0].within is not None
    print(f"\n{f'{table.title}, {provider}':36}{'whole':>12}" + (f"{'isolation':>15}" if has_parts else ""))
    for way, cost in zip(table.ways, costs, strict=True):
        isolation = f"{cost * 1000:12.3f} ms" if has_parts else ""
        print(f"  {way.title:34}{medians[way.once] * 1000:9.3f} ms{isolation}{cost / costs[0]:8.2f} x")
    for aim in table.aims:
        ratio = costs[aim.row] / costs[aim.of]
        aims.tell(f"  {ratio:.2f} of {table.ways[aim.of].title}", ratio, aim.limit)


if __name__ == "__main__":
    main()
