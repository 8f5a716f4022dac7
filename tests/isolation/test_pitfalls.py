"""What one server shares among tests, shown as it is; the table in docs/isolation.md is told from these.

Where each pitfall of PostgreSQL and Redis is shown:

================================================  ====================================================================
A template with sessions while it is cloned       here; test_templates: test_no_one_connects_to_a_template
Autovacuum in a template while it is cloned       here; off on servers of ours: test_provision_docker
FILE_COPY forces checkpoints                      here: only on servers of ours
A failed bare statement, a failed nested one      test_sandbox: test_failed_statement_harms_only_itself
asyncpg's pool resets what is released            test_sandbox: test_release_rolls_back_what_is_open
Sequences, setval, the session's currval          here
now() is frozen                                   here
Session advisory locks                            here; test_escapes
LISTEN, NOTIFY                                    test_refusals; with isolation="database": test_isolation_mark
VACUUM, CREATE DATABASE, ALTER SYSTEM             test_refusals
Roles, settings of the server                     here
DDL, one unique key in two tests                  here; who waits for whom: test_lock_waits, test_conflicts
Two transactions at once                          test_sandbox: test_overlapping_transactions_are_refused
transaction() after a manual BEGIN                test_sandbox: test_transaction_objects_stay_out_of_manual_...
Large objects, temporary tables, SET              here
Statistics, PREPARE TRANSACTION, sessions         here
Redis: FLUSHALL, SWAPDB, SELECT, MOVE             test_redis_leases: test_what_leaves_the_database_is_refused
Redis: channels, scripts                          test_redis_leases, test_redis_prefixes
The image starts PostgreSQL twice                 test_docker_options: test_the_first_of_the_images_two_starts_...
PGDATA is a VOLUME                                test_docker_snapshots: test_where_the_images_data_folder_...
================================================  ====================================================================
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from pathlib import Path

import asyncpg
import msgspec
import pytest

from asynctest_kit.isolation.databases import create
from asynctest_kit.isolation.postgres import connect
from asynctest_kit.isolation.templates import ensure_template, open_clone
from asynctest_kit.provision.service import ServiceSpec
from asynctest_kit.settings import Migrations

pytestmark = pytest.mark.anyio

ADD = "INSERT INTO notes (text) VALUES ($1)"


async def test_sequences_go_on_after_a_rollback(lease):
    async with lease() as (pg, _):
        first = await pg.fetchval(f"{ADD} RETURNING id", "a")
    async with lease() as (pg, _):
        assert await pg.fetchval("SELECT currval('notes_id_seq')") == first  # the session's, as it was left
        assert await pg.fetchval(f"{ADD} RETURNING id", "a") > first


async def test_setval_is_seen_by_all(lease):
    async with lease() as (pg, _):
        await pg.execute("SELECT setval('notes_id_seq', 1000)")
    async with lease() as (pg, _):
        assert await pg.fetchval("SELECT nextval('notes_id_seq')") == 1001


async def test_now_is_frozen_and_the_clock_is_not(lease):
    async with lease() as (pg, pool):
        first, clock = await pg.fetchrow("SELECT now(), clock_timestamp()")
        async with pool.acquire() as connection, connection.transaction():
            later, later_clock = await connection.fetchrow("SELECT now(), clock_timestamp()")
        assert first == later
        assert clock < later_clock


async def test_advisory_locks_are_the_databases(lease):
    async with lease() as (one, _), lease() as (other, _):
        await one.execute("SELECT pg_advisory_lock(7)")
        assert not await other.fetchval("SELECT pg_try_advisory_lock(7)")
    async with lease() as (pg, _):
        assert await pg.fetchval("SELECT pg_try_advisory_lock(7)")


async def test_roles_are_rolled_back_and_their_names_are_the_servers(lease):
    role = f"role_{uuid.uuid4().hex[:8]}"
    async with lease() as (one, _), lease() as (other, _):
        await one.execute(f"CREATE ROLE {role}")
        assert not await other.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", role)
        await other.execute("SET LOCAL lock_timeout = '50ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await other.execute(f"CREATE ROLE {role}")
    async with lease() as (pg, _):
        assert not await pg.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", role)


async def test_roles_of_one_clone_are_the_others_too(server, migrations):
    role = f"role_{uuid.uuid4().hex[:8]}"
    template = await ensure_template(server, migrations, root=Path("/"))
    async with open_clone(template) as one, open_clone(template) as other:
        first, second = await connect(one), await connect(other)
        await first.execute(f"CREATE ROLE {role}")
        try:
            with pytest.raises(asyncpg.DuplicateObjectError):
                await second.execute(f"CREATE ROLE {role}")
        finally:
            await first.execute(f"DROP ROLE {role}")
            await asyncio.gather(first.close(), second.close())


@pytest.mark.parametrize("is_ours", [True, False])
async def test_files_are_copied_on_servers_of_ours_only(server, migrations, is_ours):
    template = await ensure_template(server, migrations, root=Path("/"))
    if not is_ours:
        template = replace(template, server=msgspec.structs.replace(server, provider="external"))
    connection, name, queries = await connect(server), f"atk_copied_{uuid.uuid4().hex}", []
    try:
        with connection.query_logger(lambda record: queries.append(record.query)):
            await create(connection, name, template)
            await asyncio.sleep(0)  # it is told in the next turn of the loop
        knows_it = connection.get_server_version()[:2] >= (15, 0)
        assert ("STRATEGY FILE_COPY" in queries[0]) == (is_ours and knows_it)
    finally:
        await connection.execute(f"DROP DATABASE IF EXISTS {name}")
        await connection.close()


@pytest.mark.parametrize(
    "queries",
    [
        ["SELECT lo_from_bytea(4711, 'mine')", "SELECT count(*) FROM pg_largeobject_metadata"],
        ["CREATE TEMP TABLE notes (mine int)", "SELECT count(*) FROM pg_class WHERE relpersistence = 't'"],
        ["SET work_mem = '1MB'", "SELECT count(*) FROM pg_settings WHERE name = 'work_mem' AND source = 'session'"],
        ["CREATE SCHEMA mine", "SELECT count(*) FROM pg_namespace WHERE nspname = 'mine'"],
    ],
    ids=["large object", "temporary table", "setting", "schema"],
)
async def test_what_a_rollback_undoes(lease, queries):
    change, count = queries
    async with lease() as (one, _), lease() as (other, _):
        await one.execute(change)
        assert (await one.fetchval(count), await other.fetchval(count)) == (1, 0)
    async with lease() as (pg, _):
        assert await pg.fetchval(count) == 0


@pytest.mark.parametrize(
    ("held", "waiting"),
    [
        ("ALTER TABLE parents ADD note text", "SELECT count(*) FROM parents"),
        ("INSERT INTO notes (text) VALUES ('same')", "INSERT INTO notes (text) VALUES ('same')"),
        ("LOCK TABLE parents", "INSERT INTO parents VALUES (1)"),
    ],
    ids=["schema", "unique key", "lock"],
)
async def test_locks_last_until_their_test_ends(lease, held, waiting):
    async with lease() as (other, _):
        async with lease() as (one, _):
            await one.execute(held)
            with pytest.raises(asyncpg.LockNotAvailableError):
                async with other.transaction():
                    await other.execute("SET LOCAL lock_timeout = '50ms'")
                    await other.execute(waiting)
        await other.execute(waiting)


async def test_a_template_with_a_session_can_not_be_cloned(server, migrations):
    """PostgreSQL's word on it, with a copy of ours that lets sessions in."""
    template = await ensure_template(server, migrations, root=Path("/"))
    copy = f"atk_run_{uuid.uuid4().hex[:12]}"
    admin = await connect(server, name=copy)  # its keeper
    try:
        assert not await admin.fetchval("SELECT datallowconn FROM pg_database WHERE datname = $1", template.name)
        await admin.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{template.name}"')
        session = await connect(server, database=copy)
        with pytest.raises(asyncpg.ObjectInUseError, match="being accessed by other users"):
            await admin.execute(f'CREATE DATABASE "{copy}_2" TEMPLATE "{copy}"')
        await session.close()
        await admin.execute(f'DROP DATABASE "{copy}" WITH (FORCE)')
    finally:
        await admin.close()


