"""What a query text begins with, and whether it only reads."""

from __future__ import annotations

import pytest

from asynctest_kit.isolation.statements import (
    heads,
    locks_rows,
    makes_code,
    only_reads,
    sets_custom,
    settings_of,
    without_level,
)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ()),
        (" ; -- nothing\n /* at all */ ;", ()),
        ("select 1", (("SELECT",),)),
        ("begin; Commit;", (("BEGIN",), ("COMMIT",))),
        ("SELECT ';', \"a;b\", E'\\';', 'it''s;'", (("SELECT",),)),
        ("DO $body$ BEGIN; $$ x; $$ END; $body$; SELECT 1", (("DO",), ("SELECT",))),
        ("SELECT 1 AS a$$; COMMIT; SELECT 2 AS b$$", (("SELECT", "AS", "A"), ("COMMIT",), ("SELECT", "AS", "B"))),
        ("/* /* /* ; */ */ ' */ COMMIT; /* ' */", (("COMMIT",),)),
        ("/* " * 500 + "COMMIT", (("COMMIT",),)),
        ("SELECT $1; SELECT $2", (("SELECT",), ("SELECT",))),
        ("ROLLBACK TO SAVEPOINT a", (("ROLLBACK", "TO", "SAVEPOINT"),)),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; COMMIT",
            (("CREATE", "FUNCTION", "F"), ("COMMIT",)),
        ),
    ],
)
def test_heads(query, expected):
    assert heads(query) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT * FROM notes WHERE id = ANY($1) AND lower(text) IN ('a', 'b(')", True),
        ("SELECT count(*) FROM notes FOR NO KEY UPDATE", True),
        ("WITH a AS (SELECT 1) SELECT * FROM a", True),
        ("SELECT nextval('notes_id_seq')", False),
        ("SELECT public.count(1)", False),
        ('SELECT "count"(1)', False),
        ('SELECT public."count" (1)', False),
        ('SELECT "user".id FROM "user" WHERE "user".id IN ($1, $2)', True),
        ("SELECT * INTO copies FROM notes", False),
        ("WITH a AS (DELETE FROM notes RETURNING id) SELECT * FROM a", False),
        ("SELECT 1; DELETE FROM notes", False),
        ("TABLE notes", False),
        ("INSERT INTO notes VALUES (1)", False),
    ],
)
def test_only_reads(query, expected):
    assert only_reads(query) is expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT * FROM notes for update SKIP LOCKED", True),
        ("SELECT * FROM notes FOR NO KEY UPDATE OF notes", True),
        ("SELECT * FROM notes FOR KEY SHARE", True),
        ("SELECT 'FOR UPDATE', \"for share\" FROM notes -- FOR UPDATE", False),
    ],
)
def test_locks_rows(query, expected):
    assert locks_rows(query) is expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SET app.tenant = '7'", True),
        ("SELECT 1;\nset  local\n\"app\" . tenant to '7'", True),
        ('SET SESSION "app.tenant" = 1', True),
        ("SELECT set_config('app.tenant', $1, true)", True),
        ("SELECT set_config($1, $2, true)", True),
        ('SELECT pg_catalog."set_config" ($1, $2, true)', True),
        ("DO $$ BEGIN PERFORM set_config('app.' || 'tenant', '7', true); END $$", True),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql SET app.tenant = 1 AS 'SELECT 1'", True),
        ("SET LOCAL statement_timeout TO 1.5", False),
        ("SELECT set_config('search_path', 'app.x', true)", False),
        ("UPDATE notes SET text = notes.text", False),
        (without_level("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"), False),
    ],
)
def test_sets_custom(query, expected):
    assert sets_custom(query) is expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("CREATE FUNCTION index() RETURNS int LANGUAGE sql AS 'SELECT 1'", True),
        ("CREATE OR REPLACE TEMP VIEW v AS TABLE notes", True),
        ("CREATE TEMP VIEW v AS TABLE notes", True),
        ("CREATE SCHEMA own CREATE VIEW v AS TABLE notes", True),
        ("ALTER FUNCTION f() VOLATILE", True),
        ("DO $$ BEGIN END $$", True),
        ("CREATE TEMPORARY TABLE view (id int)", False),
        ("CREATE UNIQUE INDEX ON notes (id)", False),
        ("ALTER TABLE notes ADD function int", False),
        ("DROP VIEW v", False),
        ("INSERT INTO view VALUES (1)", False),
    ],
)
def test_makes_code(query, expected):
    assert makes_code(heads(query)[0]) is expected


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("SET app.tenant = 7", {'"app"."tenant"'}),
        ("set session Search_Path TO a, b; SELECT 1", {'"Search_Path"'}),
        ("SELECT 1;\nSET TIME  ZONE 'UTC'", {'"timezone"'}),
        ("SET NAMES 'utf8'; SET SCHEMA 'a'", {'"client_encoding"', '"search_path"'}),
        ('SET "app"."tenant" = 7', {"ALL"}),
        ("SELECT set_config('app.user', 'a, ''b''', false)", {'"app"."user"'}),
        ("SELECT set_config($1, $2, false)", {"ALL"}),
        ("SELECT set_config('app.user', $1, true)", set()),
        ("SET LOCAL app.tenant = 7", set()),
        ("SET TRANSACTION READ ONLY; SET CONSTRAINTS ALL DEFERRED; SET ROLE reader", set()),
        ("UPDATE notes SET text = '; SET app.tenant = 7' -- ; SET a.b = 1", set()),
        ("SELECT 1 OFFSET 2", set()),
    ],
)
def test_what_a_session_keeps_set(query, names):
    assert settings_of(query) == names
