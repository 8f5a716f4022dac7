"""Services outside of a run: kept up, shown, quoted, removed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager

import asyncpg
import pytest
from redis.asyncio import Redis

from asynctest_kit.provision.client import Client
from asynctest_kit.provision.runtime import project_of
from asynctest_kit.provision.service import ServiceSpec
from asynctest_kit.provision.visit import Visit

pytestmark = pytest.mark.anyio

EMBEDDED = {"ATK_PROVIDER": "embedded"}

IMAGE = os.environ.get("ATK_REDIS_IMAGE") or "asynctest-kit/redis:testbed"

SUITE = """
    async def test_row(pg):
        assert await pg.fetchval("SELECT 1") == 1
"""


BROKEN = """
    [tool.asynctest_kit.services.broken]
    kind = "redis"
    command = ["--no-such-option", "1"]
"""


def in_docker():
    return subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False).returncode == 0


@asynccontextmanager
async def services_up(atk, root, *arguments, **environment):
    """The project's services, kept up for the block."""
    started = await atk("up", *arguments, cwd=root, **EMBEDDED | environment)
    try:
        yield started
    finally:
        await atk("down", cwd=root)


def supervisor_of(root):
    visit = Visit.at(root)
    assert visit is not None
    try:
        return visit.survey()
    finally:
        visit.close()


async def test_services_stay_for_the_runs_that_follow(project, atk):
    root = project(test_it__py=SUITE)
    async with services_up(atk, root) as started:
        assert started.code == 0, started.err
        assert "Kept until `atk down`, or until nobody has used them for 30 min." in started.out
        first, second = [await atk("run", "-q", cwd=root, **EMBEDDED) for _ in range(2)]
        assert first.code == second.code == 0, first.out
        assert "was up already" in first.out and "was up already" in second.out
    ended = await atk("ps", cwd=root)
    assert ended.out == "Nothing is up for this project. `atk up` starts its services.\n"


@pytest.mark.once
async def test_what_is_up_is_shown_without_its_password(project, atk):
    root = project()
    async with services_up(atk, root, "redis", "--idle", "1h"):
        shown = await atk("ps", cwd=root)
        while "1 client;" in shown.out:  # what waits for the next run has a look
            shown = await atk("ps", cwd=root)
        url = (await atk("url", "redis", cwd=root)).out.strip()
        async with Redis.from_url(url) as redis:
            await redis.shutdown(nosave=True)
        async with asyncio.timeout(50):
            while supervisor_of(root).services:  # noqa: ASYNC110 (nobody tells of it)
                await asyncio.sleep(0.05)
        dead = await atk("ps", cwd=root)
    assert dead.out == "redis  ended with exit code 0\n0 clients; kept for 60 min after the last\n"
    assert "redis  embedded  redis://:***@127.0.0.1:" in shown.out
    assert "postgres" not in shown.out
    assert "0 clients; kept for 60 min after the last" in shown.out
    assert url.startswith("redis://:") and "***" not in url


@pytest.mark.once
async def test_the_url_is_one_that_works(project, atk):
    root = project()
    async with services_up(atk, root, "postgres"):
        url = (await atk("url", "postgres", cwd=root)).out.strip()
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()


SHARED = """
    [tool.asynctest_kit.services.billing-db]
    kind = "postgres"
    server = "postgres"
"""


async def test_a_database_on_the_server_of_another_service_is_one_of_its_own(project, atk):
    root = project(pyproject__toml=SHARED)
    async with services_up(atk, root, "billing-db") as started:
        assert started.code == 0, started.err
        shown = await atk("ps", cwd=root)
        urls = [(await atk("url", name, cwd=root)).out.strip() for name in ("postgres", "billing-db")]
        quoted = await atk("logs", "billing-db", "-n", "1", cwd=root)
        ended = await atk("down", cwd=root)
    assert "on the server of postgres: PostgreSQL" in shown.out
    assert urls[1] == urls[0].removesuffix("/postgres") + "/atk_service_billing_db"
    assert " UTC [" in quoted.out
    assert ended.out == "Removed: postgres, billing-db.\n"


@pytest.mark.once
async def test_a_log_is_quoted(project, atk):
    root = project()
    async with services_up(atk, root, "postgres"):
        quoted = await atk("logs", "postgres", "-n", "1", cwd=root)
        unknown = await atk("logs", "redis", cwd=root)
    assert quoted.out.count("\n") == 1 and " UTC [" in quoted.out
    assert (unknown.code, unknown.err) == (1, "atk: Nobody can read the log of the service 'redis': it is not up.\n")


