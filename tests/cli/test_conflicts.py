"""Tests that wait for each other: what a run says of it, and what the next one does."""

from __future__ import annotations

import json
import re

import pytest

pytestmark = pytest.mark.anyio

#: Without a database: the tests themselves tell who waits.
WAITING = """
    import asyncio

    import pytest
    from asynctest_kit.engine.failure import DEADLOCK
    from asynctest_kit.engine.stashed import WAITS
    from asynctest_kit.engine.waits import Wait

    running = set()
    done = asyncio.Event()
    turns = []

    async def beside(request, other):
        mine = request.node.name
        running.add(mine)
        for _ in range(20):
            await asyncio.sleep(0)
            if other in running:
                turns.append({mine, other})
        running.discard(mine)

    async def test_holder(request):
        await beside(request, "test_waiter")

    async def test_waiter(request):
        nodeid = request.node.nodeid
        wait = Wait(nodeid, nodeid.replace("waiter", "holder"), "the row of users with id = 1", holder_statement="UPDATE users")
        request.config.stash[WAITS].tell("db", [(wait, 1.0)])
        request.config.stash[WAITS].tell("db", [])
        await beside(request, "test_holder")

    @pytest.mark.atk(timeout=0.5)
    async def test_too_late(request):
        nodeid = request.node.nodeid
        if not done.is_set():
            done.set()
            wait = Wait(nodeid, nodeid.replace("too_late", "holder"), "the table users", holder_statement="ALTER TABLE users")
            board = request.config.stash[WAITS]
            board.tell("db", [(wait, 0.0)])
            try:
                await asyncio.sleep(60)
            finally:
                board.tell("db", [(wait, 0.5)])
                board.tell("db", [])

    async def test_zz_together():
        while running:
            await asyncio.sleep(0)
        print("TOGETHER", sorted(map(sorted, turns)))
"""  # noqa: E501  # a suite of its own

CONFLICTS = """
    import asyncio

    import pytest
    from asynctest_kit.engine.stashed import WAITS

    both = asyncio.Barrier(2)
    runs = []
    held = asyncio.Event()

    async def test_holds(pg, request):
        board = request.config.stash[WAITS]
        await pg.execute("INSERT INTO users (email) VALUES ('ann@example.com')")
        held.set()
        while not any(one.wait.waiter.endswith("test_waits") for one in board.now):
            await asyncio.sleep(0.01)

    async def test_waits(pg):
        await held.wait()
        await pg.execute("INSERT INTO users (email) VALUES ($1)", "ann@example.com")

    async def crossing(pg, *ids):
        runs.append(ids)
        async with pg.transaction():
            for number in ids:
                await pg.execute("UPDATE users SET name = 'x' WHERE id = $1", number)
                if len(runs) < 3 and number == ids[0]:
                    await both.wait()

    async def test_crosses(pg):
        await crossing(pg, 1, 2)

    async def test_crosses_back(pg):
        await crossing(pg, 2, 1)

    async def test_is_its_own_victim(postgres, pg, pg_pool):
        import asyncpg

        own = await asyncpg.connect(postgres.url)
        await own.execute("BEGIN")
        await pg.execute("UPDATE users SET name = 'x' WHERE id = 3")
        await own.execute("UPDATE users SET name = 'x' WHERE id = 4")
        crossing = [
            asyncio.create_task(pg.execute("UPDATE users SET name = 'x' WHERE id = 4")),
            asyncio.create_task(own.execute("UPDATE users SET name = 'x' WHERE id = 3")),
        ]
        ended, others = await asyncio.wait(crossing, return_when=asyncio.FIRST_EXCEPTION)
        own.terminate()  # who is not the victim would wait for the other for ever
        await asyncio.wait(others or ended)
        for one in ended:
            one.result()
"""

#: Code under test: what the transaction refuses, it swallows.
JOBS = """
    async def tidy(pool):
        try:
            await pool.execute("VACUUM users")
        except Exception:
            return False
        return True
"""

