"""What a careful author writes without any framework: everything at once, a transaction for each test."""

from __future__ import annotations

import asyncio
import os
import secrets
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
from redis.asyncio import Redis
from work import open_client, use

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


async def main() -> None:
    """Run all tests."""
    tests, places = int(os.environ["BENCH_TESTS"]), asyncio.Semaphore(int(os.environ["BENCH_AT_ONCE"]))
    async with (
        _urls() as (postgres, redis_url),
        asyncpg.create_pool(postgres, min_size=1, max_size=int(os.environ["BENCH_POOL"])) as pool,
        Redis.from_url(redis_url) as redis,
    ):
        await pool.execute(Path(__file__).with_name("01_schema.sql").read_text())

        async def test() -> None:
            async with places, pool.acquire() as connection:
                transaction = connection.transaction()
                await transaction.start()
                try:
                    async with open_client(connection) as client:
                        await use(connection, redis, client)
                finally:
                    await transaction.rollback()

        await asyncio.gather(*(test() for _ in range(tests)))
    print(f"{tests} passed")


@asynccontextmanager
async def _urls() -> AsyncIterator[tuple[str, str]]:
    if "BENCH_POSTGRES" in os.environ:
        yield os.environ["BENCH_POSTGRES"], os.environ["BENCH_REDIS"]
        return

    import aiodocker

    password = secrets.token_hex(8)
    async with aiodocker.Docker() as docker:
        starts = [
            asyncio.ensure_future(_start(docker, "POSTGRES", 5432, Env=[f"POSTGRES_PASSWORD={password}"])),
            asyncio.ensure_future(_start(docker, "REDIS", 6379)),
        ]
        try:
            (_, postgres), (_, redis) = await asyncio.gather(*starts)
            postgres, redis = f"postgresql://postgres:{password}@{postgres}/postgres", f"redis://{redis}"
            await asyncio.gather(_until(_greet_postgres, postgres), _until(_greet_redis, redis))
            yield postgres, redis
        finally:
            started = [start.result()[0] for start in starts]
            await asyncio.gather(*(container.delete(force=True, v=True) for container in started))


async def _start(docker: Any, name: str, port: int, **options: Any) -> tuple[Any, str]:
    """A container, and where its port is published."""
    container = await docker.containers.create(
        {
            "Image": os.environ[f"BENCH_{name}_IMAGE"],
            "ExposedPorts": {f"{port}/tcp": {}},
            "HostConfig": {"PortBindings": {f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}},
            **options,
        }
    )
    await container.start()
    shown = await container.show()
    return container, f"127.0.0.1:{shown['NetworkSettings']['Ports'][f'{port}/tcp'][0]['HostPort']}"


async def _until(attempt: Callable[[str], Awaitable[None]], url: str) -> None:
    while True:
        try:
            await attempt(url)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError):
            await asyncio.sleep(0.02)
        else:
            return


async def _greet_postgres(url: str) -> None:
    await (await asyncpg.connect(url)).close()


async def _greet_redis(url: str) -> None:
    async with Redis.from_url(url) as client:
        try:
            await client.ping()
        except Exception as error:
            raise ConnectionError from error


asyncio.run(main())
