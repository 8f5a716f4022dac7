"""Who waits for whose locks in a run's database, and for what.

The problem. Two tests that write the same unique key are kept apart by a lock: one waits until the other has ended. It
passes, only late, or its time-out fails it for what another one did. PostgreSQL knows who waits for whom; nobody asks.

The rules.

1. Nothing is asked as long as nothing waits. A look at the leases, in memory, tells whether a statement has been
   running from one look to the next; only then the server is asked, over one connection of the watch's own.
2. The server knows sessions; whose they are the leases know. A session that nobody knows is described in its own words.
3. The watch takes no lock that others want: what it reads of tables it reads with a short ``lock_timeout``.
4. What was waited for is told as exactly as the server tells it: a row by its primary key, a table, an advisory lock. A
   unique key is not in ``pg_locks``, for the waiter waits for the other's transaction; it is taken from the statement
   and the table's unique indexes.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from asynctest_kit.isolation import advisory
from asynctest_kit.isolation.postgres import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

    from asynctest_kit.isolation.sandbox import Sandbox
    from asynctest_kit.provision.service import Endpoint

__all__ = ["LockWait", "LockWatch", "Party", "watched"]

#: Seconds between two looks: a statement that was running at two of them is asked about.
_LOOK = 0.25

#: Seconds that the server has for an answer, and so many failures in a row end the watch.
_ANSWER = 5.0
_PATIENCE = 3

_NAME = "atk lock watch"

#: Longest value of a key, and longest statement, that is shown.
_LONGEST = 60
_STATEMENT = 120

_WAITS = """
WITH waiting AS MATERIALIZED (
    SELECT pid, query, application_name, extract(epoch FROM clock_timestamp() - query_start)::float8 AS seconds,
        pg_blocking_pids(pid) AS blockers
    FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND datname = current_database()
)
SELECT DISTINCT ON (waiting.pid, blocker)
    waiting.pid, waiting.query, waiting.application_name, waiting.seconds,
    blocker, holder.query AS holder_query, holder.state AS holder_state, holder.backend_type AS holder_type,
    holder.application_name AS holder_application,
    extract(epoch FROM clock_timestamp() - holder.state_change)::float8 AS holder_seconds,
    asked.locktype, asked.mode, coalesce(own.relation, asked.relation) AS relation,
    coalesce(own.relation, asked.relation)::regclass::text AS relation_name,
    coalesce(own.page, asked.page) AS page, coalesce(own.tuple, asked.tuple) AS tuple,
    asked.classid::bigint AS classid, asked.objid::bigint AS objid, asked.objsubid
FROM waiting
CROSS JOIN unnest(waiting.blockers) AS blocker
LEFT JOIN pg_stat_activity AS holder ON holder.pid = blocker
LEFT JOIN pg_locks AS asked ON asked.pid = waiting.pid AND NOT asked.granted
LEFT JOIN pg_locks AS own
    ON own.pid = waiting.pid AND own.granted AND own.locktype = 'tuple' AND asked.locktype = 'transactionid'
"""

_PRIMARY_KEY = """
SELECT array_agg(attname::text ORDER BY place)
FROM pg_index CROSS JOIN unnest(indkey) WITH ORDINALITY AS keys (attnum, place)
JOIN pg_attribute AS attribute ON attrelid = indrelid AND attribute.attnum = keys.attnum
WHERE indrelid = $1 AND indisprimary
"""

#: The unique keys of the tables that a session writes to.
_UNIQUE_KEYS = """
SELECT locks.relation::regclass::text AS relation_name, indexrelid::regclass::text AS index_name,
    array_agg(attname::text ORDER BY place) AS columns
