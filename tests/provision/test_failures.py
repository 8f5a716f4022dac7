"""What goes wrong with engines, images and disks is told of the service that it befalls; the others are up."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from own_engine import APART
from provision_traces import BUSYBOX, HEALTHCHECK, IMAGES
from registries import silent_registry
from small_images import root_of_redis
from suites import ATK, PYTEST, outcome, running, running_apart, write_suite

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


def on_small_disks(**sizes):
    """Start a command with small disks of its own at these folders."""
    mounts = " && ".join(f"mount -t tmpfs -o size={size} none {folder}" for folder, size in sizes.items())
    return ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh")


@pytest.fixture
def short_path():
    """A folder whose path leaves room for that of a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.once
async def test_a_full_disk_is_told_of_the_service_that_filled_it(root, short_path, tmp_path):
    write_suite(root, BOTH)
    disks = on_small_disks(**{"/dev/shm": "8m", str(short_path): "16m"})
    more = {"TMPDIR": str(short_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    async with running_apart(root, ATK, prefix=disks, ATK_PROVIDER="embedded", **more) as run:
        out, code = await outcome(run)
    assert code == 1, out
    assert failed(out) == {"postgres"}, out
    assert "No provider can give the service 'postgres'" in out
    assert "No space left on device" in out


@pytest.mark.once
async def test_a_cache_that_is_full_costs_nothing_but_time(root, tmp_path):
    write_suite(root, BOTH)
    cache = tmp_path / "cache"
    cache.mkdir()
    look = (
        f"import os, subprocess, sys; subprocess.run([sys.executable, *{ATK}], check=True); print(*os.walk('{cache}'))"
    )
    disks = on_small_disks(**{str(cache): "1m"})
    async with running_apart(
        root, ("-c", look), prefix=disks, ATK_PROVIDER="embedded", XDG_CACHE_HOME=str(cache)
    ) as run:
        out, code = await outcome(run)
    assert code == 0, out
    assert "3 passed" in out
    left = out.splitlines()[-1]
    assert "snapshots', [], [" in left  # a folder without folders
    assert ".owner" not in left


UNREADABLE = """
    [tool.asynctest_kit.services.box]
    image = "busybox"
    wait = { log = "up" }
    container.files = { "/site" = "site" }
"""

NEEDS_BOX = """
    def test_needs_box(box):
        pass

    def test_needs_nothing():
        pass
"""


@pytest.mark.parametrize("how", [ATK, PYTEST], ids=["atk", "pytest"])
async def test_what_can_not_be_asked_for_fails_the_tests_that_need_it(root, how):
    write_suite(root, NEEDS_BOX, UNREADABLE)
    (root / "site").mkdir()
    (root / "site" / "index").symlink_to(root / "nowhere")
    async with running(root, how) as run:
        out, code = await outcome(run)
    assert code == 1, out
    assert failed(out) == {"box"}, out
    assert "What goes into the container of the service 'box' can't be read" in out
    assert "1 passed, 1 error" in out or "1 passed, 1 failed" in out, out


async def test_a_private_folder_that_is_open_to_others_fails_the_tests_that_need_services(root, short_path):
    write_suite(root, BOTH)
    here = {"XDG_RUNTIME_DIR": str(short_path), "ATK_PROVIDER": "embedded"}
    async with running(root, **here) as run:  # the next one will start what this one has used
        out, code = await outcome(run)
    assert code == 0, out
    [private] = short_path.iterdir()
    private.chmod(0o755)
    async with running(root, **here) as run:
        out, code = await outcome(run)
    assert code == 1, out
    assert failed(out) == {"redis", "postgres"}, out
    assert str(private) in out


async def test_an_image_that_is_nowhere_is_told_with_its_name(engine, root):
    write_suite(root, BOTH, OTHERS_EMBEDDED)
    image = "localhost:1/no/such:image"
    async with running(root, ATK, ATK_REDIS_PROVIDER="docker", ATK_REDIS_IMAGE=image) as run:
        out, code = await outcome(run)
    assert code == 1, out
    assert failed(out) == {"redis"}
    assert "No provider can give the service 'redis'" in out
    assert f"docker: the image {image} is not there and can't be pulled from localhost:1: " in out


#: Services each of which can't be had, and the others can.
BROKEN = """
    pull-stall = "5s"

    [tool.asynctest_kit.services.hanging]
    image = "{registry}/cache:1"
    wait = {{ log = "up" }}

    [tool.asynctest_kit.services.missing]
    image = "localhost:1/no/such:image"
    wait = {{ log = "up" }}

    [tool.asynctest_kit.services.unhealthy]
    image = "{healthcheck}"
    command = ["sleep", "600"]
    wait = {{ health = true }}

    [tool.asynctest_kit.services.taken]
    kind = "redis"
    provider = "embedded"
    command = ["--port", "{port}"]

    [tool.asynctest_kit.services.taken-inside]
    image = "{busybox}"
    command = ["sh", "-c", "httpd -p 80; exec httpd -f -p 80"]
    wait = {{ log = "never" }}

    [tool.asynctest_kit.services.full]
    kind = "postgres"
    provider = "docker"
    image = "{postgres}"
    container.tmpfs = ["/var/lib/asynctest_kit:size=4m"]

    [tool.asynctest_kit.services.late]
    image = "{busybox}"
    command = ["sh", "-c", "echo still loading; exec sleep 600"]
    ports = [80]
    startup-timeout = "2s"

    [tool.asynctest_kit.services.needs-missing]
    image = "{busybox}"
    needs = ["missing"]
    wait = {{ log = "up" }}

    [tool.asynctest_kit.services.fine]
    image = "{busybox}"
    command = ["sh", "-c", "echo up; exec sleep 600"]
    wait = {{ log = "up" }}
"""

BROKEN_ONES = ["hanging", "missing", "unhealthy", "taken", "taken-inside", "full", "late", "needs-missing"]

ONE_TEST = """
    def test_needs_{name}({name}):
        assert {name}.detail
"""

#: What a test of each is told, among other things.
TOLD = {
    "hanging": [
        "No provider can give the service 'hanging' (a container of an image; provider = 'auto'):",
        "docker: the image {registry}/cache:1 is not there and can't be pulled from {registry}: ",
        "the registry {registry} made no progress for 5 s",
    ],
    "missing": [
        "No provider can give the service 'missing' (a container of an image; provider = 'auto'):",
        "docker: the image localhost:1/no/such:image is not there and can't be pulled from localhost:1: ",
    ],
    "unhealthy": [
        "The container of the service 'unhealthy' ({healthcheck}) is unhealthy: its HEALTHCHECK ",
        "says 'not well yet'. It wrote no log.",
    ],
    "taken": [
        "Redis for the service 'taken' found its port taken by somebody else, 5 times and each time another one unless",
        "ddress already in use",
    ],
    "taken-inside": [
        "The container of the service 'taken-inside' ({busybox}) ended with exit code 1. Its last words:",
        "  | httpd: bind: Address already in use",
    ],
    "full": [
        "The container of the service 'full' ({postgres}) ended with exit code 1. Its last words:",
        "No space left on device",
    ],
    "late": [
        "The container of the service 'late' ({busybox}) was not ready within 2 s: waited for its port 80 to take ",
    ],
    "needs-missing": [
        "The service 'needs-missing' was not started: it needs 'missing', which failed.",
        "docker: the image localhost:1/no/such:image is not there and can't be pulled from localhost:1: ",
    ],
}

ONE_TEST = """
    def test_needs_{name}({name}):
        assert {name}.detail
"""


@pytest.mark.once
async def test_many_services_that_can_not_be_had_are_each_told_and_the_others_are_up(engine, root):
    tests = [ONE_TEST.format(name=name.replace("-", "_")) for name in (*TOLD, "fine", "tmp_path")]
    async with silent_registry() as registry:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            known = {
                "registry": registry,
                "healthcheck": HEALTHCHECK,
                "busybox": BUSYBOX,
                "postgres": IMAGES["postgres"],
                "port": taken.getsockname()[1],
            }
            write_suite(root, "".join(tests).replace("tmp_path.detail", "tmp_path"), BROKEN.format(**known))
            async with running(root, (*ATK, "--junitxml=told.xml")) as run:
                out, code = await outcome(run)
    assert code == 1, out
    cases = {
        case.get("name").removeprefix("test_needs_").replace("_", "-"): [problem.text for problem in case]
        for case in ET.parse(root / "told.xml").iter("testcase")
    }
    assert {name for name, problems in cases.items() if not problems} == {"fine", "tmp-path"}, out
    for name, parts in TOLD.items():
        [problem] = cases[name]
        for part in parts:
            assert part.format(**known) in problem, problem


@pytest.mark.once
async def test_an_engine_that_is_restarted_ends_its_services_and_only_them(root, short_path):
    if os.geteuid() or not shutil.which("dockerd"):
        pytest.skip("only root can run a Docker engine of its own")
    write_suite(root, BOTH, OTHERS_EMBEDDED)
    (root / "may-go-on").touch()
    (root / "image.tar").write_bytes(await asyncio.to_thread(root_of_redis, shell=True))
    own_engine = (sys.executable, str(OWN_ENGINE), str(short_path), str(root / "image.tar"), str(root / "used"))
    async with running_apart(root, ATK, prefix=(*APART, *own_engine), ATK_REDIS_IMAGE="redis:own") as run:
        out, code = await outcome(run)
    assert code == 1, out
    assert failed(out) == {"redis"}
    assert re.search(r"The service 'redis' \(redis:own at unix://.* in .*\) (ended with exit code|is gone)", out)
    assert out.endswith("left: []\n\n")
