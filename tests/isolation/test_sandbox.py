"""Sandboxed connections on a real server: what code under test may do, and what is refused."""

from __future__ import annotations

import asyncio
import io

import asyncpg
import pytest

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.connection import SandboxConnection
from asynctest_kit.isolation.postgres import connect

pytestmark = pytest.mark.anyio

ADD = "INSERT INTO notes (text) VALUES ($1)"
TEXTS = "SELECT text FROM notes ORDER BY text"


async def texts(connection):
    return [row["text"] for row in await connection.fetch(TEXTS)]


async def test_nothing_outlives_the_lease(lease):
    async with lease() as (pg, _):
        await pg.execute(ADD, "a")
        assert await texts(pg) == ["a"]
    async with lease() as (pg, _):
        assert await texts(pg) == []


async def test_concurrent_leases_see_only_their_own_rows(lease):
    async def case(number):
        async with lease() as (pg, pool):
            await pg.execute(ADD, f"mine {number}")
            await pool.execute(ADD, f"code's {number}")
            await asyncio.sleep(0)
            return await texts(pg)

    seen = await asyncio.gather(*(case(number) for number in range(64)))
    assert seen == [[f"code's {number}", f"mine {number}"] for number in range(64)]


async def test_test_and_code_share_one_transaction(lease):
    async with lease() as (pg, pool):
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(ADD, "code's")
        assert await texts(pg) == ["code's"]


async def test_failed_statement_harms_only_itself(lease):
    async with lease() as (pg, pool):
        await pool.execute(ADD, "a")
        with pytest.raises(asyncpg.UniqueViolationError):
            await pool.execute(ADD, "a")
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await pg.fetch("SELEC 1")
        await pg.execute(ADD, "b")
        with pytest.raises(asyncpg.UniqueViolationError):
            await pg.fetchval("INSERT INTO notes (text) VALUES ('b') RETURNING id")
        assert await texts(pool) == ["a", "b"]


async def test_failed_first_statement(lease):
    async with lease() as (pg, _):
        with pytest.raises(asyncpg.UndefinedTableError):
            await pg.fetch("SELECT * FROM nowhere")
        assert await texts(pg) == []


async def test_commits_rollbacks_and_nesting(lease):
    async with lease() as (pg, pool), pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute(ADD, "committed")
            with pytest.raises(ZeroDivisionError):
                async with connection.transaction():
                    await connection.execute(ADD, "nested, rolled back")
                    raise ZeroDivisionError
            async with connection.transaction():
                await connection.execute(ADD, "nested")
        with pytest.raises(ZeroDivisionError):
            async with connection.transaction():
                await connection.execute(ADD, "rolled back")
                raise ZeroDivisionError
        assert await texts(pg) == ["committed", "nested"]


async def test_failure_inside_a_transaction_fails_the_rest_of_it(lease):
    async with lease() as (_, pool), pool.acquire() as connection:
        await connection.execute(ADD, "before")
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(ADD, "lost")
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(ADD, "before")
        with pytest.raises(asyncpg.InFailedSQLTransactionError):
            await connection.execute(ADD, "after")
        await transaction.commit()  # as PostgreSQL does: a ROLLBACK, and no error
        assert await texts(connection) == ["before"]


async def test_failed_nested_transaction_leaves_the_outer_one_whole(lease):
    async with lease() as (_, pool), pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute(ADD, "a")
            with pytest.raises(asyncpg.UniqueViolationError):
                async with connection.transaction():
                    await connection.execute(ADD, "a")
            await connection.execute(ADD, "b")
        assert await texts(connection) == ["a", "b"]


async def test_transactions_one_after_the_other_by_many_connections(lease):
    async with lease() as (_, pool):
        for number in range(5):
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute(ADD, str(number))
        assert await texts(pool) == ["0", "1", "2", "3", "4"]


async def test_concurrent_statements_of_many_connections(lease):
    async with lease() as (_, pool):
        await asyncio.gather(*(pool.execute(ADD, str(number)) for number in range(9)))
        assert await texts(pool) == [str(number) for number in range(9)]


async def test_a_guest_that_is_cancelled_does_no_harm_to_the_transaction_around_it(lease):
    for number in range(150):
        async with lease() as (pg, pool):
            async with pool.acquire() as owner, owner.transaction():
                await owner.execute(ADD, "owner's")
                guest = asyncio.create_task(pool.execute(ADD, "guest's"))
                await asyncio.wait([guest], timeout=number * 1e-5)
                guest.cancel()
                await asyncio.wait([guest])
                assert "owner's" in await texts(owner)
            assert set(await texts(pg)) - {"guest's"} == {"owner's"}


