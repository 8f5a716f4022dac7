"""What is sent ahead of asyncpg's messages: in order, in one piece, and nothing follows a failure."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation import ahead
from asynctest_kit.isolation.connection import SandboxConnection
from asynctest_kit.isolation.postgres import connect, open_slots

pytestmark = pytest.mark.anyio

ADD = "INSERT INTO notes (text) VALUES ($1)"
COUNT = "SELECT count(*) FROM notes"


@pytest.fixture
async def connection(database):
    connection = await connect(database)
    yield connection
    await connection.close()


@asynccontextmanager
async def leased(slots):
    async with slots.lease() as sandbox:
        yield SandboxConnection(sandbox, commits=False), sandbox.connection


@pytest.fixture
def watched(slots):
    """A lease, and asyncpg's connection under it."""
    return lambda: leased(slots)


def statements_of(connection):
    return connection._protocol.queries_count


@pytest.mark.parametrize("first", [("SELECT 1; SELECT 2",), ("SELECT 1 + $1::int", 1)], ids=["text", "arguments"])
async def test_lease_costs_no_statement_of_its_own(server, first):
    async with open_slots(server, limit=1) as slots:
        async with leased(slots) as (pg, connection):
            await pg.execute(*first)  # the one with arguments is prepared now
        async with leased(slots) as (pg, again):
            assert again is connection
            before = statements_of(connection)
            await pg.execute(*first)
            assert connection.is_in_transaction()
            assert ahead.is_answered(connection)
        assert statements_of(connection) == before + 1
        assert not ahead.is_answered(connection)
        await connection.fetchval("SELECT 1")
        assert ahead.is_answered(connection)
        assert not connection.is_in_transaction()


async def test_deferred_constraints_are_checked_where_something_was_written(watched):
    async with watched() as (pg, connection):
        before = statements_of(connection)
        await pg.execute("SELECT 1 FROM children")
    assert statements_of(connection) == before + 1
    with pytest.raises(IsolationError, match="children_parent"):
        async with watched() as (pg, _):
            await pg.execute("INSERT INTO children VALUES (1, 7)")


async def test_moving_the_savepoint_waits_for_nothing(watched):
    async with watched() as (pg, connection):
        await pg.execute(ADD, "a")
        before = statements_of(connection)
        await pg.execute(ADD, "b")
        with pytest.raises(asyncpg.UniqueViolationError):
            await pg.execute(ADD, "b")
        assert statements_of(connection) == before + 2
        assert await pg.fetchval(COUNT) == 2


async def test_time_stands_still_from_the_first_statement_on(watched):
    async with watched() as (pg, connection):
        before = await connection.fetchval("SELECT clock_timestamp()")
        assert await pg.fetchval("SELECT now()") > before


async def test_nothing_is_run_after_a_begin_that_failed(connection):
    await connection.execute("BEGIN")
    with pytest.raises(asyncpg.UndefinedTableError):
        await connection.execute("SELECT * FROM nowhere")
    ahead.begin(connection)  # which fails in a failed transaction
    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        await connection.execute(ADD, "a")
    assert ahead.is_answered(connection)
    await connection.execute("ROLLBACK")
    assert await connection.fetchval(COUNT) == 0


async def test_nothing_is_run_in_a_transaction_that_what_was_told_has_failed(connection):
    await connection.execute("BEGIN")
    ahead.tell(connection, "RELEASE nothing; SAVEPOINT one")
    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        await connection.execute(ADD, "a")
    await connection.execute("ROLLBACK")
    assert await connection.fetchval(COUNT) == 0


async def test_rollback_that_fails_ends_the_connection(connection):
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _: lost.set())
    ahead.tell(connection, "ROLLBAK", is_last=True)
    await asyncio.wait_for(lost.wait(), 60)
    assert connection.is_closed()


async def test_notices_reach_their_listeners(connection):
    heard = []
    connection.add_log_listener(lambda _, message: heard.append(message.message))
    ahead.tell(connection, "DO $$ BEGIN RAISE NOTICE 'told'; END $$")
    ahead.begin(connection)
    assert await connection.fetchval("SELECT $1::int", 7) == 7
    assert heard == ["told"]
    assert connection.is_in_transaction()
    await connection.execute("ROLLBACK")


async def test_arguments_that_are_refused_before_anything_is_sent(watched):
    add = "SELECT $1::int"
    async with watched() as (pg, connection):
        await pg.fetchval(add, 1)
    for statement in (add, ADD):
        async with watched() as (pg, again):
            assert again is connection
            with pytest.raises(asyncpg.DataError):
                await pg.fetchval(add, "one")
            await pg.execute(ADD, "a")
            await pg.execute(statement, 1 if statement == add else "b")
            assert connection.is_in_transaction()
    async with watched() as (pg, _):
        assert await pg.fetchval(COUNT) == 0


