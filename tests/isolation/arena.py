"""Many tests at once on one PostgreSQL and one Redis, and all that must be the same afterwards."""

from __future__ import annotations

import asyncio
import itertools
import random
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import asyncpg
import conduct
from adversaries import Given, Outrage, misbehave

from asynctest_kit.engine.code_places import awaited_by, frame_of
from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation import postgres, redis, schema
from asynctest_kit.isolation.connection import SandboxConnection
from asynctest_kit.isolation.pool import SandboxPool
from asynctest_kit.isolation.table_state import TableState
from asynctest_kit.isolation.templates import ensure_template, open_clone, open_run_database

#: Tests at once.
LEASES = 64

#: Seconds for a body, and for all of them to end.
_BODY, _ALL = 0.3, 20

#: What the server has of its own, and what sessions leave there.
_SERVER = {
    "roles": "SELECT rolname, rolsuper, rolconfig::text FROM pg_roles ORDER BY 1",
    "memberships": "SELECT member::text, roleid::text FROM pg_auth_members ORDER BY 1, 2",
    "databases": """
        SELECT datname, datallowconn, datistemplate, datacl::text, shobj_description(oid, 'pg_database')
        FROM pg_database ORDER BY 1
    """,
    "settings": "SELECT * FROM pg_db_role_setting ORDER BY 1, 2",
    "configuration": "SELECT name, setting FROM pg_file_settings WHERE name NOT IN ('port') ORDER BY seqno",
    "prepared transactions": "SELECT gid FROM pg_prepared_xacts",
    "slots": "SELECT slot_name FROM pg_replication_slots",
}

#: What backends hold, and those that are ended let go of in a moment.
_HELD = r"""
    SELECT pid, concat(state, ': ', query) FROM pg_stat_activity WHERE datname LIKE 'atk\_run\_%' AND state <> 'idle'
    UNION ALL SELECT pid, 'advisory lock' FROM pg_locks WHERE locktype = 'advisory'
"""

#: What a session must be like when it is leased again.
_SESSION = {
    "settings": "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name <> 'application_name'",
    "user": "SELECT current_user, session_user",
    "statements": "SELECT name FROM pg_prepared_statements WHERE from_sql",
    "cursors": "SELECT name FROM pg_cursors WHERE is_holdable",
    "channels": "SELECT pg_listening_channels()",
    "temporary tables": "SELECT relname FROM pg_class WHERE relpersistence = 't'",
    "codec": "SELECT 'a'::text, 1::int, '{}'::jsonb",
}

#: Of a connection to Redis, by TCP or by a socket.
_FRESH = {("", "N"), ("", "U")}

_FILES = "SELECT relname, relfilenode FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
_OBJECTS = "SELECT oid FROM pg_largeobject_metadata"


