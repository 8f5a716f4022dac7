"""Template databases on a real server: built once, rebuilt when half-built, cloned, cleared up."""

from __future__ import annotations

import asyncio
import sys
import uuid
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import asyncpg
import msgspec
import pytest
from users import user_of

from asynctest_kit.errors import MigrationError
from asynctest_kit.isolation.databases import Template
from asynctest_kit.isolation.postgres import connect
from asynctest_kit.isolation.templates import ensure_template, make_next, open_clone, open_run_database
from asynctest_kit.provision.migration_files import fingerprint
from asynctest_kit.provision.service import ServiceSpec
from asynctest_kit.settings import Migrations

pytestmark = pytest.mark.anyio

ALEMBIC_INI = """
[alembic]
script_location = %(here)s/migrations
{url}

[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = WARNING
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = %(message)s
"""

ASYNC_ENV = """
import asyncio
from logging.config import fileConfig
from alembic import context
from sqlalchemy.ext.asyncio import async_engine_from_config

fileConfig(context.config.config_file_name)

def migrate(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    engine = async_engine_from_config(context.config.get_section("alembic"))
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()

asyncio.run(main())
"""

REVISION = """
from alembic import op
revision = "1"
down_revision = None
def upgrade():
    op.execute("CREATE TABLE made_by_alembic (id int)")
"""


@pytest.fixture
def sql(tmp_path):
    """A migration of the test's own: no other test shares its template."""
    (tmp_path / "1.sql").write_text(f"CREATE TABLE tables (id int); -- {uuid.uuid4()}")
    (tmp_path / "2.sql").write_text("INSERT INTO tables SELECT generate_series(1, 3);")
    return Migrations(sql=tmp_path)


@pytest.fixture
def alembic(tmp_path):
    pytest.importorskip("alembic")
    (tmp_path / "alembic.ini").write_text(ALEMBIC_INI.format(url=""))
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    (tmp_path / "migrations" / "env.py").write_text(ASYNC_ENV)
    (tmp_path / "migrations" / "versions" / "one.py").write_text(f"{REVISION}# {uuid.uuid4()}")
    return Migrations(alembic=tmp_path / "alembic.ini")


@pytest.fixture
async def admin(server, anyio_backend):
    connection = await connect(server)
    yield connection
    await connection.close()


async def oid(admin, name):
    return await admin.fetchval("SELECT oid FROM pg_database WHERE datname = $1", name)


async def fetch(endpoint, query):
    connection = await connect(endpoint)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def test_concurrent_builders_build_once(server, sql, admin):
    built, had = [], []

    async def note(digest):
        await asyncio.sleep(0)
        built.append((digest, list(had)))

    async def ensure():
        template = await ensure_template(server, sql, root=Path("/"), built=note)
        had.append(template.name)
        return template

    templates = await asyncio.gather(*(ensure() for _ in range(8)))
    assert len({template.name for template in templates}) == 1
    assert built == [(fingerprint(sql), [])]
    before = await oid(admin, templates[0].name)
    await ensure_template(server, sql, root=Path("/"))
    assert await oid(admin, templates[0].name) == before is not None


@pytest.fixture
async def theirs(server, anyio_backend):
    """Endpoints on a server of others: two databases, the second one of two users."""
    async with user_of(server) as one, user_of(server, "CREATEROLE") as other:
        superuser = {"username": server.username, "password": server.password}
        yield [
            msgspec.structs.replace(one, **superuser),
            msgspec.structs.replace(other, **superuser),
            other,
        ]


async def test_equal_migrations_over_several_databases_of_a_server(theirs, sql, admin):
    """A template's lock is its maintenance database's; a builder that meets another one's role fails."""
    role = f"role_{uuid.uuid4().hex[:8]}"
    (sql.sql / "3.sql").write_text(f"""
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
                PERFORM pg_sleep(0.2);
                CREATE ROLE {role};
            END IF;
        END $$
    """)

    async def counted(server):
        template = await ensure_template(server, sql, root=Path("/"))
        async with open_run_database(template) as database:
            return await fetch(database, "SELECT count(*) FROM tables")

    async with asyncio.TaskGroup() as group:
        counts = [group.create_task(counted(server)) for server in (*theirs, *theirs)]
    assert [count.result() for count in counts] == [[(3,)]] * 6
    await admin.execute(f"DROP ROLE {role}")


async def test_clone_is_migrated_and_dropped(server, sql, admin):
    template = await ensure_template(server, sql, root=Path("/"))
    async with open_clone(template) as one, open_clone(template) as other:
        assert await fetch(one, "DELETE FROM tables RETURNING id") == [(1,), (2,), (3,)]
        assert await fetch(other, "SELECT count(*) FROM tables") == [(3,)]
        leaked = await connect(other)  # an application that forgot to close
    assert await oid(admin, one.database) is await oid(admin, other.database) is None
    leaked.terminate()


