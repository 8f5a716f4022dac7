"""Suites small enough to read, run by the command line as a user runs it."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import preloaded
import pytest


@dataclass(frozen=True)
class Finished:
    """A finished command: ``seconds`` from spawn to exit, and what it printed."""

    code: int
    out: str
    err: str
    seconds: float


#: anyio runs each test on every backend that it knows, unless told otherwise.
_ON_ASYNCIO = """
import pytest

@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"
"""

Atk = Callable[..., Awaitable[Finished]]


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """Write files into a fresh project; ``name__py="..."`` becomes ``name.py``."""

    def write(**files: str) -> Path:
        (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n[tool.asynctest_kit]\n")
        (tmp_path / "conftest.py").write_text(_ON_ASYNCIO)
        for name, text in files.items():
            stem, _, suffix = name.rpartition("__")
            (tmp_path / f"{stem}.{suffix}").write_text(textwrap.dedent(text))
        return tmp_path

    return write


def _clean() -> dict[str, str]:
    """Our environment, without what is about this run."""
    return {
        key: value for key, value in os.environ.items() if not key.startswith("ATK_") and key != "PYTEST_CURRENT_TEST"
    }


@pytest.fixture
def atk() -> Atk:
    """Run ``atk`` with arguments in a folder."""

    async def run(*arguments: str, cwd: Path, **environment: str) -> Finished:
        start = time.perf_counter()
        done = await preloaded.finished(["-m", "asynctest_kit", *arguments], cwd=cwd, env=_clean() | environment)
        return Finished(done.returncode, done.stdout, done.stderr, time.perf_counter() - start)

    return run


@pytest.fixture
def run_pytest() -> Callable[..., Awaitable[tuple[int, str]]]:
    """Run plain pytest in a folder; give its exit code and what it said."""

    async def run(*arguments: str, cwd: Path, **environment: str) -> tuple[int, str]:
        done = await preloaded.finished(["-m", "pytest", *arguments], cwd=cwd, env=_clean() | environment)
        return done.returncode, done.stdout + done.stderr

    return run
