"""One suite of isolated tests: the same outcomes one by one, beside each other, in any order, and under plain pytest.

Its bodies get into each other's way wherever isolation has a hole: they use the same keys, tables, rows and databases.
"""

from __future__ import annotations

import re
from contextlib import closing
from functools import partial

import pytest

from asynctest_kit.provision.client import Client

pytestmark = pytest.mark.anyio

SUITE = """
    import asyncio

    import asyncpg
    import pytest

    pytestmark = pytest.mark.anyio

    NUMBERS = pytest.mark.parametrize("number", range(8))


    @NUMBERS
    async def test_sees_its_own_rows(pg, pg_pool, number):
        async with pg_pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO users (email) VALUES ($1)", f"user-{number}@example.com")
        await asyncio.sleep(0.01)
        assert await pg.fetchval("SELECT count(*) FROM users") == 3  # two are seeds


    @NUMBERS
    async def test_deletes_everything(pg_pool, number):
        await pg_pool.execute("DELETE FROM users WHERE id = $1", 1 + number % 2)
        assert await pg_pool.fetchval("SELECT count(*) FROM users") == 1


    @NUMBERS
    async def test_fails_and_goes_on(pg_pool, pg_state, number):
        with pytest.raises(asyncpg.UniqueViolationError):
            await pg_pool.execute("INSERT INTO users (id, email) VALUES (1, 'other@example.com')")
        assert [row["id"] for row in await pg_state("users")] == [1, 2]


    @NUMBERS
    async def test_keys_of_one_name(redis, number):
        assert await redis.dbsize() == 0
        await redis.set("key", number)
        await asyncio.sleep(0.01)
        assert await redis.get("key") == str(number).encode()
        await redis.flushall()


    @NUMBERS
    async def test_messages_on_one_channel(redis, number):
        async with redis.pubsub() as heard:
            await heard.subscribe("events")
            assert (await heard.get_message(timeout=5))["type"] == "subscribe"
            await redis.publish("events", f"of {number}")
            assert (await heard.get_message(timeout=5))["data"] == f"of {number}".encode()


    @pytest.mark.parametrize("number", range(3))
    @pytest.mark.atk(isolation="database")
    async def test_two_transactions_at_once(pg_pool, number):
        async with pg_pool.acquire() as one, pg_pool.acquire() as other, one.transaction():
            await one.execute("DELETE FROM users")
            assert await other.fetchval("SELECT count(*) FROM users") == 2
        assert await pg_pool.fetchval("SELECT count(*) FROM users") == 0


    async def test_leaves_a_transaction_open(pg_pool):
        connection = await pg_pool.acquire()
        await connection.transaction().start()
        await connection.execute("DELETE FROM users")


    async def test_leaves_a_deferred_constraint_violated(pg):
        await pg.execute("INSERT INTO posts (author) VALUES (99)")


    async def test_listens(pg):
        await pg.execute("LISTEN events")


    async def test_is_wrong(pg):
        assert await pg.fetchval("SELECT count(*) FROM users") == 3
"""

SCHEMA = """
    CREATE TABLE users (id bigserial PRIMARY KEY, email text UNIQUE NOT NULL);
    CREATE TABLE posts (
        id bigserial PRIMARY KEY,
        author bigint NOT NULL REFERENCES users DEFERRABLE INITIALLY DEFERRED
    );
    INSERT INTO users (email) VALUES ('ada@example.com'), ('bob@example.com');
"""

_SETTINGS = """
[tool.pytest.ini_options]
[tool.asynctest_kit]
provider = "embedded"
[tool.asynctest_kit.services.postgres]
migrations = { sql = "sql" }
"""


def outcomes(said):
    """Of each test: the words of the summary's lines, sorted, for a test may fail and have an error."""
    found = {}
    for word, nodeid in re.findall(r"^(PASSED|FAILED|ERROR) (test_same\.py::\S+)", said, flags=re.MULTILINE):
        found[nodeid] = sorted([*found.get(nodeid, ()), word])
    return found


async def test_the_same_suite_has_the_same_outcomes_however_it_is_run(project, atk, run_pytest):
    folder = project(test_same__py=SUITE)
    (folder / "pyproject.toml").write_text(_SETTINGS)
    (folder / "sql").mkdir()
    (folder / "sql" / "01.sql").write_text(SCHEMA)
    with closing(Client.connect(folder)):  # the servers stay up between the runs
        alone = outcomes((await atk("run", "-rA", "--concurrency", "1", cwd=folder)).out)
        ways = {
            "64 at once": partial(atk, "run", "-rA", "--concurrency", "64", cwd=folder),
            "shuffled": partial(atk, "run", "-rA", "--shuffle", "11", cwd=folder),
            "shuffled once more": partial(atk, "run", "-rA", "--shuffle", "12", cwd=folder),
        }
        different = {}
        for way, run in ways.items():
            finished = await run()
            if outcomes(finished.out) != alone:
                different[way] = finished.out
        _, said = await run_pytest("-rA", "-p", "no:cacheprovider", cwd=folder)
        if outcomes(said) != alone:
            different["pytest"] = said

    assert different == {}
    assert {nodeid for nodeid, words in alone.items() if words != ["PASSED"]} == {
        "test_same.py::test_leaves_a_transaction_open",
        "test_same.py::test_leaves_a_deferred_constraint_violated",
        "test_same.py::test_listens",
        "test_same.py::test_is_wrong",
    }
    assert len(alone) == 47