async def test_a_first_statement_of_which_nothing_is_sent(lease):
    for method in ("fetchmany", "executemany"):
        async with lease() as (pg, _):
            assert not await getattr(pg, method)(ADD, [])
            await pg.execute(ADD, "a")
            assert await texts(pg) == ["a"]


async def test_overlapping_transactions_are_refused(lease):
    async with lease() as (_, pool), pool.acquire() as first, pool.acquire() as second:
        async with first.transaction():
            await first.execute(ADD, "first")
            with pytest.raises(IsolationError, match=r"Two transactions at once in one test.*pg_database"):
                await second.transaction().start()
        async with second.transaction():
            await second.execute(ADD, "second")
        assert await texts(pool) == ["first", "second"]


async def test_bare_statement_beside_a_transaction(lease):
    async with lease() as (pg, pool), pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute(ADD, "a")
            with pytest.raises(asyncpg.UniqueViolationError):
                await pg.execute(ADD, "a")
            await pg.execute(ADD, "b")
            await connection.execute(ADD, "c")
        assert await texts(pg) == ["a", "b", "c"]


async def test_what_a_rollback_takes_from_another_connection_is_told(lease):
    with pytest.raises(IsolationError, match="what another connection had written meanwhile: INSERT"):
        async with lease() as (pg, pool), pool.acquire() as connection:
            with pytest.raises(ZeroDivisionError):
                async with connection.transaction():
                    await texts(pg)
                    await pg.execute(ADD, "lost")
                    raise ZeroDivisionError


async def test_statement_beside_a_failed_transaction_is_refused(lease):
    async with lease() as (pg, pool), pool.acquire() as connection:
        with pytest.raises(asyncpg.PostgresSyntaxError):
            async with connection.transaction():
                try:
                    await connection.execute("SELEC")
                finally:
                    with pytest.raises(IsolationError, match="failed transaction"):
                        await texts(pg)
        assert await texts(pg) == []


async def test_readonly_transaction(lease):
    async with lease() as (_, pool), pool.acquire() as connection:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            async with connection.transaction(readonly=True, isolation="serializable"):
                await connection.execute(ADD, "a")
        async with connection.transaction(readonly=True):
            assert await texts(connection) == []
        await connection.execute(ADD, "b")
        assert await texts(connection) == ["b"]


async def test_text_transactions_are_translated(lease):
    async with lease() as (pg, pool), pool.acquire() as connection:
        assert await connection.execute("begin isolation level serializable;") == "BEGIN"
        assert connection.is_in_transaction()
        await connection.execute(ADD, "kept")
        await connection.execute("SAVEPOINT own")
        await connection.execute(ADD, "dropped")
        await connection.execute("ROLLBACK TO own")
        assert await connection.execute("COMMIT") == "COMMIT"
        await connection.execute("START TRANSACTION")
        await connection.execute(ADD, "rolled back")
        assert await connection.execute(" /* now */ ROLLBACK -- all") == "ROLLBACK"
        assert not connection.is_in_transaction()
        assert await connection.execute("COMMIT") == "COMMIT"  # a warning in PostgreSQL
        assert await texts(pg) == ["kept"]


async def test_isolation_levels_are_accepted_and_make_no_difference(lease):
    async with lease() as (pg, pool), pool.acquire() as connection:
        await pg.execute(ADD, "a")
        async with connection.transaction():
            assert await connection.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;") == "SET"
            statement = await connection.prepare("set transaction isolation level repeatable read, deferrable")
            assert (await statement.fetch(), statement.get_statusmsg()) == ([], "SET")
            await connection.execute(ADD, "b")
        async with connection.transaction():
            assert await connection.execute("SET TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE") == "SET"
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                await connection.execute(ADD, "c")
        await pg.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        await pg.execute(ADD, "c")
        assert await texts(pg) == ["a", "b", "c"]


async def test_words_in_bodies_and_strings_are_no_statements(lease):
    async with lease() as (pg, _):
        await pg.execute("DO $$ BEGIN PERFORM 1; COMMIT_NOTHING := 1; END $$".replace("COMMIT_NOTHING := 1; ", ""))
        await pg.execute("""
            CREATE FUNCTION one() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END;
            SELECT 'x; COMMIT'; -- ; ROLLBACK
        """)
        assert await pg.fetchval("SELECT CASE WHEN one() = 1 THEN 'yes' END") == "yes"