#: Rows that were inserted into the table, as the statistics of its database have it.
_INSERTED = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'parents'"
_UNTIL_INSERTED = f"""
DO $$ BEGIN LOOP
    PERFORM pg_stat_clear_snapshot();
    EXIT WHEN ({_INSERTED}) > 0;
    PERFORM pg_sleep(0.01);
END LOOP; END $$
"""


async def test_statistics_tell_of_what_was_rolled_back(lease, database):
    async with lease() as (pg, _):
        await pg.execute("INSERT INTO parents VALUES (1)")
        await pg.execute("SELECT pg_stat_force_next_flush()")
    other = await connect(database)
    assert await other.fetchval("SELECT count(*) FROM parents") == 0
    await other.execute(_UNTIL_INSERTED)
    await other.close()


async def test_a_clone_has_statistics_of_its_own_and_sees_the_sessions_of_others(server, migrations):
    template = await ensure_template(server, migrations, root=Path("/"))
    async with open_clone(template) as one, open_clone(template) as other:
        first, second = await connect(one), await connect(other, name="the other's")
        await first.execute("INSERT INTO parents VALUES (1)")
        await first.execute("SELECT pg_stat_force_next_flush()")
        await first.execute(_UNTIL_INSERTED)
        assert await second.fetchval(_INSERTED) == 0
        assert await first.fetchval("SELECT datname FROM pg_stat_activity WHERE application_name = 'the other''s'")
        await asyncio.gather(first.close(), second.close())