async def test_text_that_cannot_be_parsed_is_the_test_s_own(watched):
    async with watched() as (pg, connection):
        with pytest.raises(asyncpg.PostgresSyntaxError) as caught:
            await pg.execute("SELEC 1")
        assert (caught.value.query, caught.value.position) == ("SELEC 1", "1")
        await pg.execute("INSERT INTO notes (text) VALUES ('a')")
        assert connection.is_in_transaction()
    async with watched() as (pg, _):
        assert await pg.fetchval(COUNT) == 0


@pytest.mark.parametrize("arguments", [(), (60.0,)], ids=["text", "arguments"])
async def test_first_statement_can_be_cancelled(watched, arguments):
    async with watched() as (pg, connection):
        sleep = "SELECT pg_sleep($1)" if arguments else "SELECT pg_sleep(60)"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pg.execute(sleep, *arguments), 0.05)
        await pg.execute(ADD, "a")
        assert await pg.fetchval(COUNT) == 1
    async with watched() as (pg, again):
        assert again is connection
        assert await pg.fetchval(COUNT) == 0


class Protocol(asyncio.Protocol):
    """What asyncpg would get."""

    def __init__(self):
        self.received = b""

    def data_received(self, data):
        self.received += data


class Transport:
    """A wire that takes all at once, as uvloop's."""

    __slots__ = ("_protocol", "pieces")

    def __init__(self, protocol):
        self._protocol = protocol
        self.pieces = []

    def is_closing(self):
        return False

    def get_protocol(self):
        return self._protocol

    def set_protocol(self, protocol):
        self._protocol = protocol

    def write(self, data):
        self.pieces.append(bytes(data))

    def writelines(self, pieces):
        self.pieces += pieces


class Wire(Transport):
    """A wire that can be told to wait, as asyncio's."""


class Connection:
    """The part of asyncpg's connection that is used."""

    def __init__(self, protocol, transport=Transport):
        self._transport = transport(protocol)


def message(kind, size=0):
    return kind + (size + 4).to_bytes(4, "big") + bytes(size)


BEGUN, REFUSED = (b"1", b"2", b"C"), (b"E", b"Z")
TOLD, FAILED = (b"C", b"C", b"Z"), (b"C", b"E", b"Z")
OTHERS = st.lists(st.sampled_from([b"N", b"A", b"S"]), max_size=2)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a machine that is busy with others
@given(
    told=st.lists(st.sampled_from([TOLD, FAILED]), max_size=3),
    begun=st.sampled_from([(), BEGUN, REFUSED]),
    between=st.lists(OTHERS, min_size=12, max_size=12),
    rest=st.lists(st.tuples(st.sampled_from([b"1", b"2", b"D", b"C", b"E", b"Z"]), st.integers(0, 40)), max_size=6),
    cuts=st.lists(st.integers(1, 30)),
)
def test_stream_without_our_answers_is_asyncpgs(told, begun, between, rest, cuts):
    protocol = Protocol()
    connection = Connection(protocol)
    stream = expected = b""
    for _ in told:
        ahead.tell(connection, "SAVEPOINT one")
    if begun:
        ahead.begin(connection)
    for kinds in (*told, begun):
        for kind in kinds:
            unasked = b"".join(message(other, 5) for other in (between.pop() if between else ()))
            stream += unasked + message(kind, 8)
            expected += unasked + (message(kind, 8) if kinds is REFUSED else b"")
    own = b"".join(message(kind, size) for kind, size in rest)
    stream, expected = stream + own, expected + own
    for cut in cuts:
        part, stream = stream[:cut], stream[cut:]
        if part:
            connection._transport.get_protocol().data_received(part)
    if stream:
        connection._transport.get_protocol().data_received(stream)
    assert protocol.received == expected
    assert connection._transport.get_protocol() is protocol


async def test_it_goes_in_one_piece_with_what_follows_and_alone_if_nothing_does():
    connection = Connection(Protocol(), Wire)
    wire = connection._transport
    ahead.tell(connection, "ROLLBACK")
    ahead.begin(connection)
    assert wire.pieces == []
    wire.write(memoryview(b"own"))
    wire.write(b"more")
    (first, second), wire.pieces = wire.pieces, []
    assert first.startswith(b"Q")
    assert b"ROLLBACK" in first
    assert b"BEGIN" in first
    assert first.endswith(b"own")
    assert second == b"more"
    await asyncio.sleep(0)
    assert wire.pieces == []
    ahead.tell(connection, "ROLLBACK")
    wire.writelines([b"its", b"own"])
    (third,), wire.pieces = wire.pieces, []
    assert third.endswith(b"ROLLBACK\0itsown")
    ahead.tell(connection, "ROLLBACK")
    await asyncio.sleep(0)
    assert [piece[-9:] for piece in wire.pieces] == [b"ROLLBACK\0"]
    assert vars(wire) == {}