async def test_cancelled_statement_harms_only_itself(lease):
    async with lease() as (pg, pool):
        await pool.execute(ADD, "a")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await pool.fetch("SELECT pg_sleep(30)")
        with pytest.raises(TimeoutError):
            await pool.fetch("SELECT pg_sleep(30)", timeout=0.05)
        await pool.execute(ADD, "b")
        assert await texts(pg) == ["a", "b"]


async def test_cancelled_transaction_is_rolled_back(lease):
    async with lease() as (pg, pool):
        await pool.execute(ADD, "a")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), pool.acquire() as connection, connection.transaction():
                await connection.execute(ADD, "b")
                await connection.fetch("SELECT pg_sleep(30)")
        assert await texts(pg) == ["a"]


@pytest.mark.parametrize("steps", range(1, 12))
async def test_cancelled_at_every_step(lease, steps):
    """Wherever a cancellation hits, what was kept before is there and the connection goes on."""

    async def work(pool):
        await pool.execute(ADD, "maybe")
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(ADD, "maybe too")

    async with lease() as (pg, pool):
        await pool.execute(ADD, "a")
        task = asyncio.ensure_future(work(pool))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await pool.execute(ADD, "b")
        assert {"a", "b"} <= set(await texts(pg)) <= {"a", "b", "maybe", "maybe too"}


async def test_deferred_constraint_is_checked_where_code_commits(lease):
    async with lease() as (pg, pool):
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("INSERT INTO children VALUES (1, 7)")
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await pool.execute("INSERT INTO children VALUES (1, 7)")
        for number in (1, 2):
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("INSERT INTO children VALUES ($1, $1)", number)
                await connection.execute("INSERT INTO parents VALUES ($1)", number)
        assert await pg.fetchval("SELECT count(*) FROM children") == 2


async def test_deferred_constraint_left_violated_is_the_tests_failure(lease):
    with pytest.raises(IsolationError, match=r"deferred constraint violated.*children_parent"):
        async with lease() as (pg, _):
            await pg.execute("INSERT INTO children VALUES (1, 7)")
    async with lease() as (pg, _):
        await pg.execute("INSERT INTO children VALUES (1, 1)")
        await pg.execute("INSERT INTO parents VALUES (1)")


async def test_what_is_left_open_is_the_tests_failure(lease):
    with pytest.raises(IsolationError, match=r"left a transaction open.*never gave 1 connection"):
        async with lease() as (_, pool):
            connection = await pool.acquire()
            await connection.transaction().start()
    async with lease() as (pg, _):
        assert await texts(pg) == []


async def test_statement_that_outlives_the_test_is_its_failure(lease):
    with pytest.raises(IsolationError, match=r"while a statement was running: SELECT pg_sleep"):
        async with lease() as (pg, _):
            task = asyncio.ensure_future(pg.fetch("SELECT pg_sleep(30)"))
            await asyncio.sleep(0.05)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await task
    with pytest.raises(IsolationError, match="a test that has ended"):
        await pg.fetch("SELECT 1")
    async with lease() as (pg, _):
        assert await texts(pg) == []


async def test_killed_backend_does_not_harm_the_next_lease(lease):
    async with lease() as (pg, _):
        killed = pg.get_server_pid()
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await pg.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        with pytest.raises((IsolationError, asyncpg.InterfaceError, OSError)):
            await pg.fetch("SELECT 1")
    async with lease() as (pg, _):
        assert await texts(pg) == []
        assert pg.get_server_pid() != killed


async def test_connection_killed_while_idle_is_replaced(slots, lease, database):
    async with lease() as (pg, _):
        pid = pg.get_server_pid()
    async with lease() as (pg, _):
        # Leased, but not used yet: the death is noticed at the first statement, which goes to another connection.
        killer = await asyncpg.connect(database.url)
        await killer.execute("SELECT pg_terminate_backend($1)", pid)
        await killer.close()
        await pg.execute(ADD, "a")
        assert await texts(pg) == ["a"]


