"""What is checked of migrations, on the real server: good ones pass, and each fault is shown by its difference."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from alembic_projects import ASYNC_ENV, INI, LACKING_ENV, SYNC_ENV, sql, write

from asynctest_kit.errors import MigrationError
from asynctest_kit.isolation.databases import Template
from asynctest_kit.isolation.migration_checks import CHECKS, Checked, NotApplicable
from asynctest_kit.isolation.migrations import apply
from asynctest_kit.isolation.postgres import connect
from asynctest_kit.isolation.templates import open_clone
from asynctest_kit.provision.service import ServiceSpec
from asynctest_kit.settings import Migrations

pytestmark = [pytest.mark.anyio, pytest.mark.atk(timeout=300)]

CREATE = "CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL)"
GOOD = (
    ("0001", None, sql(CREATE), sql("DROP TABLE users")),
    ("0002a", "0001", sql("CREATE VIEW names AS SELECT name FROM users"), sql("DROP VIEW names")),
    ("0002b", "0001", sql("CREATE TYPE mood AS ENUM ('sad', 'ok')"), sql("DROP TYPE mood")),
    ("0003", ("0002a", "0002b"), sql("CREATE SEQUENCE places"), sql("DROP SEQUENCE places")),
)
FAULTY = (
    ("0001", None, sql(CREATE, "CREATE TYPE mood AS ENUM ('sad')"), sql("DROP TABLE users")),
    (
        "0002",
        "0001",
        sql("ALTER TABLE users ADD nick text", "UPDATE users SET nick = name", "UPDATE users SET name = ''"),
        sql("ALTER TABLE users DROP nick"),
    ),
)


def checked(server, migrations, **data):
    return Checked(server=server, migrations=migrations, root=Path("/"), data=data)


async def told(title, what):
    """What a check says of a fault."""
    with pytest.raises(MigrationError) as caught:
        await CHECKS[title](what)
    return str(caught.value)


@pytest.fixture
def scripts(tmp_path):
    def write_scripts(**files):
        for name, text in files.items():
            (tmp_path / f"{name.replace('__', '.')}.sql").write_text(text)
        return Migrations(sql=tmp_path)

    return write_scripts


@pytest.fixture(scope="session")
async def docker_server(services, anyio_backend):
    image = os.environ.get("ATK_POSTGRES_IMAGE") or "asynctest-kit/postgres:testbed"
    if (
        shutil.which("docker") is None
        or (await anyio.run_process(["docker", "image", "inspect", image], check=False)).returncode
    ):
        pytest.skip(f"no Docker here has the image {image}")
    return await services.endpoint(ServiceSpec(name="contained", kind="postgres", provider="docker", image=image))


async def add_users(connection):
    await connection.execute("INSERT INTO users (name) VALUES ('ann'), ('bob')")


async def test_branches_that_are_good_pass_at_once(docker_server, tmp_path):
    what = checked(docker_server, write(tmp_path, *GOOD), **{"0001": add_users, "0002b": "SELECT 1"})
    found = await asyncio.gather(*(check(what) for check in CHECKS.values()))
    assert found == [
        "4 revision(s), the head is 0003",
        "an empty database comes up to date",
        "4 revision(s), each undone and made again",
        "4 revision(s) undone, and nothing is left",
        "alembic finds nothing to generate for the models",
        found[-1],
    ]
    assert found[-1].startswith("rows of ") and "0001" in found[-1]


async def test_faults_are_shown_by_their_differences(server, tmp_path):
    what = checked(server, write(tmp_path, *FAULTY, env=SYNC_ENV), **{"0001": add_users})
    faults = ("up and down", "base is empty", "models match", "data survives")
    again, base, models, data = await asyncio.gather(*(told(title, what) for title in faults))
    assert again.splitlines()[:4] == [
        "Undoing 0001 doesn't lead back to the schema before it:",
        "--- before 0001",
        "+++ after it was undone",
        "+type public.mood ENUM ('sad')",
    ]
    assert str(tmp_path / "migrations" / "versions" / "0001.py") in again
    assert "\n+type public.mood ENUM ('sad')\n" in base
    assert "up to 0002. Alembic would write:\nop.drop_column('users', 'nick')\n" in models
    assert "\n-column public.users.nick text\n" in models
    assert "Rows don't survive 0002, made and undone; they were put in at 0001:\nusers:\n" in data
    assert "- {'id': 1, 'name': 'ann'}" in data and "+ {'id': 1, 'name': ''}" in data


async def test_what_alembic_can_not_do_is_told_in_its_words(server, tmp_path):
    revisions = (GOOD[0], ("0002", "0001", sql("SELEC 1"), "pass"), ("0003", "0001", "pass", "pass"))
    what = checked(server, write(tmp_path, *revisions, models="metadata = None"))
    several, empty = await asyncio.gather(told("single head", what), told("upgrade", what))
    assert "2 revisions have no successor, so `alembic upgrade head` fails:" in several
    assert "Join them: alembic merge heads;" in several and empty == several
    assert str(tmp_path / "migrations" / "versions" / "0003.py") in several
    (tmp_path / "migrations" / "versions" / "0003.py").unlink()
    broken = await told("upgrade", what)
    assert 'syntax error at or near "SELEC"' in broken and "alembic upgrade heads" in broken
    (tmp_path / "migrations" / "versions" / "0002.py").unlink()
    with pytest.raises(NotApplicable, match="no target_metadata"):
        await CHECKS["models match"](what)


async def test_a_driver_that_is_not_installed_is_told_in_the_same_words_by_every_check(server, tmp_path):
    what = checked(server, write(tmp_path, GOOD[0], env=LACKING_ENV, url="postgresql+psycopg2://"))
    messages = await asyncio.gather(*(told(title, what) for title in ("single head", "upgrade", "models match")))
    env = tmp_path / "migrations" / "env.py"
    assert len(set(messages)) == 1
    assert messages[0].splitlines() == [
        f"{env} connects to postgres with the driver psycopg2, which is not installed for {sys.executable}.",
        f"It is named by sqlalchemy.url in {tmp_path / 'alembic.ini'}: postgresql+psycopg2://",
        f"Install it: {sys.executable} -m pip install psycopg2-binary",
        "Or name one that is installed: postgresql+psycopg://",
        "Or make an async engine in env.py, with asyncpg, which is installed (alembic init -t async has one).",
    ]
    (tmp_path / "alembic.ini").write_text(INI)
    own_url = LACKING_ENV.replace("from_config(", "from_config({'sqlalchemy.url': 'postgresql+psycopg2://'} or ")
    env.write_text(own_url)
    second = (await told("upgrade", what)).splitlines()[1]
    assert second == "env.py makes its URL itself; sqlalchemy.url of its config is postgresql+psycopg://"


async def test_another_file_of_that_name_is_not_taken_for_it(server, tmp_path):
    what = checked(server, write(tmp_path, GOOD[0]))
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "env.py").write_text("raise KeyError('SHOP_ENV')")
    (script,) = (tmp_path / "migrations" / "versions").glob("*.py")
    script.write_text(f"import shop.env\n{script.read_text()}")
    message = await told("single head", what)
    assert message.startswith("The migration of postgres failed: alembic history")
    assert str(script) in message, "from where it was imported"


async def test_what_env_fails_for_is_told_in_the_same_words_by_every_check(server, tmp_path):
    what = checked(server, write(tmp_path, GOOD[0], env=f"import shop.models\n{ASYNC_ENV}"))
    messages = await asyncio.gather(*(told(title, what) for title in ("single head", "upgrade")))
    assert messages[0] == messages[1]
    env, ini = tmp_path / "migrations" / "env.py", tmp_path / "alembic.ini"
    assert messages[0].splitlines() == [
        f"{env} failed before it came to the migrations of postgres (with {ini}). Its last words:",
        "Traceback (most recent call last):",
        f'  File "{env}", line 1, in <module>',
        "    import shop.models",
        "ModuleNotFoundError: No module named 'shop'",
    ]


async def test_branches_with_labels_of_their_own_are_meant(server, tmp_path):
    revisions = (GOOD[0], ("0002", "0001", sql("CREATE SEQUENCE left_one"), "pass"), ("0003", "0001", "pass", "pass"))
    what = checked(server, write(tmp_path, *revisions))
    versions = tmp_path / "migrations" / "versions"

    def label(name, *labels):
        with (versions / f"{name}.py").open("a") as file:
            print(f"branch_labels = {labels!r}", file=file)

    label("0001", "both")
    assert await told("upgrade", what)
    label("0002", "left")
    assert "need a label each" in await told("single head", what)
    label("0003", "right")
    found = await asyncio.gather(CHECKS["single head"](what), CHECKS["upgrade"](what))
    assert found[0] == "3 revision(s), the heads are 0002 (both, left), 0003 (both, right)"


async def test_a_process_that_dies_is_told(server, tmp_path):
    what = checked(
        server, write(tmp_path, ("0001", None, "print('so long', flush=True); import os; os._exit(3)", "pass"))
    )
    assert "so long" in await told("upgrade", what)


async def test_a_cancelled_check_leaves_no_process(server, tmp_path):
    marker = tmp_path / "pid"
    body = f"import os, time, pathlib; pathlib.Path({str(marker)!r}).write_text(str(os.getpid())); time.sleep(600)"
    task = asyncio.create_task(CHECKS["upgrade"](checked(server, write(tmp_path, ("0001", None, body, "pass")))))
    while not (marker.exists() and marker.read_text()):
        assert not task.done(), task.result()
        await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)


async def test_good_scripts_pass(server, scripts):
    migrations = scripts(
        **{"01": CREATE, "01__down": "DROP TABLE users", "02__up": "ALTER TABLE users ADD age int"},
        **{
            "02__down": "ALTER TABLE users DROP age",
            "10": "CREATE INDEX ON users (age)",
            "10__down": "DROP INDEX users_age_idx",
        },
    )
    what = checked(server, migrations, **{"01": add_users})
    titles = [title for title in CHECKS if title != "models match"]
    found = await asyncio.gather(*(CHECKS[title](what) for title in titles))
    assert found[0] == "3 script(s), the last is 10.sql"
    assert found[-1] == "rows of 01 are there after every later revision was made and undone"
    with pytest.raises(NotApplicable, match="only alembic"):
        await CHECKS["models match"](what)
    with pytest.raises(NotApplicable, match="the last revision only"):
        await CHECKS["data survives"](checked(server, migrations, **{"10": add_users}))


async def test_scripts_that_undo_are_not_applied(server, scripts):
    migrations = scripts(**{"01": CREATE, "01__down": "DROP TABLE users"})
    async with open_clone(Template(server, None)) as database:
        await apply(migrations, database, root=Path("/"))
        connection = await connect(database)
        assert await connection.fetchval("SELECT count(*) FROM users") == 0
        await connection.close()


async def test_faulty_scripts(server, scripts, tmp_path):
    migrations = scripts(
        **{"01": f"{CREATE}; CREATE FUNCTION one() RETURNS int LANGUAGE sql RETURN 1", "01__down": "DROP TABLE users"},
        **{"02": "CREATE TABLE IF NOT EXISTS kept (a int)", "02__down": "ALTER TABLE kept ADD b int"},
    )
    what = checked(server, migrations)
    undone = await told("up and down", what)
    assert "+function one()" in undone and "01.down.sql must remove what + shows" in undone
    assert "+column public.kept.b integer" in await told("base is empty", what)
    with pytest.raises(NotApplicable, match="no rows are given"):
        await CHECKS["data survives"](what)
    (tmp_path / "01.down.sql").unlink()
    assert "Nothing undoes 01.sql: put 01.down.sql beside it." in await told("base is empty", what)
    (tmp_path / "02.down.sql").unlink()
    with pytest.raises(NotApplicable, match=r"NAME\.down\.sql"):
        await CHECKS["up and down"](what)


async def test_what_need_not_be_undone_is_made_only(server, scripts):
    migrations = scripts(
        **{"01": CREATE, "02": "CREATE VIEW names AS SELECT name FROM users", "02__down": "DROP VIEW names"},
        **{"03": "ALTER TABLE users ADD age int", "03__down": "ALTER TABLE users DROP age"},
    )
    what = checked(server, replace(migrations, downgrade_to="01"), **{"01": add_users})
    for title in ("up and down", "base is empty"):
        assert (await CHECKS[title](what)).startswith("2 revision(s)")
    assert await CHECKS["data survives"](what)
    unknown = await told("data survives", checked(server, migrations, first=""))
    assert 'Rows are given for the revision "first", which is not there. There are: 01, 02, 03.' in unknown
    unknown = await told("base is empty", checked(server, replace(migrations, downgrade_to="04")))
    assert 'downgrade-to names the revision "04", which is not there. There are: 01, 02, 03.' in unknown
    with pytest.raises(NotApplicable, match="nothing comes after 03"):
        await CHECKS["up and down"](checked(server, replace(migrations, downgrade_to="03")))


async def test_made_again_it_must_be_the_same(server, scripts):
    migrations = scripts(
        **{
            "01": "CREATE TABLE counted (runs int); CREATE SEQUENCE runs",
            "01__down": "DROP TABLE counted; DROP SEQUENCE runs",
        },
        **{
            "02": "DO $$ BEGIN EXECUTE format('COMMENT ON TABLE counted IS %L', nextval('runs')); END $$",
            "02__down": "COMMENT ON TABLE counted IS NULL",
        },
    )
    again = await told("up and down", checked(server, migrations))
    assert "02 makes another schema the second time" in again
    assert "-comment on table public.counted: 1\n+comment on table public.counted: 2" in again


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (("1_a", "2_b", "2_c"), "Several scripts have the number 2: 2_b.sql, 2_c.sql. Renumber one."),
        (("10_b", "9_a"), "10_b.sql runs before 9_a.sql, for scripts run in the order of their names"),
        (("V10_b", "V9_a"), "Give all numbers as many digits: 09"),
    ],
)
async def test_places_of_scripts(server, scripts, names, fault):
    assert fault in await told("single head", checked(server, scripts(**dict.fromkeys(names, ""))))


async def test_rows_of_the_settings_folder_are_put_in(server, scripts, tmp_path):
    migrations = scripts(
        **{"01": CREATE, "01__down": "DROP TABLE users", "02": "DELETE FROM users", "02__down": "SELECT 1"},
    )
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "01.sql").write_text("INSERT INTO users (name) VALUES ('ann')")
    with_rows = Migrations(sql=migrations.sql, round_trip=tmp_path / "rows")
    lost = await told("data survives", checked(server, with_rows))
    assert "Rows don't survive 02" in lost and "- {'id': 1, 'name': 'ann'}" in lost
    (tmp_path / "rows" / "01.sql").write_text("INSERT INTO nowhere VALUES (1)")
    assert 'The rows of 01 can\'t be put in: relation "nowhere"' in await told(
        "data survives", checked(server, with_rows)
    )


async def test_a_command_can_only_be_run(server):
    code = "import asyncio, asyncpg, os; asyncio.run(asyncpg.connect(os.environ['DATABASE_URL']))"
    what = checked(server, Migrations(command=(sys.executable, "-c", code)), **{"01": ""})
    assert await CHECKS["upgrade"](what) == "an empty database comes up to date"
    for title in CHECKS.keys() - {"upgrade"}:
        with pytest.raises(NotApplicable, match="by a command"):
            await CHECKS[title](what)
