"""Rows that every test starts with: loaded into the template from files of each kind."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from asynctest_kit.errors import MigrationError
from asynctest_kit.isolation.postgres import connect
from asynctest_kit.isolation.templates import ensure_template, open_clone
from asynctest_kit.provision.migration_files import fingerprint
from asynctest_kit.settings import Migrations

pytestmark = pytest.mark.anyio

SCHEMA = """
    CREATE SCHEMA shop;
    CREATE TABLE users (
        id serial PRIMARY KEY, name text NOT NULL, nick text DEFAULT 'none', tags text[], facts jsonb, born date,
        active bool, picture bytea
    );
    CREATE TABLE shop."Orders" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, buyer int NOT NULL REFERENCES users);
    CREATE TABLE shop.late (buyer int REFERENCES users DEFERRABLE INITIALLY DEFERRED);
"""

YAML = """
users:
  - {id: 7, name: "O'Neil, \\"Ann\\"", tags: [a, "b,\\"c\\"", null, 'back\\slash'], facts: {a: [1, null]},
     born: 2001-02-03, active: true}
  - {id: 8, name: '', nick: null, facts: text, picture: !!binary aGV5}
shop."Orders":
  - {id: 40, buyer: 7}
"""


@pytest.fixture
def seeded(tmp_path):
    def write(**files):
        (tmp_path / "sql").mkdir(exist_ok=True)
        (tmp_path / "seeds").mkdir(exist_ok=True)
        (tmp_path / "sql" / "1.sql").write_text(f"{SCHEMA} -- {uuid.uuid4()}")
        for name, text in files.items():
            stem, _, ending = name.rpartition("__")
            (tmp_path / "seeds" / f"{stem}.{ending}").write_text(text)
        return Migrations(sql=tmp_path / "sql", seeds=(tmp_path / "seeds",))

    return write


async def rows_of(server, migrations, query):
    async with open_clone(await ensure_template(server, migrations, root=Path("/"))) as clone:
        connection = await connect(clone)
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()


async def refusal(server, migrations):
    with pytest.raises(MigrationError) as caught:
        await ensure_template(server, migrations, root=Path("/"))
    return str(caught.value)


async def test_csv_and_sql_in_the_order_of_their_names(server, seeded):
    migrations = seeded(
        **{"01_users__csv": '\ufeffname,id,nick\n"Ann, of Ayr",3,\n"Bob\nTwo",4,""\n', "02-shop__txt": "not a seed"},
        **{"02__sql": "INSERT INTO users (name) SELECT 'more' FROM users WHERE id = 3"},
    )
    found = await rows_of(server, migrations, "SELECT id, name, nick FROM users ORDER BY id")
    assert found == [(1, "more", "none"), (3, "Ann, of Ayr", None), (4, "Bob\nTwo", "")]


async def test_yaml_of_every_type(server, seeded):
    pytest.importorskip("yaml")
    async with open_clone(await ensure_template(server, seeded(all__yaml=YAML), root=Path("/"))) as clone:
        connection = await connect(clone)
        first, second = await connection.fetch("SELECT * FROM users ORDER BY id")
        assert first["name"] == 'O\'Neil, "Ann"' and first["nick"] == "none" and first["active"] is True
        assert first["tags"] == ["a", 'b,"c"', None, "back\\slash"]
        assert json.loads(first["facts"]) == {"a": [1, None]} and str(first["born"]) == "2001-02-03"
        assert (second["name"], second["nick"], second["facts"], second["picture"]) == ("", None, '"text"', b"hey")
        # The sequences go on behind the rows that are there.
        assert await connection.fetchval("INSERT INTO users (name) VALUES ('next') RETURNING id") == 9
        assert await connection.fetchval('INSERT INTO shop."Orders" (buyer) VALUES (7) RETURNING id') == 41
        await connection.close()


async def test_json_named_after_its_table(server, seeded):
    migrations = seeded(users__json='[{"name": "ann"}, {}, {"name": "bob"}]')
    assert "users.json, record 2 of users, column name: null: null value in" in await refusal(server, migrations)
    migrations = seeded(users__json='[{"name": "ann"}, {"name": "bob", "nick": "b"}]')
    assert await rows_of(server, migrations, "SELECT id, nick FROM users") == [(1, "none"), (2, "b")]


async def test_seeds_count_for_the_template_and_what_is_kept(server, seeded, tmp_path):
    migrations = seeded(users__json='[{"name": "ann"}]')
    before = fingerprint(migrations)
    assert await rows_of(server, migrations, "SELECT name FROM users") == [("ann",)]
    (tmp_path / "seeds" / "users.json").write_text('[{"name": "bob"}]')
    assert fingerprint(migrations) != before
    assert await rows_of(server, migrations, "SELECT name FROM users") == [("bob",)]


async def test_seeds_alone(server, tmp_path):
    (tmp_path / "all.sql").write_text(f"CREATE TABLE one AS SELECT 1 AS a -- {uuid.uuid4()}")
    assert await rows_of(server, Migrations(seeds=(tmp_path / "all.sql",)), "TABLE one") == [(1,)]


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        (
            "users__csv",
            'name,born\n"a\nn",2001-01-01\nbob,soon\n',
            ['users.csv, line 4, column born: "soon": invalid input syntax for type date: "soon"'],
        ),
        ("users__csv", "id,name\n1,ann\n2,\n", ["users.csv, line 3, column name: null: null value in column"]),
        ("users__csv", "id,name\n1,ann\n1,bob\n", ['users.csv, line 3, column id: "1": duplicate key value']),
        ("users__csv", "id,name\n1,ann\n2\n", ['users.csv, line 3: "2": missing data for column "name"']),
        (
            "users__csv",
            'id,name,facts\n1,ann,"{"',
            ['users.csv, line 2, column facts: "{": ', "\nJSON data, line 1: {"],
        ),
        ("user__csv", "name\nann\n", ["No table is called 'user'", "Did you mean 'users'?", "users"]),
        ("users__csv", "nme\nann\n", ['users.csv, line 1: column "nme"']),
        ("users__json", '[{"name": "a"}, {"nme": 1}]', ['users.json, record 2 of users: column "nme"']),
        (
            "users__json",
            '[{"name": "a\\nb\\n", "born": "now"}, {"name": "c\\n", "born": "soon"}, {"name": "d", "born": "now"}]',
            ['users.json, record 2 of users, column born: "soon": invalid'],
        ),
        ("users__json", '{"users": {"name": "ann"}}', ["users.json", "a list of rows is needed"]),
        ("users__yaml", "users:\n", ["users.yaml", "a list of rows is needed"]),
        ("users__json", "5", ["users.json", "a list of rows is needed"]),
        ("users__json", "[{]", ["users.json", "line 1 column 3"]),
        ("users__yaml", "- [", ["users.yaml", "line 1, column 4"]),
        (
            "02__sql",
            "SELECT 1;\nINSERT INTO nowhere VALUES (1)",
            ["The seed of postgres failed in", "02.sql, line 2", "nowhere"],
        ),
        ("orders__json", '{"shop.\\"Orders\\"": [{"buyer": 5}]}', ["Orders_buyer_fkey", "(buyer)=(5)"]),
        (
            "all__json",
            '{"users": [{"id": 4, "name": "a"}], "shop.\\"Orders\\"": [{"buyer": 4}, {"buyer": 5}]}',
            ['all.json, record 2 of shop."Orders", column buyer: "5": insert or update on table "Orders" violates'],
        ),
        ("shop.late__csv", "buyer\n4\n5\n", ['shop.late.csv, line 2, column buyer: "4": insert or update']),
        ("users__json", '[{"name": "a"}, 5]', ["a list of rows is needed", "; record 2 is something else"]),
    ],
)
async def test_a_seed_that_does_not_fit_is_named(server, seeded, file, text, words):
    message = await refusal(server, seeded(**{file: text}))
    for word in ("seed", *words):
        assert word in message


async def test_an_empty_folder_is_a_mistake(server, seeded):
    assert "holds no seeds" in await refusal(server, seeded())


async def test_a_seed_is_loaded_whole_or_not_at_all(server, seeded, tmp_path):
    """A template whose seeds failed is built again: nobody gets half of them."""
    bad = seeded(users__json='{"users": [{"name": "ann"}], "nowhere": []}')
    await refusal(server, bad)
    (tmp_path / "seeds" / "users.json").write_text('[{"name": "ann"}]')
    assert await rows_of(server, bad, "SELECT count(*) FROM users") == [(1,)]