async def test_prepared_transactions_are_a_clones_own_but_for_their_names(server, migrations, two_phased):
    template = await ensure_template(server, migrations, root=Path("/"))
    async with open_clone(template) as clone:
        connection = await connect(clone)
        await connection.execute("BEGIN")
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="prepared transactions are disabled"):
            await connection.execute("PREPARE TRANSACTION 'same'")
        await connection.close()
    template = await ensure_template(two_phased, migrations, root=Path("/"))
    async with open_clone(template) as one, open_clone(template) as other:
        first, second = await connect(one), await connect(other)
        await first.execute("BEGIN; INSERT INTO parents VALUES (1); PREPARE TRANSACTION 'same'")
        with pytest.raises(asyncpg.DuplicateObjectError):
            await second.execute("BEGIN; INSERT INTO parents VALUES (1); PREPARE TRANSACTION 'same'")
        await second.execute("ROLLBACK; INSERT INTO parents VALUES (1)")
        await first.execute("COMMIT PREPARED 'same'")
        await asyncio.gather(first.close(), second.close())


#: Until autovacuum is at work in a database.
_WAIT_FOR_WORKER = """
DO $$ BEGIN LOOP
    PERFORM pg_stat_clear_snapshot();
    EXIT WHEN EXISTS (
        SELECT FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = '{database}'
    );
    PERFORM pg_sleep(0.05);
END LOOP; END $$
"""


async def test_autovacuum_in_a_template_keeps_nobody_from_cloning_it(services, tmp_path):
    """On a server of the user's it is on, and a worker in the template is a session."""
    (tmp_path / "1.sql").write_text(
        "CREATE TABLE busy (id int) WITH (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0, "
        "autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);"
        "INSERT INTO busy SELECT generate_series(1, 200000); DELETE FROM busy WHERE id % 2 = 0;"
    )
    options = ("-c", "autovacuum=on", "-c", "autovacuum_naptime=1")
    spec = ServiceSpec(name="vacuumed", kind="postgres", provider="embedded", command=options)
    template = await ensure_template(await services.endpoint(spec), Migrations(sql=tmp_path), root=Path("/"))
    admin = await connect(template.server)
    try:
        await admin.execute(_WAIT_FOR_WORKER.format(database=template.name))
        async with open_clone(template) as one, open_clone(template) as other:
            for endpoint in (one, other):
                clone = await connect(endpoint)
                assert await clone.fetchval("SELECT count(*) FROM busy") == 100_000
                await clone.close()
    finally:
        await admin.close()
