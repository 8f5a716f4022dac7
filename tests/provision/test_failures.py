"""What goes wrong with engines, images and disks is told of the service that it befalls; the others are up."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from own_engine import APART
from small_images import root_of_redis
from suites import ATK, outcome, running, write_suite

pytestmark = pytest.mark.anyio

OWN_ENGINE = Path(__file__).with_name("own_engine.py")

OTHERS_EMBEDDED = """
    [tool.asynctest_kit.services.postgres]
    provider = "embedded"
"""

BOTH = """
    import asyncio
    from pathlib import Path
    import pytest

    pytestmark = pytest.mark.anyio

    async def test_needs_redis(redis):
        Path("used").touch()
        while Path("may-go-on").exists():
            await redis.get("key")
            await asyncio.sleep(0.01)

    async def test_needs_postgres(pg):
        assert await pg.fetchval("SELECT 1") == 1

    async def test_needs_nothing():
        pass
"""


def failed(out):
    return set(re.findall(r"^(?:FAILED|ERROR) test_it\.py::test_needs_(\w+)", out, re.MULTILINE))


async def test_an_engine_that_is_restarted_ends_its_services_and_only_them(root):
    if os.geteuid() or not shutil.which("dockerd"):
        pytest.skip("only root can run a Docker engine of its own")
    write_suite(root, BOTH, OTHERS_EMBEDDED)
    (root / "may-go-on").touch()
    (root / "image.tar").write_bytes(await asyncio.to_thread(root_of_redis, shell=True))
    with tempfile.TemporaryDirectory() as folder:  # a short path, for its sockets
        own_engine = (sys.executable, str(OWN_ENGINE), folder, str(root / "image.tar"), str(root / "used"))
        async with running(root, ATK, prefix=(*APART, *own_engine), ATK_REDIS_IMAGE="redis:own") as run:
            out, code = await outcome(run)
    assert code == 1, out
    assert failed(out) == {"redis"}
    assert re.search(r"The service 'redis' \(redis:own in .*\) (ended with exit code|is gone)", out)
    assert out.endswith("left: []\n\n")
