"""Extensions, roles and settings of a service: there before its migrations, on servers of ours and of the user's."""

from __future__ import annotations

import os
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest

from asynctest_kit.errors import MigrationError
from asynctest_kit.isolation.clones import Clones
from asynctest_kit.isolation.migration_checks import CHECKS, Checked
from asynctest_kit.isolation.postgres import connect
from asynctest_kit.isolation.templates import ensure_template, open_clone, open_run_database
from asynctest_kit.provision.catalog import spec_for
from asynctest_kit.settings import Migrations, Preparation, ServiceSettings, Settings

pytestmark = pytest.mark.anyio

IMAGE = os.environ.get("ATK_POSTGRES_IMAGE") or "asynctest-kit/postgres:testbed"
ROOT = Path("/")


def preparation(*extensions, settings=None, **roles):
    return Preparation(
        extensions=extensions, roles=MappingProxyType(roles), settings=MappingProxyType(dict(settings or {}))
    )


@pytest.fixture
def migrations(tmp_path):
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "1.sql").write_text("CREATE TABLE people (name citext); GRANT SELECT ON people TO prepared_app")
    (tmp_path / "sql" / "1.down.sql").write_text("DROP TABLE people")
    return Migrations(sql=tmp_path / "sql")


@pytest.mark.parametrize("provider", ["embedded", "docker"])
async def test_they_are_there_before_the_migrations(services, migrations, provider, tmp_path):
    wanted = preparation(
        "citext", "earthdistance", settings={"work_mem": "3MB", "jit": "off"}, prepared_app="LOGIN PASSWORD 'word'"
    )
    postgres = ServiceSettings(name="prepared", kind="postgres", image=IMAGE, provider=provider, preparation=wanted)
    settings = Settings(root=tmp_path, services={"prepared": postgres}, snapshots=False)
    spec = spec_for("prepared", settings)
    assert spec.migrations, "its data are kept for what it has"
    server = await services.endpoint(spec)
    claims = []
    template = await ensure_template(server, migrations, root=ROOT, preparation=wanted, claimed=claims.append)
    assert [claim for claim in claims if claim] == [template.name.removeprefix("atk_template_")]
    async with Clones(template) as clones, clones.lease() as clone:
        connection = await connect(clone)
        assert await connection.fetchval("SHOW work_mem") == "3MB"
        assert await connection.fetchval("SHOW jit") == "off"
        found = await connection.fetchval("SELECT array_agg(extname::text ORDER BY extname) FROM pg_extension")
        assert found == ["citext", "cube", "earthdistance", "plpgsql"]
        await connection.close()
        application = await connect(msgspec.structs.replace(clone, username="prepared_app", password="word"))
        assert await application.fetchval("SELECT count(*) FROM people WHERE name = 'ANN'") == 0
        await application.close()


async def test_each_state_of_it_has_a_template(server):
    one = await ensure_template(server, None, root=ROOT, preparation=preparation("citext"))
    assert await ensure_template(server, None, root=ROOT, preparation=preparation("citext")) == one
    others = [preparation("citext", "cube"), preparation("citext", settings={"jit": "off"})]
    names = {(await ensure_template(server, None, root=ROOT, preparation=other)).name for other in others}
    assert len({one.name, *names}) == 3
    assert (await ensure_template(server, None, root=ROOT)).name is None


async def test_an_extension_that_is_not_there(server, migrations):
    with pytest.raises(MigrationError) as raised:
        await ensure_template(server, migrations, root=ROOT, preparation=preparation("citex"))
    message = str(raised.value)
    assert 'The extension "citex" can\'t be made in postgres (embedded, PostgreSQL' in message
    assert "Did you mean citext? Install it beside these binaries, or use Docker with an image that has it." in message
    assert message.splitlines()[1].startswith("Available there: "), "on a line of its own: told once in a run"
    assert " citext, " in message


async def test_words_that_make_no_role(server):
    with pytest.raises(MigrationError, match=r'The role "prepared_bad" can\'t be made in postgres.*: \'LOGON\''):
        await ensure_template(server, None, root=ROOT, preparation=preparation(prepared_bad="LOGON"))


async def test_roles_are_made_again_where_the_template_is_there(server):
    wanted = preparation("citext", prepared_again="LOGIN")
    first = await ensure_template(server, None, root=ROOT, preparation=wanted)
    connection = await connect(server)
    try:
        await connection.execute("DROP ROLE prepared_again")
        assert await ensure_template(server, None, root=ROOT, preparation=wanted) == first
        assert await connection.fetchval("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'prepared_again'")
        external = msgspec.structs.replace(server, provider="external")
        await connection.execute("ALTER ROLE prepared_again NOLOGIN")
        await ensure_template(external, None, root=ROOT, preparation=wanted)
        can_login = await connection.fetchval("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'prepared_again'")
        assert not can_login, "a role that is the user's is left as it is"
    finally:
        await connection.execute("DROP ROLE IF EXISTS prepared_again")
        await connection.close()


async def test_settings_of_a_server_of_others_are_the_databases(server, migrations):
    external = msgspec.structs.replace(server, provider="external")
    wanted = preparation(settings={"work_mem": "5MB", "application.tenant": "o'neill"})
    template = await ensure_template(external, None, root=ROOT, preparation=wanted)
    async with open_clone(template) as clone, open_run_database(template) as run:
        for endpoint in (clone, run):
            connection = await connect(endpoint)
            assert await connection.fetchval("SHOW work_mem") == "5MB"
            assert await connection.fetchval("SHOW application.tenant") == "o'neill"
            await connection.close()
    wanted = preparation("citext", settings={"shared_buffers": "16MB"})
    with pytest.raises(MigrationError, match=r'The setting "shared_buffers" can\'t be given to a database of postgres'):
        await ensure_template(external, None, root=ROOT, preparation=wanted)


async def test_migrations_are_checked_with_them(server, tmp_path):
    (tmp_path / "1.sql").write_text("CREATE TABLE people (name citext)")
    (tmp_path / "1.down.sql").write_text("DROP TABLE people")
    migrations = Migrations(sql=tmp_path)
    checked = Checked(server=server, migrations=migrations, root=ROOT, preparation=preparation("citext"))
    for title in ("upgrade", "up and down", "base is empty"):
        await CHECKS[title](checked)


async def test_who_may_make_no_extension_is_told_so(server):
    connection = await connect(server)
    await connection.execute("CREATE ROLE prepared_nobody LOGIN CREATEDB PASSWORD 'word'")
    try:
        poor = msgspec.structs.replace(server, username="prepared_nobody", password="word")
        with pytest.raises(MigrationError, match='"pageinspect" can\'t be made in postgres by prepared_nobody'):
            await ensure_template(poor, None, root=ROOT, preparation=preparation("pageinspect"))
    finally:
        await connection.execute("DROP OWNED BY prepared_nobody")
        for (name,) in await connection.fetch(
            "SELECT datname FROM pg_database WHERE datdba = 'prepared_nobody'::regrole"
        ):
            await connection.execute(f'DROP DATABASE "{name}"')
        await connection.execute("DROP ROLE prepared_nobody")
        await connection.close()
