"""What was committed to a run's database is found; what was rolled back, or is the template's, is not."""

from __future__ import annotations

import pytest

from asynctest_kit.isolation.escapes import Committed
from asynctest_kit.isolation.postgres import connect

pytestmark = pytest.mark.anyio


async def test_only_what_was_committed_since_the_last_look_is_told(database):
    committed = Committed(database)
    connection = await connect(database)
    assert await committed.look() == []

    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("INSERT INTO notes (text) VALUES ('gone'); CREATE TABLE gone ()")
    assert await committed.look() == []
    await transaction.rollback()
    assert await committed.look() == []

    await connection.execute("INSERT INTO notes (text) VALUES ('one'); INSERT INTO parents VALUES (1), (2)")
    assert await committed.look() == ["1 row of notes", "2 rows of parents"]
    await connection.execute("INSERT INTO notes (text) VALUES ('two'); CREATE VIEW all_notes AS TABLE notes")
    assert await committed.look() == ["the view all_notes (new or changed)", "1 row of notes"]
    assert await committed.look() == []
    committed.close()
    await connection.close()


async def test_a_locked_table_is_left_for_the_next_look(database):
    committed = Committed(database)
    connection = await connect(database)
    await connection.execute("INSERT INTO notes (text) VALUES ('one')")
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("LOCK TABLE notes")
    assert await committed.look() == []
    await transaction.rollback()
    assert await committed.look() == ["1 row of notes"]
    committed.close()
    await connection.close()


async def test_a_lost_connection_is_replaced(database):
    committed = Committed(database)
    connection = await connect(database)
    assert await committed.look() == []
    await connection.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'atk look at commits'"
    )
    await connection.execute("INSERT INTO parents VALUES (1)")
    assert await committed.look() == ["1 row of parents"]
    committed.close()
    await connection.close()