async def test_half_built_template_is_built_again(server, sql, admin):
    name = f"atk_template_{fingerprint(sql)}"
    await admin.execute(f'CREATE DATABASE "{name}"')
    half = await oid(admin, name)
    holder = await connect(msgspec.structs.replace(server, database=name))  # what a killed builder may leave connected
    template = await ensure_template(server, sql, root=Path("/"))
    assert template.name == name
    assert await oid(admin, name) != half
    async with open_clone(template) as clone:
        assert await fetch(clone, "SELECT count(*) FROM tables") == [(3,)]
    holder.terminate()


async def test_cancelled_builder_leaves_no_template(server, sql, admin):
    (sql.sql / "3.sql").write_text("SELECT pg_sleep(60);")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await ensure_template(server, sql, root=Path("/"))
    (sql.sql / "3.sql").write_text("SELECT 1;")
    await ensure_template(server, sql, root=Path("/"))


async def test_no_one_connects_to_a_template(server, sql):
    template = await ensure_template(server, sql, root=Path("/"))
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
        await connect(server, database=template.name)


async def test_changed_migration_gives_a_new_template(server, sql):
    first = await ensure_template(server, sql, root=Path("/"))
    (sql.sql / "3.sql").write_text("CREATE TABLE more (id int)")
    second = await ensure_template(server, sql, root=Path("/"))
    assert first.name != second.name
    async with open_clone(second) as clone:
        assert await fetch(clone, "SELECT count(*) FROM more") == [(0,)]


async def test_failing_sql_names_file_and_line(server, sql):
    (sql.sql / "3.sql").write_text("SELECT 1;\n\nSELEC 2;")
    with pytest.raises(MigrationError, match=r"3\.sql, line 3: syntax error"):
        await ensure_template(server, sql, root=Path("/"))
    (sql.sql / "3.sql").write_text("SELECT 1;")
    await ensure_template(server, sql, root=Path("/"))


async def test_sql_that_leaves_its_transaction_open_is_told(server, sql):
    (sql.sql / "1.sql").write_text("BEGIN; CREATE TABLE tables (id int);")
    with pytest.raises(MigrationError, match=r"1\.sql leaves a transaction open.*BEGIN without a COMMIT"):
        await ensure_template(server, sql, root=Path("/"))


async def test_a_file_without_a_statement_is_passed_over(server, sql):
    (sql.sql / "0.sql").write_text("-- nothing yet\n")
    async with open_clone(await ensure_template(server, sql, root=Path("/"))) as clone:
        assert await fetch(clone, "SELECT 1") == [(1,)]


async def test_migrations_that_change_the_server_are_told_each_time_and_in_the_way_of_others(server, sql, admin):
    role, claims = f"role_{uuid.uuid4().hex[:8]}", []
    (sql.sql / "3.sql").write_text(f"CREATE ROLE {role};")
    theirs = msgspec.structs.replace(server, provider="external")
    try:
        for _ in range(2):  # built, and found
            await ensure_template(theirs, sql, root=Path("/"), claimed=claims.append)
        assert claims == [fingerprint(sql)] * 2
        (sql.sql / "4.sql").write_text("SELECT 1;")
        with pytest.raises(MigrationError) as caught:
            await ensure_template(theirs, sql, root=Path("/"))
    finally:
        await admin.execute(f"DROP ROLE {role}")
    told, mend = str(caught.value).splitlines()
    assert told.endswith(f'3.sql: role "{role}" already exists')
    assert mend == (
        "That is the server's and not the database's: it was there before, and stays when the database goes. "
        "Make it only where it is missing (with a DO block that looks into pg_roles)."
    )


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        ("ALTER SYSTEM SET log_min_duration_statement = 86400000", "ALTER SYSTEM RESET log_min_duration_statement"),
        ("ALTER DATABASE template1 SET atk.test = 'changed'", "ALTER DATABASE template1 RESET atk.test"),
        ("GRANT CONNECT ON DATABASE template1 TO pg_monitor", "REVOKE CONNECT ON DATABASE template1 FROM pg_monitor"),
        (
            "GRANT SET ON PARAMETER log_lock_waits TO pg_monitor",
            "REVOKE SET ON PARAMETER log_lock_waits FROM pg_monitor",
        ),
    ],
    ids=["system", "database", "grant", "parameter"],
)
async def test_what_migrations_set_for_the_server_is_told(server, sql, admin, change, undo):
    claims = []
    (sql.sql / "3.sql").write_text(change)
    try:
        template = await ensure_template(server, sql, root=Path("/"), claimed=claims.append)
    finally:
        await admin.execute(undo)
    assert [f"atk_template_{digest}" for digest in claims] == [template.name]


