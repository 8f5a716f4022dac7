"""What a run leaves on servers that outlive it when it is killed amid its tests: gone when the next run has ended."""

from __future__ import annotations

import os
import signal
import tempfile

import anyio
import preloaded
import pytest
import redis.asyncio
from redis_servers import redis_server

from asynctest_kit.isolation.postgres import connect
from asynctest_kit.provision.service import ServiceSpec

pytestmark = pytest.mark.anyio

PYPROJECT = """
[tool.asynctest_kit]
timeout = "100s"

[tool.asynctest_kit.services.postgres]
migrations = { sql = "sql" }
"""

#: Each leaves on its rung what can be left, and tells so; in the first run none ends.
SUITE = """
import os
from pathlib import Path

import anyio
import asyncpg
import pytest
from redis.asyncio import Redis

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


async def stay(name):
    if "STAYS" in os.environ:
        Path(name).touch()
        await anyio.sleep_forever()


async def test_transaction(pg):
    await pg.execute("INSERT INTO notes VALUES (1)")
    await pg.execute("SELECT pg_advisory_lock(7)")
    await stay("transaction")
    while await pg.fetchval("SELECT count(*) FROM pg_database WHERE datname = ANY($1)", os.environ["LEFT"].split()):
        await anyio.sleep(0.02)  # they are dropped behind the tests' backs
    await pg.execute("SELECT pg_advisory_unlock(7)")


async def test_database(pg_database):
    connection = await asyncpg.connect(pg_database.url)
    name = f"of run {os.getpid()}"  # the whole server's
    await connection.execute(f"BEGIN; INSERT INTO notes VALUES (1); PREPARE TRANSACTION '{name}'")
    await stay("database")
    await connection.execute(f"ROLLBACK PREPARED '{name}'")
    await connection.close()


async def test_redis(redis, redis_url):
    await redis.set("key", "value")
    async with Redis.from_url(redis_url) as application:
        assert await application.get("key") == b"value"
        await stay("redis")
"""

RUNGS = {"transaction", "database", "redis"}

_RUN_DATABASES = r"SELECT coalesce(string_agg(datname, ' '), '') FROM pg_database WHERE datname LIKE 'atk\_run\_%'"
_PREPARED = "SELECT count(*) FROM pg_prepared_xacts"
_SESSIONS = (
    r"SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'atk\_run\_%' OR application_name LIKE 'atk\_run\_%'"
)


async def test_the_next_run_clears_up_after_one_that_was_killed_amid_its_tests(services, tmp_path):
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "01.sql").write_text("CREATE TABLE notes (id int)")
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "test_rungs.py").write_text(SUITE)
    options = ("-c", "max_prepared_transactions=4")
    database = await services.endpoint(
        ServiceSpec(name="outliving", kind="postgres", provider="embedded", command=options)
    )
    cache = await redis_server(services, "embedded", "--databases", "5")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ATK_", "PYTEST_C"))}
    environment |= {"ATK_POSTGRES_URL": database.url, "ATK_REDIS_URL": cache.url}
    command = ("-m", "asynctest_kit", "run", "-p", "no:cacheprovider")
    server = await connect(database)
    async with redis.asyncio.from_url(cache.url, decode_responses=True) as keys:
        with anyio.fail_after(100):
            await _killed(command, tmp_path, environment | {"STAYS": "yes"})
            while await server.fetchval(_SESSIONS):  # noqa: ASYNC110  # the server sees it in a moment
                await anyio.sleep(0.05)
        left = await server.fetchval(_RUN_DATABASES)
        assert len(left.split()) >= 2
        assert await server.fetchval(_PREPARED) == 1
        assert len(await keys.acl_users()) > 1
        assert await keys.info("keyspace") != {}

        with anyio.fail_after(100):
            done = await preloaded.finished(command, cwd=tmp_path, env=environment | {"LEFT": left})
        assert " 3 passed" in done.stdout, done.stdout + done.stderr
        assert await server.fetchval(_PREPARED) == 0
        assert await server.fetchval(_RUN_DATABASES) == ""
        assert await keys.acl_users() == ["default"]
        assert await keys.info("keyspace") == {}
        assert await keys.pubsub_channels("atk:*") == []
    await server.close()


async def _killed(command, root, environment):
    """A run that is killed when all its tests are amid what they do."""
    with tempfile.TemporaryFile() as out:
        run = await preloaded.started(command, cwd=root, env=environment, out=out, err=out)
        try:
            while not {*os.listdir(root)} >= RUNGS:  # noqa: PTH208
                await anyio.sleep(0.02)
                if run.poll() is not None:
                    out.seek(0)
                    raise AssertionError(out.read().decode())
        finally:
            run.send_signal(signal.SIGKILL)
        assert await run.ended() == -signal.SIGKILL