async def test_session_state_does_not_reach_the_next_lease(lease):
    async with lease() as (pg, _):
        pid = pg.get_server_pid()
        await pg.execute("SET search_path TO nowhere")
        await pg.execute("SELECT pg_advisory_lock(1)")
    async with lease() as (pg, _):
        assert pg.get_server_pid() == pid
        assert await pg.fetchval("SHOW search_path") == '"$user", public'
        assert await pg.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = $1", pid) == 0
        await pg.set_type_codec("int4", schema="pg_catalog", encoder=str, decoder=lambda text: f"<{text}>")
        assert await pg.fetchval("SELECT 1") == "<1>"
    async with lease() as (pg, _):
        assert pg.get_server_pid() != pid
        assert await pg.fetchval("SELECT 1") == 1


@pytest.mark.parametrize(
    "query",
    ["SELECT set_config('app.tenant', '7', true)", "SET LOCAL app.tenant = 7", "SELECT enter(7)"],
)
async def test_custom_settings_do_not_reach_the_next_lease(slots, lease, database, query):
    outside = await connect(database)
    await outside.execute(
        "CREATE FUNCTION enter(tenant int) RETURNS text LANGUAGE sql "
        "AS $$ SELECT set_config('app.tenant', tenant::text, true) $$"
    )
    await outside.close()
    async with lease() as (pg, _):
        await pg.execute("SET LOCAL lock_timeout = 7")
        pid = pg.get_server_pid()
    async with lease() as (pg, _):
        assert pg.get_server_pid() == pid
        await pg.fetchval(query)
        assert await pg.fetchval("SELECT current_setting('app.tenant', true)") == "7"
    async with lease() as (pg, _):
        assert await pg.fetchval("SELECT current_setting('app.tenant', true)") is None


async def test_rolled_back_tables_do_not_confuse_prepared_statements(lease):
    for kind, value in (("int", 1), ("text", "one")):
        async with lease() as (pg, _):
            await pg.execute(f"CREATE TABLE things (thing {kind})")
            await pg.execute("INSERT INTO things VALUES ($1)", value)
            assert await pg.fetchval("SELECT thing FROM things") == value


async def test_schema_change_within_a_test(lease):
    async with lease() as (pg, _):
        await pg.execute(ADD, "1")
        assert await pg.fetchval("SELECT text FROM notes") == "1"
        await pg.execute("ALTER TABLE notes ALTER text TYPE int USING text::int")
        assert await pg.fetchval("SELECT text FROM notes") == 1


async def test_the_rest_of_a_connections_methods(lease):
    async with lease() as (pg, pool):
        await pool.executemany(ADD, [("a",), ("b",)])
        statement = await pg.prepare("SELECT text FROM notes WHERE text > $1 ORDER BY text")
        assert statement.get_query().startswith("SELECT")
        assert [row["text"] for row in await statement.fetch("")] == ["a", "b"]
        with pytest.raises(asyncpg.DataError):
            await statement.fetch(1)
        assert await pg.fetchrow("SELECT 1 AS one") == (1,)
        assert await pg.fetchmany("SELECT $1::int", [(1,), (2,)]) == [(1,), (2,)]
        await pool.copy_records_to_table("parents", records=[(1,), (2,)])
        await pool.copy_to_table("parents", source=io.BytesIO(b"3\n"))
        output = io.BytesIO()
        await pool.copy_from_query("SELECT * FROM parents WHERE id > $1", 1, output=output)
        assert output.getvalue() == b"2\n3\n"
        async with pg.transaction():
            assert [row["id"] async for row in pg.cursor("SELECT id FROM parents ORDER BY id")] == [1, 2, 3]
        assert isinstance(pg, asyncpg.Connection)
        assert pg.get_server_version().major >= 13
        assert not pg.is_closed()
        await pg.close()
        assert pg.is_closed()


async def test_pool_is_shaped_like_asyncpgs(lease):
    async with lease() as (_, pool):
        assert await pool is pool
        async with pool as entered:
            assert entered is pool
        connection = await pool.acquire(timeout=1)
        assert (pool.get_size(), pool.get_idle_size(), pool.get_min_size(), pool.get_max_size()) == (1, 0, 1, 10)
        await pool.release(connection)
        assert (pool.get_size(), pool.get_idle_size(), pool.get_init_size()) == (1, 1, 1)
        with pytest.raises(IsolationError, match="pg_database"):
            pool.set_connect_args("postgresql://elsewhere/")
        with pytest.raises(asyncpg.InterfaceError, match="released"):
            await connection.fetch("SELECT 1")
        await pool.close()
        pool.terminate()
        assert not pool.is_closing()
        assert await pool.fetchval("SELECT 1") == 1


