"""Room for connections: who waits gets what it needs, nobody waits for ever, and what others hold is waited for."""

from __future__ import annotations

import asyncio
import random
import weakref
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from asynctest_kit.isolation.own_database import open_own_database, whereabouts
from asynctest_kit.isolation.postgres import open_slots
from asynctest_kit.isolation.room import Room
from asynctest_kit.provision.service import ServiceSpec

pytestmark = pytest.mark.anyio


class Server:
    """Takes so many connections."""

    def __init__(self, most):
        self.most = most
        self.tells = True
        self.open = set()
        self.refused = 0

    async def connect(self):
        await asyncio.sleep(0)
        if len(self.open) >= self.most:
            self.refused += 1
            raise asyncpg.TooManyConnectionsError("sorry, too many clients already")
        return Connection(self)


class Connection:
    def __init__(self, server):
        self.server = server
        server.open.add(self)
        self.listeners = []
        self._pool_holder = None

    async def fetchval(self, _query):
        await asyncio.sleep(0)
        return self.server.most - len(self.server.open) if self.server.tells else None

    def add_termination_listener(self, listener):
        self.listeners.append(listener)

    def is_closed(self):
        return self not in self.server.open

    def terminate(self):
        self.server.open.discard(self)
        for listener in self.listeners:
            asyncio.get_running_loop().call_soon(listener, self)
        self.listeners.clear()

    def is_idle(self):
        return True

    def rest(self):
        """Lie in a pool."""
        self._pool_holder = weakref.ref(self)


@asynccontextmanager
async def holding(room, guest, server, count=1):
    """So many connections, one after the other; closed at the end."""
    connections = []
    try:
        for _ in range(count):
            connections.append(await room.open(guest, server.connect))
            await asyncio.sleep(0)
        yield connections
    finally:
        for connection in connections:
            connection.terminate()


async def in_queue(room, count):
    while len(room._waiters) < count:  # noqa: ASYNC110  # nothing tells of it
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(8))
async def test_all_get_what_they_claim_one_after_the_other(seed):
    chance = random.Random(seed)
    server, room = Server(most=chance.randint(4, 12)), Room()
    done = Counter()

    async def test(name, claim, wants):
        with room.claimed(name, claim) as guest:
            async with holding(room, guest, server, wants):
                for _ in range(chance.randint(0, 3)):
                    await asyncio.sleep(0)
                done[name] += 1

    async with asyncio.timeout(60), asyncio.TaskGroup() as tests:
        for number in range(30):
            claim = chance.randint(1, server.most)
            tests.create_task(test(f"test {number}", claim, chance.randint(1, claim)))
    assert done.total() == 30
    assert not server.refused, "it knew how many there are"
    assert not server.open


async def test_each_of_two_that_hold_one_and_want_another_gets_it_in_turn():
    server, room = Server(most=3), Room()
    with room.claimed("one", 3) as one, room.claimed("other", 3) as other:
        async with holding(room, one, server):
            waiting = asyncio.ensure_future(room.open(other, server.connect))
            await in_queue(room, 1)
            async with holding(room, one, server, 2):
                assert not waiting.done()
            assert not waiting.done(), "it might have wanted them again"
        async with asyncio.timeout(60):
            (await waiting).terminate()


async def test_first_come_is_first_served():
    server, room, order = Server(most=1), Room(), []

    async def test(name):
        with room.claimed(name, 1) as guest:
            async with holding(room, guest, server):
                order.append(name)

    with room.claimed("first", 1) as first:
        async with asyncio.TaskGroup() as tests, holding(room, first, server):
            for name in range(5):
                tests.create_task(test(name))
                await in_queue(room, name + 1)
    assert order == [0, 1, 2, 3, 4]


async def test_who_is_cancelled_while_it_waits_takes_nothing_along():
    server, room = Server(most=1), Room()
    with room.claimed("first", 1) as first, room.claimed("second", 1) as second, room.claimed("third", 1) as third:
        held = await room.open(first, server.connect)
        given_up = asyncio.ensure_future(room.open(second, server.connect))
        granted = asyncio.ensure_future(room.open(second, server.connect))
        await in_queue(room, 2)
        given_up.cancel()
        held.terminate()  # before the one has noticed; and the other one is cancelled when it is its turn
        granted.cancel()
        await asyncio.wait((given_up, granted))
        assert given_up.cancelled()
        assert granted.cancelled()
        assert (second.used, room._waiters) == (0, [])
        async with asyncio.timeout(60), holding(room, third, server):
            pass
    assert room.waited["first"] < room.waited["second"], "also a wait that ended so is told of"


async def test_what_is_idle_in_a_pool_is_closed_for_who_waits():
    server, room = Server(most=4), Room()
    with room.claimed("one", 4) as one, room.claimed("other", 1) as other:
        async with holding(room, one, server, 4) as held:
            waiting = asyncio.ensure_future(room.open(other, server.connect))
            await in_queue(room, 1)
            held[1].rest()
            held[2].rest()
            room.serve()
            async with asyncio.timeout(60):
                (await waiting).terminate()
            assert [connection.is_closed() for connection in held] == [False, True, False, False], (
                "no more than it took"
            )


