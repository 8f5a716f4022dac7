"""What a query text begins with, and whether it only reads."""

from __future__ import annotations

import pytest

from asynctest_kit.isolation.statements import heads, locks_rows, only_reads


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
