"""Leased logical databases on a real server."""

from __future__ import annotations

import asyncio
import re
import uuid
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import msgspec
import pytest
import redis.asyncio
from redis.exceptions import NoPermissionError, RedisError, ResponseError
from redis_servers import other_run, redis_server

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.redis import open_slots
from asynctest_kit.provision.service import ServiceSpec

pytestmark = pytest.mark.anyio


@pytest.fixture
async def endpoint(services, anyio_backend):
    """A server of the test's own, with few databases, so that they run out."""
    name = f"redis-{uuid.uuid4().hex}"
    spec = ServiceSpec(name=name, kind="redis", provider="embedded", command=("--databases", "4"))
    return await services.endpoint(spec)


@pytest.fixture(scope="session", params=["docker", "embedded"])
async def redis_endpoint(services, request, anyio_backend):
    """A server of this file's own, for its tests change what is the server's."""
    return await redis_server(services, request.param, "--timeout", "0")


@pytest.fixture
async def slots(redis_endpoint, anyio_backend):
    async with open_slots(redis_endpoint, limit=8) as slots:
        yield slots


@pytest.fixture
async def manager(redis_endpoint, anyio_backend):
    """The server as its own user."""
    async with redis.asyncio.from_url(redis_endpoint.url) as client:
        yield client


def external(endpoint, **changes):
    return msgspec.structs.replace(endpoint, provider="external", **changes)


async def test_each_lease_is_empty_and_alone(slots):
    async def case(number):
        async with slots.lease() as lease:
            assert await lease.client.dbsize() == 0
            await lease.client.set("key", number)
            await asyncio.sleep(0)
            return int(await lease.client.get("key"))

    assert await asyncio.gather(*(case(number) for number in range(64))) == list(range(64))
    assert "makes no users" not in slots.shortcoming  # the first eight ask for theirs at once


async def test_client_speaks_bytes(slots):
    async with slots.lease() as lease:
        await lease.client.set("key", "value")
        assert await lease.client.get("key") == b"value"


async def test_url_is_the_same_database(slots):
    async with slots.lease() as lease:
        async with redis.asyncio.from_url(lease.url) as application:
            await application.set("key", "value")
        assert await lease.client.exists("key")
        number = lease.url[-1]
    async with slots.lease() as lease:
        assert lease.url[-1] == number
        assert await lease.client.dbsize() == 0


async def test_only_the_url_used(slots):
    async with slots.lease() as lease:
        url = lease.url
        async with redis.asyncio.from_url(url) as application:
            await application.set("key", "value")
    async with slots.lease() as lease:
        assert lease.url.rpartition("/")[2] == url.rpartition("/")[2]
        assert await lease.client.dbsize() == 0


async def test_connection_is_held(slots):
    ids = set()
    for _ in range(3):
        async with slots.lease() as lease:
            ids.add(await lease.client.client_id())
            await lease.client.pipeline().set("a", 1).get("a").execute()
    assert len(ids) == 1


async def test_many_connections_of_one_test(slots):
    async with slots.lease() as lease:
        waiting = asyncio.ensure_future(lease.client.blpop("queue", timeout=10))
        await asyncio.gather(*(lease.client.incr("count") for _ in range(9)))
        await lease.client.rpush("queue", "item")
        assert (await waiting)[1] == b"item"
        async with lease.client.pipeline() as pipeline:
            assert await pipeline.set("a", 1).get("a").execute() == [True, b"1"]


async def somebody_waits(client, waiting):
    """Until the server has the command of the task ``waiting``."""
    while not any("b" in each["flags"] for each in await client.client_list()):
        assert not waiting.done()


