"""``--audit-isolation``: what a run leaves is told, charged to its test, and fails the run."""

from __future__ import annotations

import json
import re

import pytest

pytestmark = pytest.mark.anyio

SUITE = """
    import asyncpg
    import pytest
    import redis.asyncio

    async def test_clean(pg, pg_pool, redis):
        await pg_pool.execute("INSERT INTO users (name) VALUES ('ann')")
        await redis.set("key", "value")

    async def test_leaves_rows(postgres):
        connection = await asyncpg.connect(postgres.url)
        await connection.execute("INSERT INTO users (id, name) VALUES (77, 'left')")
        await connection.close()

    async def test_undoes_that(postgres):
        connection = await asyncpg.connect(postgres.url)
        await connection.execute("DELETE FROM users WHERE id = 77")
        await connection.close()

    async def test_leaves_a_role(pg_database):
        connection = await asyncpg.connect(pg_database.url)
        await connection.execute("CREATE ROLE left_behind")
        await connection.close()

    async def test_configures(redis_server):
        async with redis.asyncio.Redis.from_url(redis_server.url) as client:
            await client.config_set("maxmemory-policy", "allkeys-lru")

    def test_of_another_lane():
        pass
"""

SETTINGS = """
    [tool.pytest.ini_options]
    [tool.asynctest_kit]
    provider = "embedded"
    [tool.asynctest_kit.services.postgres]
    migrations = { sql = "sql" }
"""


@pytest.fixture
def suite(project):
    folder = project(test_suite__py=SUITE, pyproject__toml=SETTINGS)
    (folder / "sql").mkdir()
    (folder / "sql" / "1.sql").write_text("CREATE TABLE users (id serial PRIMARY KEY, name text);")
    return folder


async def test_what_differs_is_charged_to_its_test(suite, atk):
    run = await atk("run", "--audit-isolation=each", "--report-json", "r.json", cwd=suite)
    assert run.code == 7, run.out + run.err
    report = json.loads((suite / "r.json").read_text())
    postgres, redis = report["audits"]
    told = {
        (one["nodeid"].partition("::")[2], re.sub(", checksum \\w+", "", one["text"]))
        for one in postgres["differences"]
    }
    assert told == {
        ("test_leaves_rows", "changed: rows of public.users: 0 rows before, 1 row after"),
        ("test_undoes_that", "changed: rows of public.users: 1 row before, 0 rows after"),
        ("test_leaves_a_role", "new: role left_behind: NOLOGIN"),
        ("test_clean", "changed: value of sequence public.users_id_seq: never used before, 1 after"),
    }
    assert [one["is_known"] for one in postgres["differences"]] == [False, False, False, True]
    assert [(one["nodeid"], one["text"]) for one in redis["differences"]] == [
        ("test_suite.py::test_configures", "changed: CONFIG maxmemory-policy: noeviction before, allkeys-lru after")
    ]
    assert (postgres["same"], redis["same"]) == (False, False)
    assert {test["lane"] for test in report["tests"]} == {"exclusive", "pytest"}
    lines = [" ".join(line.split()) for line in run.out.splitlines()]
    assert "audit postgres: NOT as it was before the tests" in lines
    assert lines[lines.index("new: role left_behind: NOLOGIN") + 1] == "by test_suite.py::test_leaves_a_role"


async def test_a_clean_suite_is_proved_to_be(suite, atk):
    run = await atk("run", "-k", "clean or lane", "--audit-isolation", "test_suite.py", cwd=suite)
    assert run.code == 0, run.out + run.err
    words = " ".join(run.out.split())
    assert "audit postgres: as it was before the tests, in all of " in words
    assert "1 after (as expected: no rung isolates it) redis: as it was before the tests" in words


async def test_without_services_it_says_that_nothing_was_compared(suite, atk):
    run = await atk("run", "-k", "lane", cwd=suite, ATK_AUDIT_ISOLATION="suite")
    assert run.code == 0
    assert "--audit-isolation found nothing to compare: no test used PostgreSQL or Redis" in run.out
    wrong = await atk("run", "-k", "lane", cwd=suite, ATK_AUDIT_ISOLATION="some")
    assert wrong.code == 4
    assert 'ATK_AUDIT_ISOLATION: "some" is unknown. Allowed: each, suite.' in wrong.err
