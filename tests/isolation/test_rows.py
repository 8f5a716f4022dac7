"""Rows that a test makes, states of tables that it compares, and what it clears up."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import uuid

import asyncpg
import pytest

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.builders import RowMaker
from asynctest_kit.isolation.cleanups import Cleanups
from asynctest_kit.isolation.table_state import TableState
from asynctest_kit.isolation.templates import ensure_template, open_clone
from asynctest_kit.settings import Migrations

pytestmark = pytest.mark.anyio

SCHEMA = """
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE DOMAIN short AS varchar(6) NOT NULL;
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TABLE people (
        id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, code short, size positive NOT NULL,
        badge int NOT NULL UNIQUE, mood mood NOT NULL, born date NOT NULL, seen timestamptz NOT NULL DEFAULT now(),
        token uuid NOT NULL, facts jsonb NOT NULL, tags text[] NOT NULL, span int4range NOT NULL,
        price numeric NOT NULL, active bool NOT NULL, raw bytea NOT NULL, nick text,
        lower text GENERATED ALWAYS AS (lower(name)) STORED
    );
    CREATE TABLE places (country text, city text, PRIMARY KEY (country, city));
    CREATE TABLE "Orders" (
        id serial PRIMARY KEY, buyer int NOT NULL REFERENCES people, gift_for int REFERENCES people,
        country text NOT NULL, city text NOT NULL, "select" int NOT NULL CHECK ("select" > 5),
        FOREIGN KEY (country, city) REFERENCES places
    );
    CREATE TABLE hens (id int PRIMARY KEY, egg int NOT NULL);
    CREATE TABLE eggs (id int PRIMARY KEY, hen int NOT NULL REFERENCES hens);
    ALTER TABLE hens ADD FOREIGN KEY (egg) REFERENCES eggs DEFERRABLE;
    CREATE TABLE shapes (line line NOT NULL);
    CREATE TABLE plain (a int, b json);