async def test_those_of_others_are_waited_for():
    server, room = Server(most=2), Room()
    others = [await server.connect() for _ in range(2)]
    with room.claimed("test", 2) as guest:
        waiting = asyncio.ensure_future(room.open(guest, server.connect))
        async with asyncio.timeout(60):
            while not server.refused:  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.01)
            assert not waiting.done()
            others.pop().terminate()
            (await waiting).terminate()


async def test_who_wants_more_than_there_is_is_refused_as_the_server_does_it():
    server, room = Server(most=2), Room(patience=0.05)
    with room.claimed("test", 10) as guest:
        async with holding(room, guest, server, 2):
            with pytest.raises(asyncpg.TooManyConnectionsError, match="too many clients already"):
                await room.open(guest, server.connect)
    assert not room._waiters


async def test_a_server_that_does_not_tell_how_many_it_takes_is_asked_by_trying():
    server, room = Server(most=2), Room(patience=0.05)
    server.tells = False
    with room.claimed("test", 3) as guest:
        async with holding(room, guest, server, 2):
            with pytest.raises(asyncpg.TooManyConnectionsError):
                await room.open(guest, server.connect)


async def test_another_threads_loop_waits_for_nobody(narrow):
    room = Room()
    with room.claimed("second", 10) as second:
        async with open_own_database(narrow, room=room, owner="first") as own:
            for _ in range(2):
                await own.pool.acquire()

            async def connect():
                connection = await second.connect(**whereabouts(narrow))
                connection.terminate()

            async with asyncio.timeout(60):
                await asyncio.to_thread(asyncio.run, connect())
        assert not second.used


async def test_the_pool_is_the_codes_alone(narrow):
    async def init(connection):
        await connection.set_type_codec("int4", schema="pg_catalog", encoder=str, decoder=lambda text: f"number {text}")

    left: list[str] = []
    async with open_own_database(narrow, init=init, findings=left) as own:
        assert await own.connection.fetchval("SELECT 1") == "number 1"
        assert (own.pool.get_max_size(), own.pool.get_size()) == (10, 0)
        assert await own.pool.fetchval("SELECT 1") == "number 1"
        async with asyncio.timeout(60):
            await own.pool.close()
        assert await own.connection.fetchval("SELECT 2") == "number 2"
    assert left == []


async def test_on_a_server_of_its_own_nobody_is_waited_for(narrow, monkeypatch):
    monkeypatch.setattr(Room.__init__, "__kwdefaults__", {"patience": 3600})
    async with open_own_database(narrow) as own, AsyncExitStack() as application:
        with pytest.raises(asyncpg.TooManyConnectionsError):
            while True:
                connection = await asyncpg.connect(**whereabouts(narrow))
                application.callback(connection.terminate)
        async with asyncio.timeout(60):
            with pytest.raises(asyncpg.TooManyConnectionsError):
                await own.pool.acquire()


async def test_one_that_the_server_has_ended_without_a_word_is_none():
    server, room = Server(most=1), Room()
    with room.claimed("test", 1) as guest:
        await room.open(guest, server.connect)
        server.open.clear()
        async with asyncio.timeout(60), holding(room, guest, server):
            pass


async def test_where_claims_have_grown_one_goes_on_alone():
    server, room = Server(most=5), Room()

    async def test(name):
        with room.claimed(name, 2) as guest:
            async with holding(room, guest, server):
                await together.wait()
                with room.claimed(name, 5):
                    async with holding(room, guest, server, 3):
                        pass

    together = asyncio.Barrier(2)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tests:
        tests.create_task(test("one"))
        tests.create_task(test("other"))


async def test_what_a_test_leaves_waiting_ends_with_it():
    server, room = Server(most=1), Room()
    with room.claimed("first", 1) as first:
        async with holding(room, first, server):
            with room.claimed("second", 1) as second:
                left = asyncio.ensure_future(room.open(second, server.connect))
                await in_queue(room, 1)
            with pytest.raises(asyncpg.InterfaceError, match="the test has ended"):
                await left


@pytest.fixture
async def narrow(services, anyio_backend):
    """A server that takes few connections."""
    options = ("-c", "max_connections=6", "-c", "superuser_reserved_connections=0")
    return await services.endpoint(ServiceSpec(name="narrow", kind="postgres", provider="embedded", command=options))


async def test_pools_of_many_tests_share_what_a_server_takes_with_those_that_have_transactions(narrow):
    room = Room()
    async with open_slots(narrow, limit=6, room=room) as slots:
        leases = [await slots.take() for _ in range(3)]
        begun = asyncio.Event()

        async def test(name):
            async with open_own_database(narrow, room=room, owner=name) as own:
                begun.set()
                async with own.pool.acquire() as one, own.pool.acquire() as other:
                    for connection in (own.connection, one, other):
                        assert await connection.fetchval("SELECT 1") == 1
                await asyncio.gather(*(own.pool.fetchval("SELECT 1") for _ in range(8)))

        async with asyncio.timeout(120), asyncio.TaskGroup() as tests:
            begin = [tests.create_task(test(f"test {number}")) for number in range(8)]
            await begun.wait()
            for given_up in begin[-2:]:
                given_up.cancel()
            for lease in leases:
                await slots.give_back(lease)
        assert slots.held.size < 3
        assert (room._guests, room._waiters) == ({}, [])
        async with asyncio.timeout(60):  # and they are more again
            leases = [await slots.take() for _ in range(3)]
        for lease in leases:
            await slots.give_back(lease)