async def test_leaked_connections_are_closed(slots):
    with pytest.raises(
        IsolationError, match=r"at fault in its Redis database: it ended while BLPOP was waiting: await it, or cancel"
    ):
        async with slots.lease() as lease:
            client = lease.client
            subscriber = client.pubsub()
            await subscriber.subscribe("channel")
            blocked = asyncio.ensure_future(client.blpop("queue", timeout=600))
            await somebody_waits(client, blocked)
    with pytest.raises((IsolationError, RedisError)):
        await blocked
    with pytest.raises((IsolationError, RedisError)):
        while True:
            await subscriber.get_message(timeout=1)
    with pytest.raises(IsolationError, match="a test that has ended"):
        await client.get("key")
    async with slots.lease() as lease:
        await lease.client.rpush("queue", "item")
        assert await lease.client.llen("queue") == 1


async def give_up_a_write(client, how):
    """Send more than a socket takes at once, and don't wait until it is sent.

    Returns:
        The server's number of the connection, and what is over when the socket is closed.
    """
    pool = client.connection_pool
    held, connection = pool.get_available_connection(), pool.get_available_connection()
    await connection.connect()
    await pool.release(held)
    await connection.send_command("CLIENT", "ID")
    number = await connection.read_response()
    stream = connection._writer
    writing = asyncio.ensure_future(connection.send_command("SET", "late", b"x" * 40_000_000))
    while not stream.transport.get_write_buffer_size():
        assert not writing.done()
        await asyncio.sleep(0)
    if how == "cancelled":
        writing.cancel()
        await asyncio.wait([writing])
        if not writing.cancelled():  # writelines() never waits before Python 3.12.9 and 3.13.2: give the answer up
            await connection.disconnect(nowait=True)
        await pool.release(connection)
        assert await client.ping()  # on the same one, opened again
    return number, asyncio.gather(writing, stream.wait_closed(), return_exceptions=True)


async def all_is_read(manager, number):
    """Until the server has run, or will never run, what was sent on a connection."""
    while any(int(each["id"]) == number for each in await manager.client_list()):
        pass


@pytest.mark.parametrize("how", ["leaked", "cancelled"])
async def test_a_write_that_was_given_up_does_not_reach_the_next_lease(redis_endpoint, manager, how):
    async with open_slots(redis_endpoint, limit=1) as slots:
        async with slots.lease() as lease:
            url = lease.url
            number, closed = await give_up_a_write(lease.client, how)
        async with slots.lease() as lease:
            await all_is_read(manager, number)
            assert lease.url.rpartition("/")[2] == url.rpartition("/")[2]
            assert await lease.client.dbsize() == 0
        await closed


@asynccontextmanager
async def slots_without_users(endpoint, owner, *rules, **options):
    """Those of a server whose given user may make none."""
    await owner.execute_command("ACL", "SETUSER", "poor", "on", ">secret", "~*", "&*", "+@all", "-acl", *rules)
    async with open_slots(external(endpoint, username="poor", password="secret"), **options) as slots:
        yield slots
    await owner.execute_command("ACL", "DELUSER", "poor")


@pytest.mark.parametrize("how", ["leaked", "cancelled"])
async def test_a_write_that_was_given_up_is_ended_without_users(endpoint, how):
    async with (
        redis.asyncio.from_url(endpoint.url) as owner,
        slots_without_users(endpoint, owner, limit=1) as slots,
    ):
        async with slots.lease() as lease:
            url = lease.url
            number, closed = await give_up_a_write(lease.client, how)
        async with slots.lease() as lease:
            await all_is_read(owner, number)
            assert lease.url == url
            assert await lease.client.dbsize() == 0
        await closed


async def test_a_database_of_which_a_write_cannot_be_ended_is_not_leased_again(endpoint):
    async with (
        redis.asyncio.from_url(endpoint.url) as owner,
        slots_without_users(endpoint, owner, "-client|kill", patience=0) as slots,
    ):
        urls = set()
        for _ in range(3):
            async with slots.lease() as lease:
                urls.add(lease.url)
                _, closed = await give_up_a_write(lease.client, "cancelled")
            assert lease.findings[0].startswith("gave up a command on its Redis database before the answer came, so")
            await closed
        assert len(urls) == 3
        with pytest.raises(IsolationError, match="into 3 a test that has ended may still write"):
            async with slots.lease():
                pass