"""


@pytest.fixture(scope="module")
async def migrated(server, tmp_path_factory, anyio_backend):
    folder = tmp_path_factory.mktemp("sql")
    (folder / "1.sql").write_text(SCHEMA)
    return await ensure_template(server, Migrations(sql=folder), root=folder)


@pytest.fixture
async def database(migrated, anyio_backend):
    async with open_clone(migrated) as endpoint:
        yield endpoint


async def test_what_matters_to_nobody_is_filled_in(lease):
    async with lease() as (pg, pool):
        make = RowMaker(pg)
        ann, other = await make("people", nick="ann"), await make("people", born=dt.date(2001, 2, 3))
        assert ann["nick"] == "ann" and other["nick"] is None and str(other["born"]) == "2001-02-03"
        for column in ("id", "name", "code", "badge", "token"):
            assert ann[column] != other[column]
        assert (ann["size"], ann["mood"], ann["facts"], ann["tags"], ann["price"]) == (1, "sad", "{}", [], 1)
        assert isinstance(ann["token"], uuid.UUID) and ann["span"].isempty and ann["lower"] == ann["name"]
        assert await pool.fetchval("SELECT count(*) FROM people") == 2
        assert (await make("people", id=4711))["id"] == 4711  # though it is GENERATED ALWAYS


async def test_foreign_keys_get_rows_of_their_own(lease):
    async with lease() as (pg, _):
        make = RowMaker(pg)
        order = await make('"Orders"', select=6)
        assert await pg.fetchval("SELECT name FROM people WHERE id = $1", order["buyer"])
        assert order["gift_for"] is None
        again = await make('public."Orders"', select=7, buyer=order["buyer"], country="Scotland")
        assert await pg.fetchval("SELECT count(*) FROM people") == 1
        assert await pg.fetchval("SELECT city FROM places WHERE country = 'Scotland'") == again["city"]
        assert (await make("plain"))["a"] is None


async def test_rows_are_gone_with_their_test(slots, lease):
    async with lease() as (pg, _):
        await RowMaker(pg)("people")
    async with lease() as (pg, _):
        assert await TableState(pg)("people") == []


async def test_sixty_four_tests_at_once_do_not_wait_for_each_other(lease):
    async def one():
        async with lease() as (pg, _):
            return (await RowMaker(pg)("people"))["name"]

    assert len(set(await asyncio.gather(*(one() for _ in range(64))))) == 64


async def test_what_can_not_be_made_is_told(lease):
    async with lease() as (pg, _):
        make = RowMaker(pg)
        with pytest.raises(asyncpg.CheckViolationError) as caught:
            await make('"Orders"')
        assert caught.value.__notes__[-1] == "atk: pg_make('\"Orders\"') had filled in: select = '1'"
        for table, values, message in (
            ("peple", {}, r"No table is called 'peple'. Did you mean 'people'\? There are: "),
            ("a b;", {}, "No table is called 'a b;'"),
            ("people", {"nam": 1}, r"people has no column nam. Did you mean name\? It has: id, name"),
            ("hens", {}, "Rows of hens and eggs need each other"),
            ("shapes", {}, "No value is known for shapes.line, which is of the type line: give it"),
        ):
            with pytest.raises(IsolationError, match=message):
                await make(table, **values)
        assert await make("people")  # the test goes on


async def test_state_is_plain_data_in_a_stable_order(lease):
    async with lease() as (pg, _):
        state = TableState(pg)
        await pg.execute("INSERT INTO places VALUES ('b', 'x'), ('a', 'z'), ('a', 'y')")
        await pg.execute("""INSERT INTO plain VALUES (2, '{"a": 1}'), (1, NULL), (1, '[]')""")
        before = await state.tables("places", "plain")
        assert before["places"] == [
            {"country": "a", "city": "y"},
            {"country": "a", "city": "z"},
            {"country": "b", "city": "x"},
        ]
        assert await state("plain", without=["b"]) == [{"a": 1}, {"a": 1}, {"a": 2}]
        assert sorted(await state.tables()) == ['"Orders"', "eggs", "hens", "people", "places", "plain", "shapes"]
        await pg.execute("UPDATE places SET city = 'w' WHERE city = 'y'")
        after = await state.tables("places", "plain")
        assert state.diff(before, after) == (
            "places:\n- {'country': 'a', 'city': 'y'}\n+ {'country': 'a', 'city': 'w'}"
        )
        assert state.diff(before["places"], after["places"]) == state.diff(before, after).removeprefix("places:\n")
        assert state.diff(after, after) == ""
        assert state.diff(before, {"plain": before["plain"]}) == "places: the table is gone, with 3 row(s)"
        assert state.diff({}, {"plain": []}) == "plain: the table is new, with 0 row(s)"
        with pytest.raises(IsolationError, match=r"places has no column town. It has: country, city"):
            await state("places", without=["town"])


async def test_a_side_door_is_gone_with_the_clone(migrated, server):
    async with open_clone(migrated) as clone:
        connection = await asyncpg.connect(clone.url)
        await RowMaker(connection)("people")
        await connection.close()
        again = await asyncpg.connect(clone.url)
        assert len(await TableState(again)("people")) == 1  # committed
        await again.close()
    async with open_clone(migrated) as other:
        connection = await asyncpg.connect(other.url)
        assert await TableState(connection)("people") == []
        await connection.close()


async def test_clean_ups_run_in_reverse_whatever_fails():
    done, cleanups = [], Cleanups()

    async def undo(what, *, fails=False):
        await asyncio.sleep(0)
        done.append(what)
        if fails:
            raise ValueError(what)

    cleanups(done.append, "first")
    cleanups(undo, "second", fails=True)
    cleanups(undo, "third", fails=True)
    cleanups(lambda: cleanups(done.append, "late"))
    with pytest.raises(ExceptionGroup, match="several clean-ups failed") as caught:
        await cleanups.run()
    assert done == ["late", "third", "second", "first"]
    assert [str(error) for error in caught.value.exceptions] == ["third", "second"]
    cleanups(undo, "alone", fails=True)
    with pytest.raises(ValueError, match="alone"):
        await cleanups.run()


async def test_clean_ups_run_though_one_is_cancelled():
    done, cleanups, waits = [], Cleanups(), asyncio.Event()

    async def hang():
        waits.set()
        await asyncio.Event().wait()

    async def undo():
        await asyncio.sleep(0)
        done.append("undone")

    cleanups(undo)
    cleanups(hang)
    task = asyncio.create_task(cleanups.run())
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["undone"]


async def test_json_is_a_text_until_a_codec_makes_it_a_value(lease):
    async with lease() as (pg, _):
        make, state = RowMaker(pg), TableState(pg)
        with pytest.raises(asyncpg.DataError, match="expected str, got dict"):
            await make("plain", b={"key": 1})
        assert (await make("plain", b='{"key": 1}'))["b"] == '{"key": 1}'
        assert await state("plain") == [{"a": None, "b": '{"key": 1}'}]
        await pg.set_type_codec("json", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
        assert (await make("plain", a=2, b={"key": [2]}))["b"] == {"key": [2]}
        assert [row["b"] for row in await state("plain", without=["a"])] == [{"key": 1}, {"key": [2]}]