async def test_savepoints_need_a_transaction(lease):
    async with lease() as (pg, _):
        await pg.execute(ADD, "a")
        for query in ("SAVEPOINT own", "ROLLBACK TO own", "RELEASE own"):
            with pytest.raises(asyncpg.NoActiveSQLTransactionError):
                await pg.execute(query)
        assert await texts(pg) == ["a"]


async def test_reads_and_writes_before_a_failure_are_kept(lease):
    async with lease() as (pg, pool):
        await pg.execute(
            "CREATE FUNCTION add(note text) RETURNS void LANGUAGE sql AS 'INSERT INTO notes (text) VALUES (note)'"
        )
        for query in (
            "SELECT add('a')",
            TEXTS,
            "WITH new AS (INSERT INTO notes (text) VALUES ('b') RETURNING id) TABLE new",
        ):
            await pool.fetch(query)
            with pytest.raises(asyncpg.DivisionByZeroError):
                await pool.fetch("SELECT 1 / 0")
        assert await texts(pg) == ["a", "b"]


WRITING_VIEW = """
CREATE FUNCTION add() RETURNS int LANGUAGE sql AS $$ INSERT INTO notes (text) VALUES ('v') RETURNING id $$;
CREATE VIEW adding AS SELECT add() AS id;
"""


@pytest.mark.parametrize("is_tests", [False, True])
async def test_what_a_view_writes_is_kept(lease, database, is_tests):
    if not is_tests:
        outside = await connect(database)
        await outside.execute(WRITING_VIEW)
        await outside.close()
    async with lease() as (pg, _):
        if is_tests:
            await pg.execute(WRITING_VIEW)
        await pg.fetchval("SELECT id FROM adding")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await pg.fetchval("SELECT 1 / 0")
        assert await texts(pg) == ["v"]


async def test_rollback_after_the_test_harms_nobody(lease):
    with pytest.raises(IsolationError, match="left a transaction open"):
        async with lease() as (pg, _):
            transaction = pg.transaction()
            await transaction.start()
    async with lease() as (other, _):
        await other.execute(ADD, "a")
        for late in (transaction.rollback(), pg.execute("SELECT 1"), pg.reload_schema_state()):
            with pytest.raises(IsolationError, match="a test that has ended"):
                await late
        assert await texts(other) == ["a"]


async def test_release_rolls_back_what_is_open(lease):
    async with lease() as (pg, pool):
        connection = await pool.acquire()
        await connection.execute("BEGIN")
        await connection.execute(ADD, "a")
        await pool.release(connection)
        assert await texts(pg) == []


async def test_misused_transaction_objects(lease):
    async with lease() as (pg, _):
        transaction = pg.transaction()
        with pytest.raises(asyncpg.InterfaceError, match="cannot commit"):
            await transaction.commit()
        async with transaction:
            with pytest.raises(asyncpg.InterfaceError, match="within an `async with`"):
                await transaction.rollback()
        with pytest.raises(asyncpg.InterfaceError, match="cannot start"):
            await transaction.start()
        transaction = pg.transaction()
        await transaction.start()
        await pg.execute("ROLLBACK")
        with pytest.raises(asyncpg.NoActiveSQLTransactionError):
            await transaction.commit()


async def test_transaction_objects_stay_out_of_manual_transactions(lease):
    async with lease() as (pg, _):
        await pg.execute("BEGIN")
        with pytest.raises(asyncpg.InterfaceError, match="in a manually started transaction"):
            await pg.transaction().start()
        await pg.execute("COMMIT")
        with pytest.raises(ValueError, match="isolation"):
            pg.transaction(isolation="perfect")


async def test_texts_in_a_failed_transaction_answer_as_outside(lease):
    async with lease() as (pg, pool), pool.acquire() as connection:
        await pg.execute(ADD, "a")
        await connection.execute("BEGIN")
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(ADD, "a")
        with pytest.raises(asyncpg.InFailedSQLTransactionError):
            await connection.execute("BEGIN")
        assert await connection.execute("COMMIT") == "ROLLBACK"
        assert await texts(pg) == ["a"]


async def test_modes_of_constraints_end_with_their_transaction(lease):
    async with lease() as (pg, pool), pool.acquire() as connection:
        await pg.execute(ADD, "a")
        for query in ("BEGIN", "SAVEPOINT own", "SET CONSTRAINTS ALL IMMEDIATE", "RELEASE own", "ROLLBACK"):
            await connection.execute(query)
        async with connection.transaction():
            await connection.execute("INSERT INTO children VALUES (1, 1)")
            await connection.execute("INSERT INTO parents VALUES (1)")


