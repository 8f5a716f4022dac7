"""What a run's report says of Redis: what it could not give tests, and what they left."""

from __future__ import annotations

import json

import pytest

from asynctest_kit.provision.client import Client
from asynctest_kit.provision.service import ServiceSpec

pytestmark = pytest.mark.anyio

SUITE = """
    import redis.asyncio

    LEFT = []  # what is freed may be closed in time

    async def test_client(redis):
        await redis.set("key", 1)

    async def test_application(redis_url, redis_prefix):
        LEFT.append(redis.asyncio.from_url(redis_url))
        await LEFT[0].set(f"{redis_prefix}key", 1)

    async def test_refused(redis_url):
        try:
            await redis.asyncio.from_url(redis_url).flushall()
        except redis.exceptions.NoPermissionError:
            pass

    async def test_raises(redis_url):
        await redis.asyncio.from_url(redis_url).publish("events", 1)
"""


@pytest.fixture
def server(tmp_path_factory):
    """One of the user's own, with a single database."""
    client = Client.connect(tmp_path_factory.mktemp("server"))
    spec = ServiceSpec(name="redis", kind="redis", provider="embedded", command=("--databases", "1"))
    yield client.ensure(spec).result()
    client.close()


async def test_a_run_tells_what_redis_lacks_and_what_tests_left(project, atk, server):
    folder = project(test_it__py=SUITE)
    done = await atk("run", "--report-json", "report.json", cwd=folder, ATK_REDIS_URL=server.url)
    words = " ".join(done.out.split())
    way_out = '@pytest.mark.atk(isolation="server") gives the test a server of its own'
    assert (
        f"its application was refused the command FLUSHALL: FLUSHDB empties the test's own database. {way_out}" in words
    )
    refused = words.partition("NoPermissionError: ")[2]
    mend = "hannels must begin with what the fixture redis_prefix gives"
    assert refused.partition(way_out)[0].count(f"C{mend}. ") == 1, "where it is raised, and not in the tear-down alone"
    assert f"its application was refused the channel events: c{mend}" in words
    assert done.code == 1
    report = json.loads((folder / "report.json").read_text())
    found = {one["nodeid"].rpartition("::")[2]: one["text"] for one in report["findings"]}
    assert "left an idle connection to its Redis database open, which was cut" in found["test_application"]
    assert "told apart by a prefix of their keys" in found["redis"]
    assert server.password not in done.out + json.dumps(report)
