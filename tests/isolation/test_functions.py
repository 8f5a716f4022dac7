"""What a database's functions do unseen, on a real server."""

from __future__ import annotations

import asyncpg
import pytest

from asynctest_kit.isolation.functions import FUNCTIONS, Effects, effects_of
from asynctest_kit.isolation.postgres import connect

pytestmark = pytest.mark.anyio

ADD = "CREATE FUNCTION add() RETURNS int LANGUAGE sql AS $$ INSERT INTO notes (text) VALUES ('v') RETURNING id $$"
CALLS_ADD = "CREATE FUNCTION calls() RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN public.add(); END $$"
TENANT = "CREATE FUNCTION tenant() RETURNS text LANGUAGE sql AS $$ SELECT current_setting('app.tenant', true) $$"
ENTER = "CREATE FUNCTION enter(t int) RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.tenant', t::text, true) $$"
STAMP = "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET LOCAL app.by = 1; RETURN NEW; END $$"
READS_WRITE = Effects(reads_may_write=True)


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ((ADD, CALLS_ADD, "CREATE VIEW v AS TABLE notes"), Effects()),
        ((ADD, "ALTER TABLE parents ADD note int DEFAULT add()"), Effects()),
        ((TENANT, "CREATE POLICY own ON notes USING (text = tenant())"), Effects()),
        ((ADD, "CREATE VIEW v AS SELECT add()"), READS_WRITE),
        ((ADD, CALLS_ADD, "CREATE VIEW v AS SELECT calls()"), READS_WRITE),
        ((ADD, "CREATE POLICY own ON notes USING (id <> add())"), READS_WRITE),
        ((ADD, "CREATE DOMAIN noted AS int CHECK (VALUE <> add())"), READS_WRITE),
        (
            (
                "CREATE FUNCTION lower(a int) RETURNS int LANGUAGE sql AS $$ DELETE FROM notes; SELECT a $$",
                "CREATE OPERATOR !! (FUNCTION = lower, RIGHTARG = int)",
            ),
            READS_WRITE,
        ),
        (("CREATE FUNCTION lower(a int) RETURNS int LANGUAGE sql AS $$ DELETE FROM notes; SELECT a $$",), READS_WRITE),
        ((ENTER,), Effects(setters=("enter",))),
        (("CREATE FUNCTION f() RETURNS int LANGUAGE sql SET app.a = 1 AS 'SELECT 1'",), Effects(setters=("f",))),
        (
            (
                "CREATE FUNCTION one() RETURNS int BEGIN ATOMIC SELECT 1; END",
                "CREATE FUNCTION a() RETURNS int BEGIN ATOMIC DELETE FROM notes; SELECT one(); END",
                "CREATE FUNCTION f() RETURNS text RETURN set_config('app.a', '1', true)",
                "CREATE VIEW v AS SELECT one()",
            ),
            Effects(setters=("f",)),
        ),
        (
            (
                ADD.replace("add()", "one()"),
                "CREATE FUNCTION a() RETURNS int RETURN one()",
                "CREATE VIEW v AS SELECT a()",
            ),
            READS_WRITE,
        ),
        ((STAMP,), Effects(setters=("stamp",))),
        (
            (STAMP, "CREATE TRIGGER stamped BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION stamp()"),
            Effects(setters=("stamp",), all_set=True),
        ),
        (
            (ENTER, "ALTER TABLE notes ADD tenant text DEFAULT enter(1)"),
            Effects(setters=("enter",), all_set=True),
        ),
    ],
)
async def test_effects(database, statements, expected):
    connection: asyncpg.Connection = await connect(database)
    async with connection.transaction():
        for statement in statements:
            await connection.execute(statement)
        assert effects_of(await connection.fetch(FUNCTIONS)) == expected
    await connection.close()