@pytest.mark.parametrize(
    "query", ["SELECT 1 AS a$$; COMMIT; SELECT 2 AS b$$", "/* /* */ ' */ COMMIT; SELECT 1 /* ' */"]
)
async def test_hidden_commits_are_seen(lease, query):
    async with lease() as (pg, _):
        await pg.execute(ADD, "a")
        with pytest.raises(IsolationError, match="in the middle of a text"):
            await pg.execute(query)
    async with lease() as (pg, _):
        assert await texts(pg) == []


async def test_a_transaction_that_was_ended_unseen_is_told(lease):
    with pytest.raises(IsolationError, match=r"at fault.*ended the test's transaction.*may be there to stay"):
        async with lease() as (pg, _):
            await pg.execute("SET standard_conforming_strings = off")
            with pytest.raises(IsolationError, match="ended the test's transaction"):
                await pg.execute(r"SELECT 'a\''; COMMIT; --'")


async def test_a_backend_whose_client_has_gone_keeps_nobody_waiting(slots, database):
    async def case():
        async with slots.lease() as sandbox:
            pg = SandboxConnection(sandbox, commits=False)
            await pg.execute("LOCK TABLE notes")
            running.append(asyncio.ensure_future(pg.execute("SELECT pg_sleep(600)")))
            while not await admin.fetchval(sleeping):  # noqa: ASYNC110  # backends tell nobody
                await asyncio.sleep(0.01)

    running = []
    admin = await asyncpg.connect(database.url)
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'"
    with pytest.raises(IsolationError, match="while a statement was running"):
        await case()
    async with slots.lease() as sandbox:
        await SandboxConnection(sandbox, commits=False).execute(ADD, "a")
    await admin.close()
    await asyncio.wait(running)
    assert isinstance(running[0].exception(), (asyncpg.PostgresError, asyncpg.InterfaceError, OSError))


async def test_who_is_late_opens_no_connection(slots, database):
    killer = await asyncpg.connect(database.url)
    async with slots.lease() as sandbox:
        pg = SandboxConnection(sandbox, commits=False)
        await killer.execute("SELECT pg_terminate_backend($1, 10000)", pg.get_server_pid())
        while not sandbox.connection.is_closed():  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0.01)
        reached, go_on = asyncio.Event(), asyncio.Event()
        reconnect = sandbox._reconnect

        async def slowly():
            connection = await reconnect()
            reached.set()
            await go_on.wait()
            return connection

        sandbox._reconnect = slowly
        late = asyncio.ensure_future(pg.execute(ADD, "a"))
        await reached.wait()
        with pytest.raises(IsolationError, match="while a statement was running"):
            raise IsolationError(str(await sandbox.end()))
        go_on.set()
        with pytest.raises(IsolationError, match="a test that has ended"):
            await late
    async with asyncio.timeout(30):
        while await killer.fetchval(  # noqa: ASYNC110  # backends tell nobody
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ):
            await asyncio.sleep(0.01)
    await killer.close()


async def test_locks_of_a_session_with_codecs_of_its_own(lease):
    async with lease() as (pg, _):
        await pg.execute("SELECT pg_advisory_lock(1)")
        await pg.set_type_codec("text", schema="pg_catalog", encoder=str, decoder=lambda _: "mine")
    async with lease() as (pg, _):
        await pg.execute("SELECT pg_advisory_lock(1)")


@pytest.mark.parametrize("steps", range(1, 4))
async def test_an_interrupted_beginning_is_ended(slots, database, steps):
    async with slots.lease() as sandbox:
        task = asyncio.ensure_future(SandboxConnection(sandbox, commits=False).execute(ADD, "a"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    admin = await asyncpg.connect(database.url)
    states = (
        "SELECT DISTINCT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert [row[0] for row in await admin.fetch(states)] == ["idle"]
    await admin.close()


async def test_a_connection_is_given_back_while_anothers_transaction_has_failed(lease):
    async with lease() as (_, pool):
        async with pool.acquire() as setting:
            await setting.execute("SET app.tenant = 7")
            async with pool.acquire() as failing:
                await failing.execute("BEGIN")
                with pytest.raises(asyncpg.DivisionByZeroError):
                    await failing.execute("SELECT 1 / 0")
                await pool.release(setting)
                await failing.execute("ROLLBACK")
        assert await pool.fetchval("SELECT 1") == 1