@pytest.mark.parametrize("command", ["SELECT 0", "SWAPDB 0 1", "MOVE key 0", "COPY key key DB 0", "RESET", "SHUTDOWN"])
async def test_what_leaves_the_database_is_refused(slots, command):
    async with slots.lease() as lease:
        with pytest.raises(IsolationError, match="would leave this test's logical database"):
            await lease.client.execute_command(*command.split())
        async with lease.client.pipeline() as pipeline:
            pipeline.execute_command(*command.split())
            with pytest.raises(IsolationError, match="would leave"):
                await pipeline.execute()
        assert await lease.client.ping()


async def test_flushall_spares_the_others(slots):
    async with slots.lease() as one, slots.lease() as other:
        await other.client.set("key", "value")
        await one.client.set("key", "value")
        await one.client.flushall()
        assert await one.client.dbsize() == 0
        assert await other.client.dbsize() == 1


async def test_killed_connection_does_not_harm_the_next_lease(slots, manager):
    async with slots.lease() as lease:
        await lease.client.set("key", "value")
        number = await lease.client.client_id()
        await manager.client_kill_filter(_id=number)
    async with slots.lease() as lease:
        assert await lease.client.dbsize() == 0


async def test_waits_for_a_local_release(endpoint):
    async with open_slots(endpoint) as slots:

        async def case():
            async with slots.lease() as lease:
                return await lease.client.incr("count")

        assert await asyncio.gather(*(case() for _ in range(20))) == [1] * 20


async def test_leases_exclude_other_runs(endpoint):
    async with other_run(endpoint) as (other, _, _), open_slots(endpoint, patience=0) as slots:
        with pytest.raises(
            IsolationError, match=r"no logical database left for tests: 3 are leased by other runs\. Start"
        ):
            async with slots.lease():
                pass
        other.kill()
        await other.wait()
        async with slots.lease() as lease:
            assert await lease.client.ping()


async def test_a_run_waits_for_another_to_end(endpoint):
    async with other_run(endpoint) as (other, _, _), open_slots(endpoint, patience=600) as slots:

        async def case():
            async with slots.lease() as lease:
                return await lease.client.dbsize()

        waiting = asyncio.ensure_future(case())
        await slots_asked(endpoint)
        other.stdin.close()
        assert await waiting == 0
        assert await other.stdout.readline() == b"over\n"


async def slots_asked(endpoint):
    """Until somebody asks for a database."""
    async with redis.asyncio.from_url(endpoint.url) as hearer, hearer.pubsub() as heard:
        await heard.subscribe("atk:wanted")
        async for message in heard.listen():
            if message["type"] == "message":
                return


async def test_what_a_test_sets_of_its_client_is_not_the_next_tests(endpoint):
    async with open_slots(endpoint, limit=1) as slots:
        async with slots.lease() as lease:
            lease.client.set_response_callback("GET", lambda _, **__: "hers")
            assert await lease.client.get("key") == "hers"
            first = lease.client
        async with slots.lease() as lease:
            assert await lease.client.get("key") is None
            assert await lease.client.hgetall("none") == {}
            assert type(lease.client) is type(first)
            assert vars(lease.client).keys() == vars(redis.asyncio.Redis()).keys()


async def test_a_runs_own_databases_are_not_swept_at_its_end(endpoint):
    async with redis.asyncio.Redis.from_url(endpoint.url) as server:

        async def users_made():
            return (await server.info("commandstats"))["cmdstat_acl|setuser"]["calls"]

        async with open_slots(endpoint, limit=3) as slots, AsyncExitStack() as leases:
            for _ in range(3):
                await leases.enter_async_context(slots.lease())
            made = await users_made()
        assert await users_made() == made
        assert not [name for name in await server.acl_users() if name.startswith("atk-")]


async def test_runs_share_a_servers_databases(endpoint):
    async with open_slots(endpoint) as first, open_slots(endpoint, patience=600) as second:
        async with first.lease(), first.lease(), first.lease():
            pass
        async with second.lease() as one, first.lease() as other:
            assert await one.client.dbsize() == await other.client.dbsize() == 0
            assert one.url.rpartition("/")[2] != other.url.rpartition("/")[2]