ESCAPES = """
    import asyncio

    import asyncpg
    import pytest
    from asynctest_kit.engine.stashed import WAITS
    from jobs import tidy

    opened = []
    left = []

    @pytest.fixture(scope="session")
    async def long_lived(postgres):
        async with asyncpg.create_pool(postgres.url, min_size=0, max_size=2) as pool:
            yield pool

    async def test_leaves_a_connection(postgres):
        connection = await asyncpg.connect(postgres.url)
        await connection.execute("BEGIN; UPDATE users SET name = 'x' WHERE id = 5")
        left.append(connection)

    async def test_waits_for_what_was_left(pg, request):
        board = request.config.stash[WAITS]
        while not left:
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(pg.execute("UPDATE users SET name = 'x' WHERE id = 5"))
        while not any("left open" in one.wait.holder for one in board.now):
            await asyncio.sleep(0.01)
        left[0].terminate()
        await waiting

    async def test_has_a_job_that_swallows(pg_pool):
        assert not await tidy(pg_pool)

    @pytest.mark.xfail(strict=True)
    async def test_is_expected_to_fail(pg_pool):
        assert await tidy(pg_pool)

    async def test_leaves_a_pool(postgres):
        opened.append(await asyncpg.create_pool(postgres.url, min_size=1, max_size=1))

    async def test_uses_a_pool_that_outlives_it(long_lived):
        assert await long_lived.fetchval("SELECT 1") == 1

    async def test_closes_its_own(postgres):
        connection = await asyncpg.connect(postgres.url)
        await connection.close()

    @pytest.mark.atk(isolation="database")
    async def test_leaves_its_own_open(pg_database):
        opened.append(await asyncpg.connect(pg_database.url))

    @pytest.mark.atk(isolation="database")
    async def test_leaves_a_lock_of_its_own(pg):
        await pg.execute("SELECT pg_advisory_lock(7)")

    @pytest.mark.atk(isolation="database")
    async def test_borrows_for_ever(pg_pool):
        await pg_pool.acquire()

    @pytest.mark.atk(isolation="database")
    async def test_leaves_its_own_transaction(pg):
        await pg.execute("BEGIN")

    @pytest.mark.atk(isolation="database")
    async def test_leaves_nothing_of_its_own(pg, pg_pool, pg_database):
        connection = await asyncpg.connect(pg_database.url)
        await connection.close()
        async with pg_pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(7)")

    async def test_keeps_locks(pg):
        await pg.execute("SELECT pg_advisory_lock(-42), pg_advisory_lock(1, 2), pg_advisory_xact_lock(3)")

    async def test_frees_its_lock(pg):
        await pg.execute("SELECT pg_advisory_lock(43)")
        await pg.execute("SELECT pg_advisory_unlock(43)")

    async def test_rolls_back(pg, pg_pool):
        await pg_pool.execute("INSERT INTO users (email) VALUES ('gone')")

    @pytest.mark.atk(exclusive=True)
    async def test_commits(postgres):
        for one in opened:
            one.terminate()
        connection = await asyncpg.connect(postgres.url)
        await connection.execute("INSERT INTO users (email) VALUES ('there'), ('too')")
        await connection.execute("CREATE TABLE made (id int)")
        await connection.close()
"""

SCHEMA = """
    CREATE TABLE users (id serial PRIMARY KEY, email text NOT NULL UNIQUE, name text);
    INSERT INTO users (email) VALUES ('1'), ('2'), ('3'), ('4'), ('5');
"""

SETTINGS = """
    [tool.pytest.ini_options]
    [tool.asynctest_kit.services.postgres]
    migrations = { sql = "sql" }
"""


def apart(out):
    return re.findall(r"TOGETHER (.*)", out)


async def test_who_was_waited_for_is_told_and_kept_apart(project, atk):
    folder = project(test_waiting__py=WAITING)
    first = await atk("run", "-rA", "--report-json", "r.json", "--interference", "warn", cwd=folder)
    assert first.code == 0, first.out
    words = " ".join(first.out.split())
    assert re.search(
        r"took longer than its time-out beside others, of which it waited \d\.\d s for the table users, held by "
        r"test_waiting\.py::test_holder \(ALTER TABLE users\); passes alone",
        words,
    )
    assert "for the row of users with id = 1, held by test_waiting.py::test_holder" in words
    assert "The next run doesn't run these pairs beside each other." in words
    report = json.loads((folder / "r.json").read_text())
    late, waiter = sorted(report["waits"], key=lambda wait: wait["nodeid"])
    assert late["nodeid"] == "test_waiting.py::test_too_late"
    assert waiter["holder"] == "test_waiting.py::test_holder"
    assert "['test_holder', 'test_waiter']" in apart(first.out)[0]

    plan = await atk("run", "--explain-plan", cwd=folder)
    assert (
        "not beside each other, for what they did in an earlier run: 2 pairs\n"
        "  test_waiting.py::test_waiter\n"
        "    waited 1.0 s for the row of users with id = 1, held by test_waiting.py::test_holder\n"
    ) in plan.out
    second = await atk("run", "-rA", "-k", "not too_late", cwd=folder)
    assert second.code == 0, second.out
    assert apart(second.out) == ["[]"]

    (folder / "test_waiting.py").write_text((folder / "test_waiting.py").read_text() + "\n")
    changed = await atk("run", "--explain-plan", cwd=folder)
    assert "not beside each other" not in changed.out


