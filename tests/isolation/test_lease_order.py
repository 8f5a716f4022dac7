"""Tests with leases of two pools, on a server that has too few for all, in a run of its own."""

from __future__ import annotations

import os

import anyio
import preloaded
import pytest
from redis_servers import redis_server
from users import user_of

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.postgres import open_slots
from asynctest_kit.isolation.room import Room

pytestmark = pytest.mark.anyio

PYPROJECT = """
[tool.asynctest_kit]
timeout = "30s"
concurrency = 64

[tool.asynctest_kit.services.postgres]
migrations = { sql = "sql" }

[tool.asynctest_kit.services.orders-db]
kind = "postgres"
migrations = { sql = "sql" }
"""

#: As many tests take either first as there are connections for both.
SUITE = """
import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def seeded(pg):
    await pg.execute("INSERT INTO notes VALUES (1)")


@pytest.mark.parametrize("n", range(12))
async def test_one_order(seeded, orders_db_pg, pg, n):
    assert await orders_db_pg.fetchval("SELECT count(*) FROM notes") == 0
    assert await pg.fetchval("SELECT count(*) FROM notes") == 1


@pytest.mark.parametrize("n", range(12))
async def test_the_other(orders_db_pg, seeded, pg, n):
    assert await pg.fetchval("SELECT count(*) FROM notes") == 1
    assert await orders_db_pg.fetchval("SELECT count(*) FROM notes") == 0
"""

#: Each test says how many connections tests have then.
FEW_DATABASES = """
import anyio
import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.mark.parametrize("n", range(24))
async def test_both(pg, redis, n):
    await redis.set("key", n)
    await anyio.sleep(0.1)
    print("connections", await pg.fetchval("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"))
"""


async def test_a_test_that_waits_for_a_redis_database_has_no_connection_yet(server, services, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.asynctest_kit]\ntimeout = '60s'\nconcurrency = 24\n")
    (tmp_path / "test_both.py").write_text(FEW_DATABASES)
    few = await redis_server(services, "embedded", "--databases", "3")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ATK_", "PYTEST_C"))}
    urls = {"ATK_POSTGRES_URL": server.url, "ATK_REDIS_URL": few.url}
    done = await preloaded.finished(
        ("-m", "asynctest_kit", "run", "-rP", "-p", "no:cacheprovider"), cwd=tmp_path, env=environment | urls
    )
    assert " 24 passed" in done.stdout, done.stdout + done.stderr
    counts = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("connections ")]
    assert len(counts) == 24
    assert max(counts) < 8  # two or three for tests, some for those who watch


async def test_leases_of_two_pools_wait_for_each_other_in_one_order(server, tmp_path):
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "01.sql").write_text("CREATE TABLE notes (id int)")
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "test_orders.py").write_text(SUITE)
    # Each run database has a keeper.
    async with user_of(server, "CONNECTION LIMIT 14") as user:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ATK_", "PYTEST_C"))}
        urls = {"ATK_POSTGRES_URL": user.url, "ATK_ORDERS_DB_URL": user.url}
        command = ("-m", "asynctest_kit", "run", "-p", "no:cacheprovider")
        with anyio.fail_after(150):  # where they wait for ever, each time-out makes way for the next
            done = await preloaded.finished(command, cwd=tmp_path, env=environment | urls)
        assert " 24 passed" in done.stdout, done.stdout + done.stderr


async def test_the_first_connection_to_a_database_is_spared_by_those_to_others(server):
    async with user_of(server, "CONNECTION LIMIT 3") as user:
        room = Room()
        async with open_slots(user, room=room, is_shared=True) as orders:
            held = [await orders.held.take() for _ in range(3)]
            has_begun = anyio.Event()

            async def bill():
                has_begun.set()
                async with open_slots(user, room=room, is_shared=True) as billing, billing.lease():
                    pass

            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(bill)
                    await has_begun.wait()
                    for connection in held:
                        orders.held.give_back(connection)
            assert orders.held.size < 3
        assert room.slots == set()


async def test_where_nobody_can_spare_one_it_is_told(server):
    async with user_of(server, "CONNECTION LIMIT 1") as user:
        shared = {"room": Room(), "is_shared": True}
        async with open_slots(user, **shared), open_slots(user, **shared) as billing:
            with pytest.raises(IsolationError, match="has no connection left for tests"):
                async with billing.lease():
                    pass