async def test_servers_of_others_keep_their_data(endpoint):
    async with redis.asyncio.from_url(endpoint.url) as owner:
        await owner.set("in 0", 1)
        async with redis.asyncio.from_url(msgspec.structs.replace(endpoint, database="1").url) as other_owner:
            await other_owner.set("in 1", 1)
            async with open_slots(external(endpoint)) as slots:
                async with slots.lease() as one, slots.lease() as other:
                    await one.client.set("key", 1)
                    assert {one.url[-1], other.url[-1]} == {"2", "3"}
                assert await other_owner.get("in 1") == b"1"
        assert await owner.get("in 0") == b"1"
        assert await owner.acl_users() == ["default"]
        await owner.flushall()


async def test_what_a_killed_run_left_is_flushed_and_its_users_are_removed(endpoint):
    given = external(endpoint)
    async with redis.asyncio.from_url(endpoint.url) as owner:
        async with other_run(given) as (dying, number, _):
            dying.kill()
            await dying.wait()
        left = msgspec.structs.replace(endpoint, database=number)
        assert len(await owner.acl_users()) == 7
        async with redis.asyncio.from_url(left.url) as inside, open_slots(given) as slots:
            assert await inside.dbsize() == 1
            async with slots.lease() as one, slots.lease() as other, slots.lease() as third:
                assert number in {each.url.rpartition("/")[2] for each in (one, other, third)}
                assert await inside.dbsize() == 0
        assert await owner.acl_users() == ["default"]


async def test_what_a_killed_run_left_is_swept_by_a_run_that_needs_less(endpoint):
    given = external(endpoint)
    async with redis.asyncio.from_url(endpoint.url) as owner:
        async with other_run(given) as (dying, _, _):
            dying.kill()
            await dying.wait()
        async with open_slots(given) as slots, slots.lease():
            pass
        assert await owner.acl_users() == ["default"]
        assert await owner.info("keyspace") == {}


@pytest.mark.parametrize("command", ["CLIENT SETNAME mine", "CLIENT NO-TOUCH ON", "HELLO 3", "WATCH key"])
async def test_a_changed_connection_is_not_the_next_leases(redis_endpoint, command):
    async with open_slots(redis_endpoint, limit=1) as slots:
        async with slots.lease() as lease:
            number = await lease.client.client_id()
            with suppress(RedisError):  # Redis has no NO-TOUCH before 7.2; old clients can't read RESP3's answer
                await lease.client.execute_command(*command.split())
        async with slots.lease() as lease:
            assert await lease.client.client_id() != number


async def test_a_lost_lock_is_taken_again(endpoint):
    async with redis.asyncio.from_url(endpoint.url) as owner, open_slots(endpoint, limit=1) as slots:
        async with slots.lease() as lease:
            life = slots.locks.life
            await owner.client_kill_filter(_type="pubsub")
            while slots.locks.life == life:
                await owner.ping()
            assert await lease.client.dbsize() == 0
        async with slots.lease() as lease:
            assert await lease.client.dbsize() == 0
            assert await owner.pubsub_channels("atk:lock:*") == [f"atk:lock:{lease.url[-1]}".encode()]


async def test_an_open_multi_is_charged_and_does_not_reach_the_next_lease(redis_endpoint):
    async with open_slots(redis_endpoint, limit=1) as slots:
        with pytest.raises(IsolationError, match="it left a MULTI open: EXEC or DISCARD it"):
            async with slots.lease() as lease:
                await lease.client.set("key", 1)
                await lease.client.execute_command("MULTI")
        async with slots.lease() as lease:
            assert await lease.client.get("key") is None
            assert await lease.client.set("key", 2) is True


REACHES_BEYOND = (
    "FLUSHALL",
    "SWAPDB 0 1",
    "SELECT 0",
    "MOVE key 0",
    "CONFIG SET maxmemory 1mb",
    "CONFIG RESETSTAT",
    "CONFIG REWRITE",
    "SHUTDOWN NOSAVE",
    "ACL SETUSER somebody on",
    "REPLICAOF NO ONE",
    "MONITOR",
    "CLIENT KILL TYPE normal",
    "CLIENT PAUSE 1",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "FUNCTION FLUSH",
)