async def test_a_time_out_names_the_holder(project, atk):
    folder = project(test_waiting__py=WAITING)
    failed = await atk("run", "-k", "too_late", cwd=folder)
    assert failed.code == 1, failed.out
    assert re.search(
        r"Failed: test_too_late: the call took longer than its time-out of 0\.5 s, of which it waited \d\.\d s for the "
        r"table users, held by test_waiting\.py::test_holder \(ALTER TABLE users\)\n",
        failed.out,
    )


@pytest.mark.once
async def test_locks_of_a_real_server(project, atk):
    suite = {"test_conflicts__py": CONFLICTS, "test_escapes__py": ESCAPES, "jobs__py": JOBS}
    folder = project(**suite, pyproject__toml=SETTINGS)
    (folder / "sql").mkdir()
    (folder / "sql" / "1.sql").write_text(SCHEMA)
    run = await atk("run", "--report-json", "r.json", cwd=folder, ATK_PROVIDER="embedded", ATK_BLOCK_THRESHOLD="0")
    report = json.loads((folder / "r.json").read_text())
    tests = {test["nodeid"].partition("::")[2]: test for test in report["tests"]}
    outcomes = {name: test["outcome"] for name, test in tests.items()}
    assert outcomes.pop("test_is_its_own_victim") == "failed", run.out
    assert outcomes.pop("test_has_a_job_that_swallows") == "error", run.out
    assert outcomes.pop("test_is_expected_to_fail") == "xfailed", run.out
    assert set(outcomes.values()) == {"passed"}, run.out
    assert "DeadlockDetectedError" in tests["test_is_its_own_victim"]["reason"]
    assert "at jobs.py:4 in tidy (caught there): " in tests["test_has_a_job_that_swallows"]["reason"]

    victims = [name for name in ("test_crosses", "test_crosses_back") if tests[name]["verdict"] == "deadlock"]
    assert len(victims) == 1
    (other,) = {"test_crosses", "test_crosses_back"} - {victims[0]}
    assert tests[victims[0]]["note"] == f"deadlock with test_conflicts.py::{other}; passed when it was run again, alone"
    assert report["second_attempts"]["causes"]["deadlock"] == 1

    (wait,) = [wait for wait in report["waits"] if wait["nodeid"].endswith("::test_waits")]
    assert wait["holder"] == "test_conflicts.py::test_holds"
    assert wait["what"] == "the unique key users_email_key of users, email = 'ann@example.com'"
    (wait,) = [wait for wait in report["waits"] if "left open" in wait["holder"]]
    assert wait["holder"].startswith("a connection that test_escapes.py::test_leaves_a_connection left open (process ")
    assert (wait["holder_is_test"], wait["what"]) == (False, "the row of users with id = 5")
    kept = json.loads((folder / ".pytest_cache/v/asynctest_kit/apart").read_text())
    pairs = [{name.partition("::")[2] for name in entry[:2]} for entry in kept]
    assert {"test_waits", "test_holds"} in pairs
    assert {"test_crosses", "test_crosses_back"} in pairs

    name = r"this run's database atk_run_\w+"
    opened = r"opened at test_escapes.py:\d+ in"
    found = {one["nodeid"].rpartition("::")[2]: one["text"] for one in report["findings"]}
    commits = found.pop("test_commits", None)
    if commits is None:  # others had connections of their own since the last look
        commits = found.pop("postgres")
        assert re.search(r"Which of these did it is not known: .*test_escapes\.py::test_commits\b", commits)
    assert "the table made (new or changed), 2 rows of users. " in commits
    expected = {
        "test_leaves_a_connection": rf"left a connection to {name} open: process \d+, in a transaction whose locks it "
        rf"holds, {opened} test_leaves_a_connection\. .*: close it in the test or its fixture",
        "test_leaves_a_pool": rf"left a connection of a pool to {name} open: process \d+, idle, {opened} "
        r"test_leaves_a_pool\. .*: close the pool in the test or its fixture",
        "test_leaves_its_own_open": r"left a connection to its own database atk_run_\w+ open, which was cut: "
        rf"{opened} test_leaves_its_own_open\. Close it in the test or its fixture",
        "test_leaves_a_lock_of_its_own": r"left the session's advisory locks 7 held by pg: call pg_advisory_unlock",
        "test_borrows_for_ever": r"never gave 1 connection\(s\) back to pg_pool, which were cut: use `async with`",
        "test_leaves_its_own_transaction": "left a transaction of pg open, which was rolled back: .*",
        "test_keeps_locks": r"left the session's advisory locks \(1, 2\), -42 held, which no rollback frees: .*",
    }
    assert found.keys() == expected.keys()
    for test, text in expected.items():
        assert re.fullmatch(text, found[test]), found[test]