#: Ends the session that holds the lock: it has the database's name.
END_THE_OTHER = (
    "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = current_database()"
)


@pytest.mark.parametrize(
    ("then", "told"),
    [("SELECT 1/0;", "division by zero"), ("SELECT 1;", r"was made, but .*\(pg_terminate_backend\)")],
    ids=["fails", "works"],
)
async def test_a_migration_that_ends_our_session_is_told_and_the_server_is_nobodys(server, sql, then, told):
    claims, begun = [], []
    (sql.sql / "3.sql").write_text(END_THE_OTHER)
    (sql.sql / "4.sql").write_text(then)
    with pytest.raises(MigrationError, match=told):
        await ensure_template(server, sql, root=Path("/"), claimed=claims.append, begun=begun.append)
    assert claims == begun == ["nobody"]


async def test_a_migration_that_fails_and_changes_nothing_else_leaves_the_server_to_all(services, sql):
    server = await services.endpoint(ServiceSpec(name="alone", kind="postgres", provider="embedded"))
    claims, begun = [], []
    (sql.sql / "3.sql").write_text("SELECT 1/0;")
    with pytest.raises(MigrationError, match="division by zero"):
        await ensure_template(server, sql, root=Path("/"), claimed=claims.append, begun=begun.append)
    assert (begun, claims) == (["nobody"], [""])


async def test_without_migrations(server):
    async with open_clone(await ensure_template(server, None, root=Path("/"))) as clone:
        assert await fetch(clone, "SELECT 1") == [(1,)]


async def test_orphans_are_dropped_and_others_are_not(server, admin):
    orphan = f"atk_run_{uuid.uuid4().hex[:12]}"
    await admin.execute(f'CREATE DATABASE "{orphan}"')
    async with open_run_database(Template(server, None)) as living, open_run_database(Template(server, None)) as other:
        while await oid(admin, orphan) is not None:  # noqa: ASYNC110 (behind the run's back)
            await asyncio.sleep(0.05)
        assert None not in {await oid(admin, living.database), await oid(admin, other.database)}


async def test_run_database_on_a_server_of_others_is_dropped(server, admin):
    given = Template(msgspec.structs.replace(server, provider="external"), None)
    async with open_run_database(given) as endpoint:
        assert await oid(admin, endpoint.database)
    assert await oid(admin, endpoint.database) is None


async def test_user_who_may_not_create_databases(server, admin):
    user = f"user_{uuid.uuid4().hex[:8]}"
    await admin.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'secret'")
    poor = msgspec.structs.replace(server, username=user, password="secret")
    with pytest.raises(MigrationError, match=f'ALTER ROLE "{user}" CREATEDB'):
        async with open_clone(Template(poor, None)):
            pass
    await admin.execute(f"DROP ROLE {user}")


async def test_alembic(server, alembic):
    template = await ensure_template(server, alembic, root=Path("/"))
    async with open_clone(template) as clone:
        assert await fetch(clone, "SELECT version_num FROM alembic_version") == [("1",)]
        assert await fetch(clone, "SELECT count(*) FROM made_by_alembic") == [(0,)]


async def test_alembic_url_with_a_driver(server, alembic):
    text = ALEMBIC_INI.format(url="sqlalchemy.url = postgresql+asyncpg://nobody@nowhere/nothing")
    alembic.alembic.write_text(text)
    await ensure_template(server, alembic, root=Path("/"))


async def test_failing_alembic_shows_its_last_words_but_no_password(server, alembic):
    script = alembic.alembic.parent / "migrations" / "versions" / "two.py"
    script.write_text("""
import os
revision = "2"
down_revision = "1"
def upgrade():
    raise RuntimeError("no upgrade of " + os.environ["DATABASE_URL"])
""")
    with pytest.raises(MigrationError, match="RuntimeError: no upgrade of postgresql://") as caught:
        await ensure_template(server, alembic, root=Path("/"))
    assert server.password not in str(caught.value)


async def test_a_failing_statement_of_alembics_is_told_with_its_line(server, alembic):
    script = alembic.alembic.parent / "migrations" / "versions" / "two.py"
    lines = (
        "from alembic import op",
        "revision = '2'",
        "down_revision = '1'",
        "def upgrade():",
        "    op.execute('OOPS')",
    )
    script.write_text("\n".join(lines))
    with pytest.raises(
        MigrationError, match=r"The migration of \w+ failed in \S+two\.py, line 5: alembic upgrade heads"
    ):
        await ensure_template(server, alembic, root=Path("/"))