FROM pg_locks AS locks
JOIN pg_index ON indrelid = locks.relation AND indisunique
CROSS JOIN unnest(indkey) WITH ORDINALITY AS keys (attnum, place)
LEFT JOIN pg_attribute AS attribute ON attrelid = indrelid AND attribute.attnum = keys.attnum AND keys.attnum > 0
WHERE locks.pid = $1 AND locks.granted AND locks.mode = 'RowExclusiveLock'
GROUP BY 1, 2 ORDER BY 1, 2
"""

_WRITES = re.compile(r"\b(?:INSERT\s+INTO|UPDATE(?:\s+ONLY)?|COPY)\s+([\w.\"]+)", re.IGNORECASE)
_INSERTS = re.compile(
    r"\bINSERT\s+INTO\s+[\w.\"]+(?:\s+AS\s+\w+)?\s*\(([^()]*)\)\s*VALUES\s*\((.*?)\)\s*(?:$|;|RETURNING|ON\s+CONFLICT)",
    re.IGNORECASE | re.DOTALL,
)
_PARAMETER = re.compile(r"\$(\d+)")
_COMMA = re.compile(r",(?=(?:[^']*'[^']*')*[^']*$)")


@dataclass(frozen=True, slots=True)
class Party:
    """One of the two.

    Attributes:
        name: The owner of the session, a test's node id; of a session that no test is known to own what it is.
        is_test: Whether it is a test's.
        statement: What it runs, or ran last; shortened.
    """

    name: str
    is_test: bool
    statement: str


@dataclass(frozen=True, slots=True)
class LockWait:
    """One session waits for another one's lock.

    Attributes:
        waiter: Who waits.
        holder: For whom.
        what: What for, to be read after "waits for".
        seconds: Since when.
        sessions: Its and the other's, by their processes.
    """

    waiter: Party
    holder: Party
    what: str
    seconds: float
    sessions: tuple[int, int] = (0, 0)


class LockWatch:
    """Looks now and then whether a leased sandbox waits for a lock; see the module.

    Args:
        endpoint: The database.
        others: The owners of other sessions that are known, by their process id.
        left: What else is known of sessions, of tests that have ended; in words, by their process id.
        tell: Called with all waits that there are, whenever it was asked; the last time with none.
        fail: Called if the server can't be asked, with the cause; then nothing is watched any more.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        others: Callable[[], Mapping[int, str]] = dict,
        left: Callable[[], Mapping[int, str]] = dict,
        tell: Callable[[Sequence[LockWait]], None],
        fail: Callable[[str], None],
    ) -> None:
        self._endpoint = endpoint
        self._pools: list[Mapping[Sandbox, str]] = []
        self._others = others
        self._left = left
        self._tell = tell
        self._fail = fail
        self._connection: asyncpg.Connection | None = None
        self._seen: dict[Sandbox, object] = {}
        self._past: dict[int, str] = {}
        self._any = False
        self._failures = 0

    @contextmanager
    def watching(self, leases: Mapping[Sandbox, str]) -> Iterator[None]:
        """Watch these leases, too, while the block runs: whose sandboxes there are at the time."""
        self._pools.append(leases)
        try:
            yield
        finally:
            self._pools = [one for one in self._pools if one is not leases]  # two that are empty are equal

    async def run(self) -> None:
        """Watch until cancelled, or until the server couldn't be asked."""
        try:
            while self._failures < _PATIENCE:
                await asyncio.sleep(_LOOK)
                if self._something_lasts() or self._any:
                    await self._look()
        finally:
            self._tell(())
            if self._connection is not None:
                self._connection.terminate()

    def owners(self) -> dict[int, str]:
        """Whose the sessions are that are known, by process id."""
        return {**self._others(), **{sandbox.connection.get_server_pid(): owner for sandbox, owner in self._held()}}

    def owners_of(self, pid: int) -> set[str]:
        """Whose a session is, and whose it was when it last waited or was waited for; a lease may have ended since."""
        return {owner for owner in (self.owners().get(pid), self._past.get(pid)) if owner is not None}

    def _held(self) -> list[tuple[Sandbox, str]]:
        held = (one for leases in self._pools for one in leases.items())
        return [(sandbox, owner) for sandbox, owner in held if not sandbox.connection.is_closed()]

    def _something_lasts(self) -> bool:
        """Whether a statement was running at two looks; or others have sessions, which can't be seen."""
        before = self._seen
        held = (sandbox for leases in self._pools for sandbox in leases)
        self._seen = {sandbox: sandbox.operation for sandbox in held if sandbox.busy}
        lasts = any(before.get(sandbox, self) is operation for sandbox, operation in self._seen.items())
        return lasts or bool(self._others())

    async def _look(self) -> None:
        try:
            found = await asyncio.wait_for(self._waits(), _ANSWER)
        except Exception as error:  # noqa: BLE001  # whatever it is, who watches must not end the run
            self._failures += 1
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None
            if self._failures == _PATIENCE:
                self._fail(f"{self._endpoint.safe_url} can't be asked who waits for whom: {error!r}")
            return

        self._failures = 0
        self._any = bool(found)
        self._tell(found)

    async def _waits(self) -> list[LockWait]:
        if self._connection is None:
            self._connection = await connect(self._endpoint, name=_NAME)
            await self._connection.execute("SET lock_timeout = '100ms'")
        connection = self._connection
        rows = await connection.fetch(_WAITS)
        owners = self.owners()
        left = self._left()
        by_pid = {sandbox.connection.get_server_pid(): sandbox for sandbox, _ in self._held()}
        found = []
        for row in rows:
            self._past.update((pid, owners[pid]) for pid in (row["pid"], row["blocker"]) if pid in owners)
            if row["pid"] in owners or row["blocker"] in owners:
                waiter, holder = (_party(row, owners, left, by_pid, side) for side in ("", "holder_"))
                what = await _what(connection, row, by_pid.get(row["pid"]))
                sessions = (row["pid"], row["blocker"])
                found.append(LockWait(waiter, holder, what, row["seconds"] or 0.0, sessions))
        return found