async def test_a_failure_is_told_and_the_others_stay(project, atk):
    root = project(pyproject__toml=BROKEN)
    async with services_up(atk, root, "broken", "redis") as started:
        assert started.code == 1
        assert "broken  FAILED after" in started.out
        assert "no-such-option" in started.out
        assert [service.name for service in supervisor_of(root).services] == ["redis"]
        again = await atk("up", "broken", cwd=root, **EMBEDDED)
        assert again.code == 1
        assert "Kept" not in again.out
        assert [service.name for service in supervisor_of(root).services] == ["redis"]


async def test_where_all_fail_nothing_is_kept(project, atk):
    root = project(pyproject__toml=BROKEN)
    async with services_up(atk, root, "broken") as started:
        assert started.code == 1
        assert "broken  FAILED after" in started.out
        assert "Kept" not in started.out
        assert Visit.at(root) is None


SLOW = """
    [tool.asynctest_kit.services.slow]
    kind = "redis"
    url = "redis://127.0.0.1:{port}"
    startup-timeout = "120s"
"""


async def broken_off(root, *names, has_begun=None):
    """What `atk up` says when Ctrl-C is pressed: once it has printed that a service is ready, or ``has_begun``."""
    command = [sys.executable, "-m", "asynctest_kit", "up", *names]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ATK_")} | EMBEDDED
    process = await asyncio.create_subprocess_exec(
        *command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        if has_begun is None:
            while b"  ready in" not in await process.stdout.readline():
                assert not process.stdout.at_eof()
        else:
            deadline = time.monotonic() + 60
            while not has_begun(root):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, err.decode()


def has_supervisor(root):
    return any(entry.is_dir() for entry in project_of(root).directory.iterdir())


def uses_slow(root):
    return any(service.name == "slow" and service.users for service in supervisor_of(root).services)


@pytest.mark.once
async def test_a_start_that_is_broken_off_says_what_it_leaves(project, atk):
    with socket.socket() as nobody:  # bound, so that it is nobody else's, and not listening
        nobody.bind(("127.0.0.1", 0))
        root = project(pyproject__toml=SLOW.format(port=nobody.getsockname()[1]))
        told = "atk: interrupted; nothing was up yet, and what had begun to start is removed.\n"
        assert await broken_off(root, "slow", has_begun=has_supervisor) == (130, told)
        assert Visit.at(root) is None
        try:
            told = "atk: interrupted; kept: redis; still starting: slow. `atk down` removes them.\n"
            assert await broken_off(root, "redis", "slow") == (130, told)
            url = await atk("url", "redis", cwd=root)
            assert url.out.startswith("redis://"), url.err
            told = "atk: interrupted; others keep the supervisor up, and it goes on with slow. `atk ps` shows it.\n"
            assert await broken_off(root, "slow", has_begun=uses_slow) == (130, told)
        finally:
            await atk("down", cwd=root)


@pytest.mark.once
async def test_nobody_for_long_enough_ends_it(project, atk):
    root = project()
    async with services_up(atk, root, "redis", "--idle", "0.5"):
        deadline = time.monotonic() + 15
        while (visit := Visit.at(root)) is not None:
            visit.close()
            assert time.monotonic() < deadline
            await asyncio.sleep(1.0)  # longer than it waits for the next one
        assert not any(entry.is_dir() for entry in project_of(root).directory.iterdir())


async def test_down_is_told_whom_it_took_them_from(project, atk):
    root = project()
    client = Client.connect(root)
    try:
        given = await client.endpoint(ServiceSpec(name="redis", kind="redis", provider="embedded"))
        await client.endpoint(ServiceSpec(name="theirs", kind="redis", url=given.url))
        ended = await atk("down", cwd=root)
    finally:
        await asyncio.to_thread(client.close)
    assert ended.out == "Removed: redis, though 1 client used it. Yours, and left as they are: theirs.\n"


async def test_without_up_the_last_client_ends_it(project, atk):
    root = project()
    client = Client.connect(root)
    await client.endpoint(ServiceSpec(name="redis", kind="redis", provider="embedded"))
    shown = await atk("ps", cwd=root)
    await asyncio.to_thread(client.close)
    assert "1 client; gone with the last" in shown.out
    assert Visit.at(root) is None


@pytest.fixture
def apart(monkeypatch):
    """A runtime directory of the test's own: in the common one anybody's supervisor may be the first to clean up."""
    with tempfile.TemporaryDirectory(prefix="atk-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield


@pytest.mark.once
@pytest.mark.usefixtures("apart")
async def test_what_a_killed_supervisor_left_is_removed(project, atk):
    root = project()
    await atk("up", "redis", cwd=root, **EMBEDDED)
    [session] = [entry for entry in project_of(root).directory.iterdir() if entry.is_dir()]
    os.kill(supervisor_pid(root), signal.SIGKILL)
    swept = await atk("gc", cwd=root, DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert f"removed the directory {session.name}, and the server in it" in swept.out
    assert not session.exists()


def supervisor_pid(root):
    client = Visit.at(root)
    try:
        log = project_of(root).directory.glob("*/log")
        return int(next(log).read_text().partition("process ")[2].partition(" ")[0])
    finally:
        client.close()


_UNKNOWN = "atk: No service is called 'oracle'. There are: mockserver, postgres, redis, wiremock.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("up", "oracle"), _UNKNOWN),
        (("up", "--idle", "soon"), 'atk: --idle: "soon" is not a duration. Allowed: seconds as a number, or'),
        (("up", "--idle", "0"), "atk: --idle: services that are kept for no time are not kept."),
        (("up", "--provider", "podman"), 'atk: flag --provider: "podman" is unknown. Allowed: auto, docker,'),
        (("url", "redis"), "atk: The service 'redis' is not up. Nothing is up for this project; `atk up`"),
        (("logs", "redis"), "atk: The service 'redis' is not up. Nothing is up for this project; `atk up`"),
        (("url", "oracle"), _UNKNOWN),
        (("logs", "oracle"), _UNKNOWN),
        (
            ("exec", "oracle", "--", "true"),
            _UNKNOWN,
        ),
    ],
)
async def test_what_can_not_be_is_refused_with_what_can(project, atk, arguments, message):
    finished = await atk(*arguments, cwd=project())
    assert finished.code == 4
    assert finished.err.startswith(message), finished.err


async def test_nothing_is_up(project, atk):
    assert (await atk("down", cwd=project())).out == "Nothing is up for this project.\n"


@pytest.mark.once
async def test_many_runs_at_once_share_what_is_up(project, atk):
    root = project(test_it__py=SUITE)
    async with services_up(atk, root, "postgres"):
        run = ("run", "-q", "-p", "no:cacheprovider")
        runs = await asyncio.gather(*(atk(*run, cwd=root, **EMBEDDED) for _ in range(16)))
        assert [run.code for run in runs] == [0] * 16, runs
        assert all("was up already" in run.out for run in runs)
        assert supervisor_of(root).clients == 0


@pytest.mark.once
async def test_a_container_of_any_image_is_a_service_like_any_other(project, atk):
    image = os.environ.get("TESTS_BUSYBOX_IMAGE") or "asynctest-kit/busybox:testbed"
    settings = f"""
        [tool.asynctest_kit.services.web]
        image = "{image}"
        command = ["sh", "-c", "echo serving; httpd -f -p 80"]
        ports = {{ http = 80 }}
        scheme = "http"
        needs = ["job"]

        [tool.asynctest_kit.services.job]
        image = "{image}"
        command = ["echo", "all done"]
        once = true
    """
    root = project(pyproject__toml=settings)
    async with services_up(atk, root, "web", ATK_PROVIDER="docker") as started:
        assert started.code == 0, started.err
        assert "web  ready in" in started.out and "http://127.0.0.1:" in started.out
        shown = await atk("ps", cwd=root)
        url = await atk("url", "web", cwd=root)
        none = await atk("url", "job", cwd=root)
        logs = [(await atk("logs", name, cwd=root)).out for name in ("web", "job")]
    assert "job  docker    (no port)" in shown.out and "web  docker    http://127.0.0.1:" in shown.out
    assert url.out.startswith("http://127.0.0.1:")
    assert (none.code, none.err) == (1, "atk: The service 'job' exposes no port, so it has no URL.\n")
    assert logs == ["serving\n", "all done\n"]


IN_DOCKER = {"ATK_PROVIDER": "docker", "ATK_REDIS_IMAGE": IMAGE}

CONTAINER = """
    [tool.asynctest_kit.services.redis.container]
    entrypoint = ["sh", "/entry.sh"]
    files = { "/entry.sh" = "entry.sh" }
"""

ENTRY = """
    echo "to stdout"
    echo "to stderr" >&2
    exec "$@"
"""


@asynccontextmanager
async def following(root):
    """``atk logs redis --follow``, once it follows; it ends with the service."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "asynctest_kit", "logs", "redis", "--follow",
        cwd=root, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert await process.stdout.readline() == b"to stdout\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.once
async def test_a_container_is_looked_into(project, atk):
    if not in_docker():
        pytest.skip(f"no Docker with the image {IMAGE}")
    root = project(pyproject__toml=CONTAINER, entry__sh=ENTRY)
    async with services_up(atk, root, "redis", **IN_DOCKER) as started:
        assert started.code == 0, started.out
        async with following(root) as log:
            script = "echo I am $WHO; echo no >&2; exit 3"
            ran, wrong, nobody, unknown = await asyncio.gather(
                atk("exec", "-e", "WHO=me", "redis", "--", "sh", "-c", script, cwd=root),
                atk("exec", "-e", "WHO", "redis", "--", "true", cwd=root),
                atk("exec", "postgres", "--", "true", cwd=root),
                atk("exec", "redis", "--", "nosuch", cwd=root),
            )
            down = await atk("down", cwd=root)
            out, err = await log.communicate()
    assert (ran.code, ran.out, ran.err) == (3, "I am me\n", "no\n")
    assert (wrong.code, wrong.err) == (4, "atk: --env: 'WHO' is no variable. Allowed: NAME=VALUE.\n")
    assert (nobody.code, nobody.err) == (1, "atk: Nobody can run true in the service 'postgres': it is not up.\n")
    told = "atk: There is no program 'nosuch' in the service 'redis'.\n"
    assert (unknown.out, unknown.err) == ("", told)
    assert unknown.code in {126, 127}
    assert "Removed: redis" in down.out
    assert (log.returncode, err) == (0, b"to stderr\n")
    assert b"Ready to accept connections" in out


@pytest.mark.once
async def test_the_manual_s_programs_need_no_password(project, atk):
    if not in_docker():
        pytest.skip(f"no Docker with the image {IMAGE}")
    root = project(
        test_it__py="""
            async def test_the_schema_is_dumped(service_console, postgres, pg):
                done = await service_console("postgres").run(
                    "pg_dump", "-U", "postgres", "--schema-only", postgres.database
                )
                assert "PostgreSQL database dump complete" in done.text
        """
    )
    image = os.environ.get("ATK_POSTGRES_IMAGE") or "asynctest-kit/postgres:testbed"
    docker = IN_DOCKER | {"ATK_POSTGRES_IMAGE": image}
    async with services_up(atk, root, "postgres", **docker) as started:
        assert started.code == 0, started.out
        asked, silent, ran = await asyncio.gather(
            atk("exec", "postgres", "--", "psql", "-U", "postgres", "-c", "SELECT 1", cwd=root),
            atk("exec", "postgres", "--", "psql", "-U", "postgres", cwd=root),
            atk("run", "-q", cwd=root, **docker),
        )
    assert "(1 row)" in asked.out, asked.err
    assert (silent.code, silent.err) == (0, "")
    assert ran.code == 0, ran.out


@pytest.mark.once
async def test_nothing_is_run_in_a_local_program(project, atk):
    root = project()
    async with services_up(atk, root, "redis"):
        refused = await atk("exec", "redis", "redis-cli", cwd=root)
    assert refused.code == 1
    assert "Nobody can run redis-cli in the service 'redis': it is in no container" in refused.err


async def test_a_setting_that_needs_a_container_is_told_where_there_is_none(project, atk):
    root = project(pyproject__toml=CONTAINER, entry__sh=ENTRY)
    async with services_up(atk, root, "redis") as started:
        assert started.code == 1
    assert "embedded: it starts a local program, and the settings under `container` want more: entrypoint, files" in (
        started.out
    )


@pytest.mark.once
async def test_a_registry_that_hangs_fails_only_the_tests_that_need_it(project, atk):
    if not in_docker():
        pytest.skip("no Docker")
    root = project(
        test_it__py="""
            async def test_key(redis):
                assert await redis.dbsize() == 0

            async def test_sum():
                assert 1 + 1 == 2
        """
    )
    gone = asyncio.Event()

    async def say_nothing(_reader, writer):
        await gone.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as registry:
        host = f"127.0.0.1:{registry.sockets[0].getsockname()[1]}"
        environment = {"ATK_PROVIDER": "docker", "ATK_REDIS_IMAGE": f"{host}/cache:1", "ATK_PULL_STALL": "0.5"}
        ran = await atk("run", "-q", cwd=root, **environment)
        gone.set()
    assert ran.code == 1
    assert "1 passed, 1 error" in ran.out, ran.out
    assert "No provider can give the service 'redis'" in ran.out
    assert (
        f"docker: the image {host}/cache:1 is not there and can't be pulled from {host}: the registry {host} made"
        in (ran.out)
    )
