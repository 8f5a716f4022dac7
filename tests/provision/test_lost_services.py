"""A service that ends while tests use it: they say so, with its last words, and the others pass."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time

import pytest
from provision_traces import LABEL, command_line, eventually, order_of, servers_of, sessions, spec_of, supervisors
from redis.asyncio import Redis
from redis.exceptions import RedisError
from suites import ATK, PYTEST, outcome, running, write_suite

from asynctest_kit.provision.providers.embedded import Embedded
from asynctest_kit.provision.runtime import project_of
from asynctest_kit.provision.visit import Visit

pytestmark = pytest.mark.anyio

#: Uses Redis until it is gone; PostgreSQL, which is another provider's in some of the tests, stays.
SUITE = """
    import asyncio
    from pathlib import Path
    import pytest

    pytestmark = pytest.mark.anyio

    async def test_uses_it(redis):
        with open("attempts", "a") as attempts:
            attempts.write(".")
        await redis.set("key", "value")
        Path("used").touch()
        while True:
            await redis.get("key")
            await asyncio.sleep(0.01)

    async def test_comes_too_late(redis):
        await redis.get("key")
        while True:
            await redis.get("key")
            await asyncio.sleep(0.01)

    async def test_needs_nothing():
        pass

    async def test_needs_another(pg):
        assert await pg.fetchval("SELECT 1") == 1
"""

USERS = {"test_uses_it", "test_comes_too_late"}

OTHERS_EMBEDDED = """
    [tool.asynctest_kit.services.postgres]
    provider = "embedded"
