"""A suite in which each test has a server of its own: none is started for all."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.anyio

SUITE = """
    import pytest

    async def test_rows(pg, pg_database):
        assert await pg.fetchval("SELECT count(*) FROM users") == 0

    async def test_more_rows(pg_pool, pg_make):
        await pg_make("users", id=1)
        assert await pg_pool.fetchval("SELECT count(*) FROM users") == 1

    async def test_keys(redis, redis_url):
        assert await redis.flushall()

    @pytest.fixture
    def late(request):
        return request.getfixturevalue("pg")

    @pytest.mark.atk(isolation="transaction")
    async def test_asks_late(late):
        assert late

    async def test_another_database(other_pg):
        assert await other_pg.fetchval("SELECT count(*) FROM users") == 0

    async def test_shared(postgres):
        assert postgres.port
"""

SETTINGS = """
    [tool.pytest.ini_options]
    [tool.asynctest_kit]
    provider = "embedded"
    isolation = "server"
    [tool.asynctest_kit.services.postgres]
    migrations = { sql = "sql" }
    [tool.asynctest_kit.services.other]
    kind = "postgres"
    migrations = { sql = "sql" }
"""


@pytest.fixture
def suite(project):
    folder = project(test_it__py=SUITE, pyproject__toml=SETTINGS)
    (folder / "sql").mkdir()
    (folder / "sql" / "1.sql").write_text("CREATE TABLE users (id int);")
    return folder


@pytest.mark.once
async def test_no_server_is_started_for_all(suite, atk, run_pytest):
    started = []
    for _ in range(2):  # the second knows from the first what to start before it collects
        run = await atk("run", "-k", "not late and not shared", "--report-json", "r.json", cwd=suite)
        assert run.code == 0, run.out
        started.append({service["name"] for service in json.loads((suite / "r.json").read_text())["services"]})
    assert started == [{"postgres (own)", "redis (own)", "other (own)"}] * 2
    code, out = await run_pytest("-k", "not shared", cwd=suite)
    assert code == 1 and "4 passed, 1 deselected, 1 error" in out, out
    assert "No server was started for all tests" in out and "run time: let it name the fixture" in out, out


async def test_one_that_is_asked_for_by_its_name_is(suite, atk):
    run = await atk("run", "-k", "rows or shared", "--report-json", "r.json", cwd=suite)
    assert run.code == 0, run.out
    services = json.loads((suite / "r.json").read_text())["services"]
    assert {service["name"] for service in services} == {"postgres", "postgres (own)"}