async def test_what_reaches_beyond_the_database_is_refused_to_applications(slots):
    with pytest.raises(IsolationError) as charged:
        async with slots.lease() as lease, redis.asyncio.from_url(lease.url) as application:
            for command in REACHES_BEYOND:
                with pytest.raises(NoPermissionError):
                    await application.execute_command(*command.split())
            for script in ("'flushall'", "'select', '0'"):
                with pytest.raises(ResponseError):
                    await application.eval(f"return redis.call({script})", 0)
            await application.select(int(lease.url.rpartition("/")[2]))
            assert await application.config_get("databases") == {"databases": "256"}
    for what in ("the command FLUSHALL", " in a script", "the command CONFIG|SET", 'isolation="server"'):
        assert what in str(charged.value)
    async with slots.lease() as lease, redis.asyncio.from_url(lease.url) as application:
        await application.set("key", 1)


async def test_what_reaches_beyond_the_database_is_refused_to_the_client(slots):
    async with slots.lease() as lease:
        for command in REACHES_BEYOND[1:]:
            with pytest.raises((IsolationError, NoPermissionError), match='isolation="server"'):
                await lease.client.execute_command(*command.split())
        assert await lease.client.config_get("databases")


async def test_channels_are_a_tests_own(slots, manager):
    async def case(number):
        async with slots.lease() as lease, lease.client.pubsub() as plain, lease.client.pubsub() as pattern:
            await plain.subscribe("events")
            await pattern.psubscribe("ev*")
            for heard in (plain, pattern):
                assert (await anext(heard.listen()))["type"].endswith("subscribe")
            await gate.wait()
            assert await lease.client.publish("events", number) == 2
            assert await lease.client.pubsub_channels() == [b"events"]
            assert await lease.client.pubsub_channels("e*") == [b"events"]
            assert await lease.client.pubsub_numsub("events") == [(b"events", 1)]
            return [await received(plain), await received(pattern)]

    gate = asyncio.Barrier(5)
    found = await asyncio.gather(*(case(number) for number in range(5)))
    for number, (plain, pattern) in enumerate(found):
        assert (plain["channel"], plain["data"]) == (b"events", str(number).encode())
        assert (pattern["pattern"], pattern["channel"]) == (b"ev*", b"events")
        assert pattern["data"] == plain["data"]


async def test_channels_of_its_keys_name_the_database(slots, manager):
    await manager.config_set("notify-keyspace-events", "KEA")
    async with slots.lease() as lease, slots.lease() as other, lease.client.pubsub() as heard:
        await heard.psubscribe(f"__keyspace@{lease.url.rpartition('/')[2]}__:*")
        assert (await anext(heard.listen()))["type"] == "psubscribe"
        await other.client.set("theirs", 1)
        await lease.client.set("mine", 1)
        assert (await received(heard))["channel"].endswith(b":mine")


async def received(heard):
    """The first message that comes."""
    return await anext(message async for message in heard.listen() if message["type"].endswith("message"))


async def test_applications_have_the_leases_channels_alone(slots):
    with pytest.raises(IsolationError, match="its application was refused the channel events"):
        async with slots.lease() as lease, redis.asyncio.from_url(lease.url) as application:
            with pytest.raises(NoPermissionError):
                await application.publish("events", 1)
            async with lease.client.pubsub() as heard, application.pubsub() as heard_by_it:
                await heard.subscribe("events")
                await heard_by_it.subscribe(f"{lease.prefix}events")
                for each in (heard, heard_by_it):
                    assert (await anext(each.listen()))["type"] == "subscribe"
                assert await application.publish(f"{lease.prefix}events", "from it") == 2
                assert (await received(heard))["data"] == b"from it"
                assert (await received(heard_by_it))["channel"] == f"{lease.prefix}events".encode()