class Arena:
    """A pair of servers with tests on them; all its methods run on one loop.

    Attributes:
        bodies: How many adversaries there were.
    """

    def __init__(self) -> None:
        self.bodies = 0
        self._numbers = itertools.count(1000, 10)
        self._running: set[asyncio.Task] = set()
        self._stack = AsyncExitStack()

    async def open(self, server, redis_server, migrations) -> None:
        """Make the template, the run's database and the pools."""
        enter = self._stack.enter_async_context
        self._server, self._redis_server = server, redis_server
        self._template = await ensure_template(server, migrations, root=Path("/"))
        self._endpoint = await enter(open_run_database(self._template))
        own = await enter(open_clone(self._template))
        self._own = await enter(
            asyncpg.create_pool(**postgres.connect_arguments(own), database=own.database, min_size=1, max_size=1)
        )
        self._slots = await enter(postgres.open_slots(self._endpoint, limit=LEASES))
        self._redis_slots = await enter(redis.open_slots(redis_server, limit=LEASES))
        self._admin = await asyncpg.connect(**postgres.connect_arguments(server), database=server.database)
        self._stack.push_async_callback(self._admin.close)
        self._before = await self._state()

    async def close(self) -> None:
        """Let go of all."""
        await self._stack.aclose()

    async def launch(self, pairs) -> None:
        """Start adversaries, each with a neighbour; they run on whenever the loop does."""
        for adversary, neighbour in pairs:
            self.bodies += 1
            number = next(self._numbers)
            expected = await self._alone(neighbour, number)
            for body in (self._adversary(adversary, number + 1), self._neighbour(neighbour, number, expected)):
                self._running.add(asyncio.ensure_future(body))

    async def cancel_some(self, share: float) -> None:
        """Cancel a part of the adversaries wherever they are, some in their tear-down."""
        chance = random.Random(share)
        for task in self._running:
            if task.get_coro().__name__ == "_adversary" and chance.random() < share:
                task.cancel()
        await asyncio.sleep(0)

    async def kill_idle(self, most: int) -> None:
        """End backends between tests; one that is leased meanwhile might be hit in mid-statement."""
        await self.settle()
        await self._admin.execute(
            r"""
            SELECT pg_terminate_backend(pid) FROM (
                SELECT pid FROM pg_stat_activity WHERE datname = $1 AND state = 'idle' LIMIT $2
            ) AS idle
            """,
            self._endpoint.database,
            most,
        )

    async def look(self) -> None:
        """What no test may change, not even for a moment."""
        template = await self._admin.fetchval(
            "SELECT count(*) FROM pg_database WHERE datname = $1 AND datistemplate AND NOT datallowconn",
            self._template.name,
        )
        assert template == 1
        async with open_clone(self._template) as clone:
            assert await _contents(clone) == self._before["template"]
        self._raise_faults()

    async def settle(self) -> None:
        """Wait for all tests, and compare everything with what was at the beginning."""
        while self._running:
            _, late = await asyncio.wait(self._running, timeout=_ALL)
            if late:  # of its time-out's cancellation a body may have believed that it was its own
                for task in late:
                    task.cancel()
                _, late = await asyncio.wait(late, timeout=_ALL)
            assert not late, [_waits(task) for task in late]
            self._raise_faults()
        await self._wait_for_backends()
        after = await self._state()
        for name, value in self._before.items():
            assert after[name] == value, name
        await self._look_at_sessions()
        await self._look_at_redis()

    def _raise_faults(self) -> None:
        done = {task for task in self._running if task.done()}
        self._running -= done
        for task in done:
            if not task.cancelled():
                task.result()

    async def _alone(self, neighbour: conduct.Conduct, number: int) -> list[object]:
        return await alone(neighbour, number, self._own)

    async def _adversary(self, adversary, number: int) -> None:
        try:
            async with self._slots.lease() as sandbox, self._redis_slots.lease() as lease:
                given = Given(
                    number, SandboxConnection(sandbox, commits=False), SandboxPool(sandbox), lease.client, self._kill
                )
                with suppress(TimeoutError, Outrage):
                    async with asyncio.timeout(_BODY):
                        await misbehave(adversary, given)
        except IsolationError:
            pass  # told what it left
        except Exception as error:
            error.add_note(repr(adversary))
            raise

    async def _neighbour(self, neighbour, number: int, expected) -> None:
        try:
            async with self._slots.lease() as sandbox, self._redis_slots.lease() as lease:
                await behave(neighbour, number, SandboxPool(sandbox), lease.client, expected)
        except BaseException as error:
            error.add_note(repr(neighbour))
            raise

    async def _kill(self, pid: int) -> None:
        await self._admin.execute("SELECT pg_terminate_backend($1)", pid)

    async def _wait_for_backends(self) -> None:
        """What was cut off may take a moment to be noticed by the server."""
        deadline = asyncio.get_running_loop().time() + _ALL
        while held := await self._admin.fetch(_HELD):
            assert asyncio.get_running_loop().time() < deadline, held
            await asyncio.sleep(0.01)

    async def _state(self):
        state = {name: [tuple(row) for row in await self._admin.fetch(query)] for name, query in _SERVER.items()}
        async with open_clone(self._template) as clone:
            state["template"] = await _contents(clone)
        state["run"] = await _contents(self._endpoint)
        connection = await postgres.connect(self._endpoint)
        state["files"] = [tuple(row) for row in await connection.fetch(_FILES)]
        await connection.close()
        return state

    async def _look_at_sessions(self) -> None:
        """Lease each held connection, and compare it with one that is new."""
        fresh = await postgres.connect(self._endpoint)
        expected = await _session(fresh)
        await fresh.close()
        idle = [connection for connection in self._slots.held._idle if not connection.is_closed()]
        for connection in idle:
            assert await _session(connection) == expected

    async def _look_at_redis(self) -> None:
        """Lease some at once; what a cancelled tear-down has left is flushed before it is leased again."""
        async with AsyncExitStack() as stack:
            for _ in range(8):
                lease = await stack.enter_async_context(self._redis_slots.lease())
                assert await lease.client.dbsize() == 0


async def alone(neighbour: conduct.Conduct, number: int, pool) -> list[object]:
    """What a conduct sees in a database that it has for itself."""
    await pool.execute(conduct.CLEAN)
    expected = await conduct.act(neighbour, number, pool)
    await pool.execute(f"DROP TABLE IF EXISTS own_{number}")
    return expected


async def behave(neighbour: conduct.Conduct, number: int, pool, client, expected: list[object]) -> None:
    """Act beside others, and see what was seen alone; and of Redis nothing but one's own."""
    assert await client.dbsize() == 0
    await client.set("key", number)
    seen = await conduct.act(neighbour, number, pool)
    assert seen == expected, f"{seen}\nand not\n{expected}"
    assert await client.keys() == [b"key"]
    assert await client.incr("key") == number + 1
    state = await _state_of(client)
    assert state in _FRESH, state


async def _contents(endpoint):
    connection = await postgres.connect(endpoint)
    try:
        rows = await TableState(connection).tables()
        return await schema.describe(connection), rows, await connection.fetch(_OBJECTS)
    finally:
        await connection.close()


async def _state_of(client):
    """What a connection keeps of what was done to it: its name, and whether it watches, tracks or listens."""
    info = await client.execute_command("CLIENT", "INFO")
    text = info if isinstance(info, dict) else dict(part.split("=", 1) for part in info.decode().split())
    return text["name"], text["flags"]


async def _session(connection):
    return {name: [tuple(row) for row in await connection.fetch(query)] for name, query in _SESSION.items()}


def _waits(task):
    """Where a task waits, from its own line down to the innermost."""
    frames = [frame_of(one) for one in awaited_by(task.get_coro())]
    return [f"{frame.f_code.co_qualname}:{frame.f_lineno}" for frame in frames if frame is not None]
