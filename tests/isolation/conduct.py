"""Code that behaves well: what it does to a database, drawn at random, and what it sees there.

The same conduct sees the same on a database of its own, through asyncpg's own pool, as in a test's transaction beside
sixty others. It uses one connection at a time, keys and tables of its number alone, and expects all of the rest to be
as the migrations left it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

import asyncpg
from hypothesis import strategies as st

#: ``notes`` is locked by its first statement: tests that change the table's schema can only be waited for then.
SCHEMA = """
CREATE TABLE notes (id serial PRIMARY KEY, text text NOT NULL UNIQUE, version int NOT NULL DEFAULT 0);
INSERT INTO notes (text) VALUES ('seed 1'), ('seed 2');
CREATE TABLE parents (id bigint PRIMARY KEY);
CREATE TABLE children (
    id bigint PRIMARY KEY,
    parent bigint NOT NULL CONSTRAINT children_parent REFERENCES parents DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE attacked (id int PRIMARY KEY, text text);
INSERT INTO attacked VALUES (1, 'one'), (2, 'two');
CREATE SEQUENCE tickets;
"""

#: What to undo where nothing is rolled back.
CLEAN = "DELETE FROM children; DELETE FROM parents; DELETE FROM notes WHERE text NOT LIKE 'seed _'"

#: In a failed transaction, whichever is first: the time-out, or the server's refusal.
_INTERRUPTED = {"cancel", "time_out"}

_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)
_SLEEP = "SELECT pg_sleep(3)"  # not for ever: a cancellation that comes before its statement is lost


class Stop(Exception):  # noqa: N818  # nothing is wrong
    """Ends a transaction."""


@dataclass(frozen=True, slots=True)
class Step:
    """A statement or several, by name; ``key`` is which of the keys of the conduct it is about."""

    name: str
    key: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """Steps on one connection.

    Attributes:
        begin: ``""`` for none, ``api`` for ``transaction()``, ``text`` for BEGIN or SAVEPOINT, ``readonly``.
        end: ``commit``, ``rollback``, ``raise``, ``cancel`` in the middle of a statement, or ``release`` as it is.
        steps: What is done; a block inside one is nested.
    """

    begin: str
    end: str
    steps: tuple[Step | Block, ...]


@dataclass(frozen=True, slots=True)
class Conduct:
    """All that one test does; each block on a connection that it acquires."""

    blocks: tuple[Block, ...]


@dataclass
class Watched:
    """A conduct on its way."""

    number: int
    seen: list[object] = field(default_factory=list)

    def text(self, key: int) -> str:
        return f"{self.number}:{key}"

    def id(self, key: int) -> int:
        return self.number * 100 + key

    def note(self, value: object) -> None:
        self.seen.append(value)


async def act(conduct: Conduct, number: int, pool: asyncpg.Pool) -> list[object]:
    """Everything that it saw: answers, and the names of errors."""
    watched = Watched(number)
    await pool.execute("INSERT INTO notes (text) VALUES ($1)", watched.text(-1))
    for block in conduct.blocks:
        async with pool.acquire() as connection:
            await _run_block(block, connection, watched, depth=0)
    for table in ("notes", "parents", "children"):
        order = "text" if table == "notes" else "id"
        columns = "text, version" if table == "notes" else "*"
        rows = await pool.fetch(f"SELECT {columns} FROM {table} ORDER BY {order}")
        watched.note([tuple(row) for row in rows])
    return watched.seen


async def _run_block(block: Block, connection, watched: Watched, *, depth: int) -> None:
    try:
        if block.begin == "text":
            await _run_text(block, connection, watched, depth=depth)
        elif block.begin:
            await _run_api(block, connection, watched, depth=depth)
        else:
            await _run_steps(block, connection, watched, depth=depth)
    except Stop:
        watched.note("stopped")
    except _ERRORS as error:
        watched.note("interrupted" if block.end == "cancel" else type(error).__name__)


async def _run_api(block: Block, connection, watched: Watched, *, depth: int) -> None:
    async with asyncio.timeout(None) as limit:
        transaction = connection.transaction(readonly=block.begin == "readonly")
        if block.end in {"rollback", "release"}:
            await transaction.start()
            await _run_steps(block, connection, watched, depth=depth + 1)
            if block.end == "rollback" or depth:
                await transaction.rollback()
            return

        async with transaction:
            await _run_steps(block, connection, watched, depth=depth + 1)
            if block.end == "cancel":
                limit.reschedule(asyncio.get_running_loop().time())
                await connection.fetch(_SLEEP)
            if block.end == "raise":
                raise Stop


async def _run_text(block: Block, connection, watched: Watched, *, depth: int) -> None:
    begin, commit, roll_back = (
        (f"SAVEPOINT s{depth}", f"RELEASE s{depth}", f"ROLLBACK TO s{depth}") if depth else ("BEGIN", "COMMIT", "ABORT")
    )
    watched.note(await connection.execute(begin))
    await _run_steps(block, connection, watched, depth=depth + 1)
    if block.end == "commit":
        watched.note(await connection.execute(commit))
    elif block.end != "release" or depth:
        watched.note(await connection.execute(roll_back))


async def _run_steps(block: Block, connection, watched: Watched, *, depth: int) -> None:
    for step in block.steps:
        if isinstance(step, Block):
            await _run_block(step, connection, watched, depth=depth)
            continue
        try:
            watched.note((step.name, await _STEPS[step.name](connection, watched, step.key)))
        except _ERRORS as error:
            watched.note((step.name, "interrupted" if step.name in _INTERRUPTED else type(error).__name__))


async def _insert(connection, watched, key):
    return await connection.execute("INSERT INTO notes (text) VALUES ($1)", watched.text(key))


async def _returning(connection, watched, key):
    return await connection.fetchval("INSERT INTO notes (text) VALUES ($1) RETURNING text", watched.text(key))


async def _update(connection, watched, key):
    return await connection.execute("UPDATE notes SET version = version + 1 WHERE text = $1", watched.text(key))


async def _delete(connection, watched, key):
    return await connection.execute("DELETE FROM notes WHERE text = $1", watched.text(key))


async def _read(connection, watched, _):
    return [tuple(row) for row in await connection.fetch("SELECT text, version FROM notes ORDER BY text")]


async def _lock(connection, watched, key):
    return await connection.fetchval("SELECT text FROM notes WHERE text = $1 FOR UPDATE", watched.text(key))


async def _divide(connection, watched, key):
    return await connection.fetchval("SELECT 1 / $1::int", 0)


async def _misspell(connection, watched, key):
    return await connection.execute("SELEC 1")


async def _add_orphan(connection, watched, key):
    return await connection.execute("INSERT INTO children VALUES ($1, $1)", watched.id(key))


async def _add_parent(connection, watched, key):
    return await connection.execute("INSERT INTO parents VALUES ($1)", watched.id(key))


async def _check_now(connection, watched, key):
    return await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")


async def _add_many(connection, watched, key):
    return await connection.executemany(
        "INSERT INTO notes (text) VALUES ($1)", [(watched.text(key),), (watched.text(key + 1),)]
    )


async def _copy(connection, watched, key):
    records = [(watched.id(key),), (watched.id(key + 1),)]
    return await connection.copy_records_to_table("parents", records=records, columns=["id"])


async def _prepare(connection, watched, key):
    statement = await connection.prepare("SELECT count(*) FROM notes WHERE text = $1")
    return await statement.fetchval(watched.text(key))


async def _scroll(connection, watched, key):
    return [row[0] async for row in connection.cursor("SELECT text FROM notes ORDER BY text", prefetch=2)]


async def _time_out(connection, watched, key):
    try:
        return await connection.execute(_SLEEP, timeout=0.01)
    finally:
        await _wait_for_cancellation(connection)


async def _cancel(connection, watched, key):
    try:
        async with asyncio.timeout(0.01):
            return await connection.fetch(_SLEEP)
    finally:
        await _wait_for_cancellation(connection)


async def _wait_for_cancellation(connection):
    """Of two in quick succession asyncpg may lose the connection, whoever gave it."""
    with suppress(asyncpg.InFailedSQLTransactionError, asyncpg.DivisionByZeroError):
        # Under load it may have come before the statement was sent, and the transaction would not have failed.
        await connection.execute("SELECT 1 / 0")


async def _create(connection, watched, key):
    return await connection.execute(f"CREATE TABLE own_{watched.number} (id int PRIMARY KEY, word text)")


async def _alter(connection, watched, key):
    return await connection.execute(f"ALTER TABLE own_{watched.number} ALTER word TYPE int USING word::int")


async def _fill(connection, watched, key):
    return await connection.execute(f"INSERT INTO own_{watched.number} VALUES ({key}, '{key}')")


async def _look(connection, watched, key):
    return [tuple(row) for row in await connection.fetch(f"SELECT * FROM own_{watched.number} ORDER BY id")]


async def _drop(connection, watched, key):
    return await connection.execute(f"DROP TABLE own_{watched.number}")


async def _is_inside(connection, watched, key):
    return connection.is_in_transaction()


async def _begin_again(connection, watched, key):
    return await connection.execute("BEGIN")


async def _commit_early(connection, watched, key):
    return await connection.execute("COMMIT")


_STEPS = {
    function.__name__.strip("_"): function
    for function in (
        _insert, _returning, _update, _delete, _read, _lock, _divide, _misspell, _add_orphan, _add_parent, _check_now,
        _add_many, _copy, _prepare, _scroll, _time_out, _cancel, _create, _alter, _fill, _look, _drop, _is_inside,
        _begin_again, _commit_early,
    )
}  # fmt: skip

#: More often what changes rows.
_NAMES = ["insert", "read", "add_orphan", "add_parent", *_STEPS]
_CONTROL = {"begin_again", "commit_early"}

_KEYS = st.integers(0, 2)
_ALL = st.builds(Step, st.sampled_from(_NAMES), _KEYS)
#: asyncpg loses count of its own transactions where texts end them.
_INSIDE = st.builds(Step, st.sampled_from([name for name in _NAMES if name not in _CONTROL]), _KEYS)
_API = st.sampled_from(["api", "readonly"])
_ENDS = st.sampled_from(["commit", "commit", "rollback", "raise", "cancel", "release"])


def _blocks(begins, steps) -> st.SearchStrategy[Block]:
    return st.builds(Block, begins, _ENDS, st.lists(steps, min_size=1, max_size=4).map(tuple))


_SAVEPOINTS = _blocks(st.just("text"), _INSIDE)
_IN_API = _INSIDE | _SAVEPOINTS | _blocks(_API, _INSIDE | _SAVEPOINTS)
_IN_TEXT = _ALL | _SAVEPOINTS | _blocks(_API, _INSIDE)
_OUTER = _blocks(st.just(""), _ALL) | _blocks(_API, _IN_API) | _blocks(st.just("text"), _IN_TEXT)


def conducts(most: int = 4) -> st.SearchStrategy[Conduct]:
    """Conducts of up to ``most`` blocks."""
    return st.builds(Conduct, st.lists(_OUTER, min_size=1, max_size=most).map(tuple))
