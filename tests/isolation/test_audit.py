"""The audit finds whatever a suite can leave, and nothing where nothing was left."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.asyncio import Redis

from asynctest_kit.isolation.audit import Change, DatabaseAudit, ServerAudit, changes
from asynctest_kit.isolation.postgres import connect
from asynctest_kit.isolation.redis_audit import RedisAudit
from asynctest_kit.isolation.templates import ensure_template

#: Others' roles and keys would be found, too.
pytestmark = [pytest.mark.anyio, pytest.mark.atk(exclusive=True)]


@pytest.fixture
async def server_audit(server, migrations):
    return ServerAudit(await ensure_template(server, migrations, root=Path("/")))


@pytest.fixture
async def audit(server_audit, database):
    """A database's and its server's."""

    class Both:
        async def state(self):
            return {**await DatabaseAudit(database).state(), **await server_audit.state()}

    return Both()


def told(before, after):
    return [str(change) for change in changes(before, after)]


async def test_what_is_rolled_back_leaves_nothing_but_sequences(audit, database, slots):
    before = await audit.state()
    async with slots.lease() as sandbox:
        await sandbox.begin(None, readonly=False)  # type: ignore[arg-type]
        await sandbox.connection.execute(
            "INSERT INTO notes (text) VALUES ('gone'); DELETE FROM notes; CREATE TABLE more (); "
            "CREATE ROLE atk_rolled_back; SELECT lo_create(0); ALTER TABLE notes ADD COLUMN more int"
        )
        await sandbox.roll_back()
    found = changes(before, await audit.state())
    assert found == (Change("value of sequence public.notes_id_seq", "never used", "1", is_known=True),)


@pytest.mark.parametrize(
    ("statement", "undo", "expected"),
    [
        ("INSERT INTO parents VALUES (1)", "", "changed: rows of public.parents: 0 rows, checksum 00000000 before, 1 "),
        ("CREATE TABLE more (a int)", "", "new: schema: column public.more.a int"),
        ("DROP TABLE children", "", "gone: rows of public.children: 0 rows"),
        ("CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'", "", "new: schema: function one()"),
        ("GRANT SELECT ON notes TO pg_monitor", "", "new: schema: grant SELECT ON public.notes TO pg_monitor"),
        ("CREATE PUBLICATION news FOR TABLE notes", "", "new: schema: publication news"),
        ("SELECT lo_from_bytea(4711, 'large')", "", "new: large object 4711: "),
        ("CREATE ROLE audited LOGIN", "DROP ROLE audited", "new: role audited: LOGIN"),
        ("CREATE ROLE audited PASSWORD 'x'", "DROP ROLE audited", "new: password of role audited: "),
        (
            "ALTER ROLE postgres SET work_mem = '9MB'",
            "ALTER ROLE postgres RESET work_mem",
            "new: settings of postgres in all databases: {work_mem=9MB}",
        ),
        (
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''9MB''', current_database()); END $$",
            "",
            "new: settings of all roles in the run's database: {work_mem=9MB}",
        ),
        (
            "ALTER SYSTEM SET work_mem = '9MB'",  # and no reload
            "ALTER SYSTEM RESET work_mem",
            "new: ALTER SYSTEM SET work_mem: 9MB",
        ),
        (
            "SELECT pg_create_physical_replication_slot('audited')",
            "SELECT pg_drop_replication_slot('audited')",
            "new: replication slot audited: physical",
        ),
        ("SELECT pg_advisory_lock(77)", "", "new: advisory lock 77: held by application \"a test's\""),
    ],
)  # fmt: skip
async def test_each_thing_that_stays_is_told(audit, database, statement, undo, expected):
    before = await audit.state()
    connection = await connect(database, name="a test's")
    try:
        await connection.execute(statement)
        found = told(before, await audit.state())
    finally:
        if undo:
            await connection.execute(undo)
        await connection.close()
    assert [line for line in found if line.startswith(expected)], found
    assert "new: session of postgres in the run's database, application \"a test's\": idle" in found
    assert "9999" not in "".join(found)
    assert not [line for line in found if "audited" not in line and "password" in line]


async def test_rows_in_another_order_are_the_same_and_another_value_is_not(audit, database):
    connection = await connect(database)
    await connection.execute("INSERT INTO parents VALUES (1), (2)")
    before = await audit.state()
    await connection.execute("DELETE FROM parents WHERE id = 1; INSERT INTO parents VALUES (1)")
    assert told(before, await audit.state()) == []
    await connection.execute("UPDATE parents SET id = 3 WHERE id = 1")
    (changed,) = told(before, await audit.state())
    assert changed.startswith("changed: rows of public.parents: 2 rows, checksum ")
    await connection.close()


async def test_a_template_that_was_changed_is_told(server, server_audit):
    before = await server_audit.state_of_template()
    assert told(before, await server_audit.state_of_template()) == []
    name = server_audit._template.name
    admin = await connect(server)
    await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    inside = await connect(server, database=name)
    try:
        await inside.execute("CREATE TABLE left_behind (id int)")
        await inside.close()
        found = told(before, await server_audit.state_of_template())
    finally:
        inside = await connect(server, database=name)
        await inside.execute("DROP TABLE left_behind")
        await inside.close()
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await admin.close()
    assert "new: template: rows of public.left_behind: 0 rows, checksum 00000000" in found
    assert told(before, await server_audit.state_of_template()) == []


async def test_redis_is_compared_but_for_what_leases_make(redis_endpoint):
    audit = RedisAudit(redis_endpoint)
    async with Redis.from_url(redis_endpoint.url) as server:
        before = await audit.state()
        assert told(before, await audit.state()) == []
        await server.execute_command("SET", "atk:lock:1", "ours")
        await server.acl_setuser("atk-url-1", enabled=True, nopass=True)
        assert told(before, await audit.state()) == []

        await server.set("theirs", "value")
        await server.config_set("maxmemory-policy", "allkeys-lru")
        await server.acl_setuser("somebody", enabled=True, passwords=["+secret"], commands=["+get"])
        await server.execute_command(
            "FUNCTION", "LOAD", "#!lua name=mine\nredis.register_function('one', function() return 1 end)"
        )
        found = told(before, await audit.state())
        await server.config_set("maxmemory-policy", "noeviction")
        await server.acl_deluser("somebody", "atk-url-1")
        await server.execute_command("FUNCTION", "DELETE", "mine")
        await server.delete("theirs", "atk:lock:1")
        assert told(before, await audit.state()) == []
    assert [line.partition(": checksum")[0].partition(" (checksum")[0] for line in found] == [
        "new: ACL user somebody: on resetchannels -@all +get",
        "changed: CONFIG maxmemory-policy: noeviction before, allkeys-lru after",
        "new: function library mine",
        "new: key 'theirs' of database 0",
    ]


async def test_many_keys_are_told_together(redis_endpoint):
    audit = RedisAudit(redis_endpoint)
    async with Redis.from_url(redis_endpoint.url) as server:
        before = await audit.state()
        await server.mset({f"key{number}": number for number in range(1200)})
        (found,) = told(before, await audit.state())
        await server.delete(*(f"key{number}" for number in range(1200)))
    assert found.startswith("new: keys of database 0: 1200 keys, checksum ")