"""


async def in_use(root):
    await eventually((root / "used").exists, 30)


def told(out, test):
    """The part of a run's output that is about one test's failure."""
    parts = re.split(r"^_{3,} (?=[A-Z]* ?[a-z])", out.partition(" short test summary ")[0], flags=re.MULTILINE)
    return next(part for part in parts if test in part.partition("\n")[0])


def failed(out):
    """The tests that failed, in whichever phase."""
    return set(re.findall(r"^(?:FAILED|ERROR) test_it\.py::(\w+)", out, re.MULTILINE))


@pytest.mark.once
@pytest.mark.parametrize("how", [ATK, PYTEST], ids=["atk", "pytest"])
async def test_a_container_that_is_killed_is_named_by_the_tests_that_used_it(engine, root, how):
    write_suite(root, SUITE, OTHERS_EMBEDDED)
    async with running(root, how, ATK_PROVIDER="auto") as run:
        await in_use(root)
        [(container, labels)] = await engine.labelled(f"{LABEL}={project_of(root).key}")
        assert labels["asynctest_kit.service"] == "redis"
        async with engine._query("POST", f"containers/{container}/kill"):
            pass
        out, code = await outcome(run)
    assert code == 1
    assert failed(out) == USERS
    assert "FAILED test_it.py::test_uses_it" in out  # in its call, and not in an attempt that found nobody
    assert (root / "attempts").read_text() == "."
    parts = {test: told(out, test) for test in USERS}
    for part in parts.values():
        assert re.search(
            r"The service 'redis' \(.*\) ended with exit code 137 while it was in use\. Its last words", part
        )
    [in_full] = [test for test, part in parts.items() if "Ready to accept connections" in part]
    [other] = USERS - {in_full}
    assert re.search(rf"Its last words:\n(E +| *)told in full for test_it\.py::{in_full}\n", parts[other]), parts[other]
    if how == PYTEST:  # it came when the server was gone: no frame of how it can't be reached
        assert "asynctest_kit/" not in parts[other]


async def test_an_embedded_server_that_is_killed_is_named(root):
    write_suite(root, SUITE)
    async with running(root, ATK_PROVIDER="embedded") as run:
        await in_use(root)
        [supervisor] = supervisors(root)
        [server] = [pid for pid in servers_of(supervisor) if "postgres" not in command_line(pid)]
        os.kill(server, signal.SIGKILL)
        out, _ = await outcome(run)
    assert "The service 'redis' (Redis" in out
    assert "was killed by SIGKILL while it was in use." in out
    assert failed(out) == USERS


@pytest.mark.once
async def test_a_supervisor_that_is_killed_is_named_and_cleaned_up_after(root):
    write_suite(root, SUITE)
    async with running(root, ATK_PROVIDER="embedded") as run:
        await in_use(root)
        os.kill(*supervisors(root), signal.SIGKILL)
        out, _ = await outcome(run)
    assert re.search(r"The service 'redis' \(.*\) was lost when its supervisor ended unexpectedly", out)
    assert "redis is ready" in out  # the end of its log
    assert sessions(root) == []


@pytest.mark.once
async def test_services_taken_down_by_somebody_are_named(root):
    write_suite(root, SUITE)
    async with running(root, ATK_PROVIDER="embedded") as run:
        await in_use(root)
        visit = Visit.at(root)
        await asyncio.to_thread(visit.end)
        visit.close()
        out, _ = await outcome(run)
    assert re.search(r"The service 'redis' \(.*\) was lost when its supervisor was told to end, by `atk down`", out)


@pytest.mark.once
async def test_a_server_of_the_user_s_own_that_does_not_answer_any_more_is_named(root):
    write_suite(root, SUITE, OTHERS_EMBEDDED)
    async with (
        Embedded().give(order_of(spec_of("redis"))) as own,
        running(root, ATK_REDIS_URL=own.endpoint.url) as run,
        Redis.from_url(own.endpoint.url) as redis,
    ):
        await in_use(root)
        await redis.shutdown(nosave=True)
        out, _ = await outcome(run)
    assert failed(out) == USERS
    assert re.search(r"The service 'redis' \(as given by its URL\) does not answer any more: ", out)
    assert own.endpoint.password not in out


async def test_a_server_that_is_busy_is_not_lost(client, root):
    spec = spec_of("redis", provider="embedded")
    endpoint = await client.endpoint(spec)
    async with Redis.from_url(endpoint.url, single_connection_client=True) as redis:
        await redis.config_set("maxclients", 1)
        with pytest.raises(RedisError, match="max number of clients"):
            await Redis.from_url(endpoint.url).ping()
        assert await asyncio.to_thread(client.check, "redis", since=time.time()) == ""
        assert client.losses == {}


async def check_beside_another_request(client, tries=5):
    """What a check of a silent server finds, and when its test had failed: asked for first, and answered last."""
    for number in range(tries):  # this process may be kept from asking for longer than the check takes
        answered, failed_at = [], time.time()
        check = asyncio.create_task(asyncio.to_thread(client.check, "redis", since=failed_at))
        while len(client._checks) == number:  # noqa: ASYNC110 (nobody tells of it)
            await asyncio.sleep(0.01)
        client._checks[number].add_done_callback(lambda _, answered=answered: answered.append("check"))
        other = client.ensure(spec_of("redis", provider="embedded", migrations=f"{number}"))  # the same server
        other.add_done_callback(lambda _, answered=answered: answered.append("other"))
        found = await check
        await asyncio.wrap_future(other)
        if answered[0] == "other":
            return failed_at, found
    raise AssertionError("the check held up the request that came after it")


async def test_a_server_that_does_not_answer_for_a_while_is_told_of_once_and_not_lost(client, root):
    await client.endpoint(spec_of("redis", provider="embedded"))
    [supervisor] = supervisors(root)
    [server] = servers_of(supervisor)
    os.kill(server, signal.SIGSTOP)
    try:
        failed_at, found = await check_beside_another_request(client)
        assert found.startswith("The service 'redis' (Redis")
        assert found.endswith(" does not answer any more: no answer within 2 s.")
    finally:
        os.kill(server, signal.SIGCONT)
    assert client.check("redis", since=failed_at) == found  # of another test that failed when that one did
    assert client.losses == {}
    assert await asyncio.to_thread(client.check, "redis", since=time.time()) == ""
