"""Fixtures of the suite as one writes them without this kit: a pool for the session, a transaction for each test."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis
from work import open_client


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def urls():
    if "BENCH_POSTGRES" in os.environ:
        yield os.environ["BENCH_POSTGRES"], os.environ["BENCH_REDIS"]
        return

    from testcontainers.community.postgres import PostgresContainer
    from testcontainers.community.redis import RedisContainer

    postgres = PostgresContainer(os.environ["BENCH_POSTGRES_IMAGE"], driver=None)
    redis = RedisContainer(os.environ["BENCH_REDIS_IMAGE"])
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        list(threads.map(stack.enter_context, (postgres, redis)))
        host, port = redis.get_container_host_ip(), redis.get_exposed_port(6379)
        yield postgres.get_connection_url(), f"redis://{host}:{port}"


@pytest.fixture(scope="session")
async def pool(urls, anyio_backend):
    async with asyncpg.create_pool(urls[0], min_size=1, max_size=int(os.environ["BENCH_POOL"])) as pool:
        async with pool.acquire() as connection, connection.transaction():
            # Two processes that create the same table at once fail.
            await connection.execute("SELECT pg_advisory_xact_lock(1)")
            await connection.execute(Path(__file__).with_name("01_schema.sql").read_text())
        yield pool


@pytest.fixture
async def pg(pool, anyio_backend):
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        yield connection
        await transaction.rollback()


@pytest.fixture(scope="session")
async def redis_client(urls, anyio_backend):
    async with Redis.from_url(urls[1]) as client:
        yield client


@pytest.fixture
async def redis(redis_client, anyio_backend):
    """Keys carry the user's id, which no two tests share, so they are left."""
    return redis_client


@pytest.fixture
async def client(pg, anyio_backend):
    async with open_client(pg) as client:
        yield client
