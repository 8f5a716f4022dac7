"""Suites in projects of their own, run as users run them, while something happens to their services."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import textwrap
from contextlib import asynccontextmanager, suppress

import preloaded
from provision_traces import IMAGES

_ON_ASYNCIO = """
import pytest

@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"
"""

PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
ATK = ("-m", "asynctest_kit", "run", "-q", "-p", "no:cacheprovider")


def write_suite(root, test_it, settings=""):
    (root / "pyproject.toml").write_text(
        f"[tool.pytest.ini_options]\n[tool.asynctest_kit]\n{textwrap.dedent(settings)}"
    )
    (root / "conftest.py").write_text(_ON_ASYNCIO)
    (root / "test_it.py").write_text(textwrap.dedent(test_it))


def environment(**more):
    """The environment of a user who has set nothing, with the images that are here."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ATK_") and name != "PYTEST_CURRENT_TEST"
    }
    return clean | {f"ATK_{name.upper()}_IMAGE": image for name, image in IMAGES.items()} | more


class Forked:
    """A run whose process was forked with its imports done: the part of asyncio's that is needed of it."""

    def __init__(self, process, out):
        self._process = process
        self._out = out

    async def communicate(self):
        await self._process.ended()
        self._out.seek(0)
        return self._out.read(), None

    @property
    def returncode(self):
        return self._process.poll()


@asynccontextmanager
async def running(root, how=ATK, **more):
    """A run of the suite at ``root``; killed at the end of the block, if it still runs."""
    with tempfile.TemporaryFile() as out:
        process = await preloaded.started(how, cwd=root, env=environment(**more), out=out, err=out)
        try:
            yield Forked(process, out)
        finally:
            process.send_signal(signal.SIGKILL)


@asynccontextmanager
async def running_apart(root, how=ATK, *, prefix=(), **more):
    """As ``running``, but started as users start it: with an environment that others see, or in namespaces."""
    process = await asyncio.create_subprocess_exec(
        *prefix,
        *(sys.executable, *how),
        cwd=root,
        env=environment(**more),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def outcome(process):
    """What a run printed, and its exit code, when it has ended; it has a minute for that."""
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    return output.decode(), process.returncode