async def test_alembic_that_migrates_another_database_is_caught(server, alembic):
    (alembic.alembic.parent / "migrations" / "env.py").write_text("# ignores what it is told")
    with pytest.raises(MigrationError, match=r"env\.py migrated another database"):
        await ensure_template(server, alembic, root=Path("/"))


async def test_command(server, tmp_path):
    code = """
import asyncio, asyncpg, os
async def main():
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.execute("CREATE TABLE made_in (folder text)")
    await connection.execute("INSERT INTO made_in VALUES ($1)", os.getcwd())
    await connection.close()
asyncio.run(main())
"""
    command = Migrations(command=(sys.executable, "-c", f"{code}# {uuid.uuid4()}"))
    async with open_clone(await ensure_template(server, command, root=tmp_path)) as clone:
        assert await fetch(clone, "SELECT folder FROM made_in") == [(str(tmp_path),)]


async def test_command_that_is_not_there(server, tmp_path):
    missing = Migrations(command=("no-such-command", str(uuid.uuid4())))
    with pytest.raises(MigrationError, match="can't be started: no-such-command"):
        await ensure_template(server, missing, root=tmp_path)


def test_fingerprint_ignores_byte_code(alembic):
    before = fingerprint(alembic)
    cache = alembic.alembic.parent / "migrations" / "__pycache__"
    cache.mkdir()
    (cache / "env.pyc").write_bytes(b"code")
    assert fingerprint(alembic) == before
    assert fingerprint(replace(alembic)) == before
    (alembic.alembic.parent / "migrations" / "versions" / "two.py").write_text("")
    assert fingerprint(alembic) != before


def test_a_commands_files_count(tmp_path):
    command = Migrations(command=("sh", "migrate.sh"))
    (tmp_path / "migrate.sh").write_text("true")
    before = fingerprint(command, root=tmp_path)
    assert fingerprint(command, root=tmp_path) == before
    (tmp_path / "migrate.sh").write_text("false")
    assert fingerprint(command, root=tmp_path) != before


async def next_of(admin, template):
    """The oid of the next run's database."""
    return await oid(admin, f"atk_next_{await oid(admin, template.name)}")


async def test_the_next_runs_database_is_one_runs(server, sql, admin):
    await make_next(server, sql, root=Path("/"))  # there is no template yet
    template = await ensure_template(server, sql, root=Path("/"))
    assert await next_of(admin, template) is None
    await asyncio.gather(*(make_next(server, sql, root=Path("/")) for _ in range(2)))
    made = await next_of(admin, template)
    assert made is not None
    async with AsyncExitStack() as runs:
        opened = [runs.enter_async_context(open_run_database(template)) for _ in range(8)]
        endpoints = await asyncio.gather(*opened)
        oids = [await oid(admin, endpoint.database) for endpoint in endpoints]
        assert len(set(oids)) == len(oids)
        assert oids.count(made) == 1
        assert await next_of(admin, template) is None
        for endpoint in endpoints:
            assert await fetch(endpoint, "SELECT count(*) FROM tables") == [(3,)]


async def test_the_next_runs_database_that_somebody_looks_into_is_left(server, sql, admin):
    template = await ensure_template(server, sql, root=Path("/"))
    await make_next(server, sql, root=Path("/"))
    made = await next_of(admin, template)
    name = f"atk_next_{await oid(admin, template.name)}"
    looking = await connect(msgspec.structs.replace(server, database=name))
    try:
        async with open_run_database(template) as endpoint:
            assert await oid(admin, endpoint.database) != made
    finally:
        await looking.close()
    assert await next_of(admin, template) == made


async def test_the_next_runs_database_goes_with_its_template(server, sql, admin):
    template = await ensure_template(server, sql, root=Path("/"))
    await make_next(server, sql, root=Path("/"))
    made = f"atk_next_{await oid(admin, template.name)}"
    await admin.execute(f'ALTER DATABASE "{template.name}" IS_TEMPLATE false')
    await admin.execute(f'DROP DATABASE "{template.name}"')
    again = await ensure_template(server, sql, root=Path("/"))
    await make_next(server, sql, root=Path("/"))
    assert await oid(admin, made) is None
    assert await next_of(admin, again) is not None


async def test_none_is_made_on_a_server_of_others(theirs, sql, admin):
    template = await ensure_template(theirs[0], sql, root=Path("/"))
    await make_next(theirs[0], sql, root=Path("/"))
    assert await next_of(admin, template) is None