async def test_a_url_is_good_for_its_test_alone(slots):
    async with slots.lease() as lease:
        application = redis.asyncio.from_url(lease.url)
        await application.set("key", 1)
    assert lease.leftovers.connections == ("an idle connection",)
    assert lease.findings[0].startswith("left an idle connection to its Redis database open, which was cut: close")
    async with slots.lease() as next_lease:
        assert next_lease.url.rpartition("/")[2] == lease.url.rpartition("/")[2]
        with pytest.raises(RedisError):
            await application.set("key", 2)
        assert await next_lease.client.dbsize() == 0
    await application.aclose()


async def test_what_applications_leave_at_work_is_charged(slots):
    with pytest.raises(IsolationError, match="its application left a connection of worker waiting in BLPOP: end it in"):
        async with slots.lease() as lease:
            worker = redis.asyncio.from_url(lease.url, client_name="worker")
            waiting = asyncio.ensure_future(worker.blpop("queue", timeout=600))
            await somebody_waits(lease.client, waiting)
    with pytest.raises(RedisError):
        await waiting
    await worker.aclose()


async def test_a_client_outside_the_database_is_charged_or_refused(slots):
    problem = "left a connection to database 0, not to that which redis_url names|refused the command SET outside its"
    with pytest.raises(IsolationError, match=problem):
        async with slots.lease() as lease:
            application = redis.asyncio.from_url(lease.url.rpartition("/")[0])
            with suppress(NoPermissionError):  # Valkey refuses it at once
                await application.set("stray", 1)
    await application.aclose()


async def test_keys_outside_the_database_are_told(slots, manager):
    async with slots.lease("first") as first, slots.lease("second") as second, slots.lease("third"):
        assert first.url != second.url
        await manager.set("another stray", 1)
    found = [*first.findings, *second.findings]
    told = r"^left \d keys? in database 0, where all .* its last part; or it was one of first; or whoever writes by .*$"
    assert re.search(told, found[0])
    assert len(found) == 1
    await manager.delete("stray", "another stray")


async def test_secrets_are_not_shown(slots):
    async with slots.lease() as lease:
        password = lease.url.partition("@")[0].rpartition(":")[2]
        shown = repr([vars(lease), vars(slots), lease.leftovers])
    assert len(password) > 20
    assert password not in shown


async def test_a_server_that_makes_no_users_is_used_as_it_was_given(endpoint):
    async with redis.asyncio.from_url(endpoint.url) as owner, slots_without_users(endpoint, owner) as slots:
        async with slots.lease() as lease, redis.asyncio.from_url(lease.url) as application:
            await application.set("key", 1)
            assert await lease.client.get("key") == b"1"
            assert "//poor:secret@" in lease.url
        assert "acl" in slots.shortcoming


async def test_a_user_without_channels_is_told(endpoint):
    async with redis.asyncio.from_url(endpoint.url) as owner:
        await owner.execute_command("ACL", "SETUSER", "mute", "on", ">secret", "~*", "resetchannels", "+@all")
        async with open_slots(external(endpoint, username="mute", password="secret")) as slots:
            with pytest.raises(IsolationError, match=r"subscribing to channels atk:lock:\*.*&atk:\*"):
                async with slots.lease():
                    pass
        await owner.execute_command("ACL", "DELUSER", "mute")


@pytest.mark.parametrize("provider", ["docker", "embedded"])
async def test_what_others_were_refused_is_not_charged(services, provider):
    redis_endpoint = await redis_server(services, provider, "--databases", "8")
    for number in range(2):
        with pytest.raises(IsolationError, match="refused the channel events"):
            async with (
                open_slots(redis_endpoint) as slots,
                slots.lease() as lease,
                redis.asyncio.from_url(lease.url) as application,
            ):
                with pytest.raises(NoPermissionError):
                    await application.publish("events", number)
    async with open_slots(redis_endpoint, limit=8) as slots, AsyncExitStack() as stack:
        for _ in range(7):
            assert (await stack.enter_async_context(slots.lease())).url
