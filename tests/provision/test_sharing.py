"""All runs of a checkout at one time share its services, whoever starts them; those of another never do."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from provision_traces import eventually, sessions, spec_of
from suites import ATK, PYTEST, outcome, running, write_suite

from asynctest_kit.provision.client import Client
from asynctest_kit.provision.visit import Visit

pytestmark = pytest.mark.anyio

REDIS = spec_of("redis", provider="embedded")

#: Nobody goes on before the given number of processes have come, so that all of them have their services at one time.
MEETING = """
    import asyncio
    import os
    from pathlib import Path
    import pytest

    pytestmark = pytest.mark.anyio

    async def all_there(port):
        with open("came", "a") as file:
            file.write(f"{{os.getpid()}} {{port}}\\n")
        async with asyncio.timeout(30):
            while len({{line.split()[0] for line in Path("came").read_text().splitlines()}}) < {expected}:
                await asyncio.sleep(0.02)

    @pytest.mark.parametrize("number", [1, 2])
    async def test_meets_the_others(redis_server, redis, number):
        await all_there(redis_server.port)
        await redis.set("key", number)
        assert await redis.get("key") == b"%d" % number
"""


def ports(root):
    return {line.split()[1] for line in (root / "came").read_text().splitlines()}


@pytest.mark.once
async def test_the_runs_of_one_checkout_share_and_those_of_two_never_do(root, tmp_path):
    pytest.importorskip("xdist")
    write_suite(root, MEETING.format(expected=4))
    other = tmp_path / "other" / root.name
    shutil.copytree(root, other)
    (other / "test_it.py").write_text((root / "test_it.py").read_text().replace("< 4", "< 1"))
    runs = [(root, ATK), (root, PYTEST), (root, (*PYTEST, "-n", "2")), (other, ATK)]
    async with AsyncExitStack() as stack:
        each = [await stack.enter_async_context(running(*run, ATK_PROVIDER="embedded")) for run in runs]
        outcomes = await asyncio.gather(*map(outcome, each))
    assert [code for _, code in outcomes] == [0, 0, 0, 0], outcomes
    assert len(ports(root)) == 1
    assert len(ports(other)) == 1
    assert ports(root) != ports(other)
    await eventually(lambda: sessions(root) == [])


async def test_clients_that_come_at_once_have_one_supervisor(root):
    clients = [Client.connect(root) for _ in range(4)]
    try:
        endpoints = await asyncio.gather(*(client.endpoint(REDIS) for client in clients))
        assert len(set(endpoints)) == 1
        await eventually(lambda: len(sessions(root)) == 1)
    finally:
        await asyncio.gather(*(asyncio.to_thread(client.close) for client in clients))
    await eventually(lambda: sessions(root) == [])


def open_files():
    found = []
    for descriptor in Path("/dev/fd").iterdir():
        with suppress(OSError):
            found.append(descriptor.stat().st_ino)
    return found


async def test_services_are_kept_for_one_of_those_that_come_at_once(root):
    clients = [Client.connect(root) for _ in range(2)]
    for client in clients:
        client.keep(60.0)
    await asyncio.gather(*(client.endpoint(REDIS) for client in clients))
    await asyncio.gather(*(asyncio.to_thread(client.close) for client in clients))
    visit = Visit.at(root)
    assert visit is not None
    survey = await asyncio.to_thread(visit.survey)
    await asyncio.to_thread(visit.end)
    mine = os.fstat(visit._link._connection.fileno()).st_ino
    visit.close()
    assert mine not in open_files()
    assert (survey.clients, survey.idle, [service.name for service in survey.services]) == (0, 60.0, ["redis"])