@asynccontextmanager
async def watched(watch: LockWatch) -> AsyncIterator[LockWatch]:
    """Have it watch while the block runs."""
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch.run())
        try:
            yield watch
        finally:
            watching.cancel()


def _party(
    row: Mapping[str, Any],
    owners: Mapping[int, str],
    left: Mapping[int, str],
    sandboxes: Mapping[int, Sandbox],
    side: str,
) -> Party:
    pid = row["blocker"] if side else row["pid"]
    query = row[f"{side}query"] or ""
    if pid in sandboxes:
        query = sandboxes[pid].running or query
    statement = _cut(_Text(" ".join(query.split())), _STATEMENT)
    if pid in owners:
        return Party(owners[pid], is_test=True, statement=statement)
    return Party(_described(row, pid, side, left.get(pid)), is_test=False, statement=statement)


def _described(row: Mapping[str, Any], pid: int, side: str, known: str | None) -> str:
    """A session that no running test is known to own."""
    if not pid:
        return "a prepared transaction (PREPARE TRANSACTION), which no session holds"
    application = row[f"{side or 'holder_'}application" if side else "application_name"]
    words = [f"process {pid}"]
    if application:
        words.insert(0, f'application "{application}"')
    if side:
        if (kind := row["holder_type"]) not in (None, "client backend"):
            words.insert(0, kind)
        if row["holder_state"] is not None and row["holder_state"] != "active":
            words.append(f"{row['holder_state']} for {row['holder_seconds'] or 0.0:.1f} s")
    who = known or "a session that is no test's"
    return f"{who} ({', '.join(words)})"


async def _what(connection: asyncpg.Connection, row: Mapping[str, Any], waiter: Sandbox | None) -> str:
    kind, table = row["locktype"], row["relation_name"]
    if row["tuple"] is not None and table is not None:
        return await _row(connection, row)
    if kind == "transactionid":
        return await _unique_key(connection, row, waiter)
    if kind == "relation":
        return f"the table {table} ({row['mode']})"
    if kind == "advisory":
        return f"the advisory lock {advisory.key(row['classid'], row['objid'], row['objsubid'])}"
    return f"a lock of type {kind}" if kind else "a lock"


async def _row(connection: asyncpg.Connection, row: Mapping[str, Any]) -> str:
    table = row["relation_name"]
    with suppress(asyncpg.PostgresError):  # it is locked altogether, or gone
        columns = await connection.fetchval(_PRIMARY_KEY, row["relation"])
        if columns:
            names = ", ".join(map(_quoted, columns))
            place = f"({row['page']},{row['tuple']})"
            values = await connection.fetchrow(f"SELECT {names} FROM {table} WHERE ctid = '{place}'")  # noqa: S608  # names are quoted
            if values is not None:
                pairs = zip(columns, values, strict=True)
                return f"the row of {table} with {_equal(pairs)}"
    return f"a row of {table}"


async def _unique_key(connection: asyncpg.Connection, row: Mapping[str, Any], waiter: Sandbox | None) -> str:
    query = (waiter.running if waiter is not None else "") or row["query"] or ""
    target = _WRITES.search(query)
    if target is None:
        return "the end of its transaction"
    table = target[1]
    keys = [
        key for key in await connection.fetch(_UNIQUE_KEYS, row["pid"]) if _plain(key["relation_name"]) == _plain(table)
    ]
    values = _values(query, waiter.arguments if waiter is not None else ())
    known = [key for key in keys if all(column in values for column in key["columns"])]
    if not known:
        return f"a unique key of {table}"
    told = [
        f"{key['index_name']} of {table}, {_equal((column, values[column]) for column in key['columns'])}"
        for key in known
    ]
    return f"the unique key {' or '.join(told)}"


def _values(query: str, arguments: Sequence[object]) -> dict[str, object]:
    """Which columns an INSERT of one row gives which values, as far as its text tells."""
    found = _INSERTS.search(query)
    if found is None:
        return {}
    columns = [_plain(name) for name in found[1].split(",")]
    texts = [text.strip() for text in _COMMA.split(found[2])]
    if len(columns) != len(texts):
        return {}
    return {column: _value(text, arguments) for column, text in zip(columns, texts, strict=True)}


class _Text(str):
    """SQL, to be shown as it stands."""

    __slots__ = ()
    __repr__ = str.__str__


def _value(text: str, arguments: Sequence[object]) -> object:
    parameter = _PARAMETER.fullmatch(text)
    if parameter is None:
        return _Text(text)
    number = int(parameter[1]) - 1
    return arguments[number] if number < len(arguments) else _Text(text)


def _equal(pairs: Iterable[tuple[str, object]]) -> str:
    return ", ".join(f"{column} = {_cut(value)}" for column, value in pairs)


def _cut(value: object, longest: int = _LONGEST) -> str:
    text = repr(value) if isinstance(value, str | bytes) else str(value)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _plain(name: str) -> str:
    """A name without its schema and quotes."""
    return name.strip().rpartition(".")[2].strip('"')


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
