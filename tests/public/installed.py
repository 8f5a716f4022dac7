"""Public suites, installed: each in an environment of its own, in a cache outside of the tree.

Building one takes half a minute, so it is kept, under a name that says all it was made from: the suite, the versions of
Python and pytest, and a hash of what is installed and of where this project's tree lies, for the environment has that
very tree (an editable installation). Nothing in it is changed later: tests run in trees that are unpacked anew.

Environments can't be moved, so one is built in a folder with a name that nobody else has; a symbolic link under the
cache's name is made when it is complete, in one step. A lock keeps others from building the same meanwhile; it goes
with its process, and whoever has it removes what a killed one left.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from limited_process import run
from suites import Suite

__all__ = ["CannotInstallError", "IndexUnreachableError", "Installed", "environment", "install"]

_ROOT = Path(__file__).resolve().parents[2]
_CONSTRAINTS = Path(__file__).with_name("constraints.txt")

#: Seconds that one call of pip may take.
_LIMIT = 280.0

#: What pip says when it gets no answer, as against the answer that there is no such thing.
_UNREACHABLE = ("Retrying (", "ConnectionError", "NewConnectionError", "ConnectTimeout", "ReadTimeout", "ProxyError")

#: Variables that would tell the suites' processes of ours.
_OURS = ("ATK_", "COV_", "COVERAGE_", "PUBLIC_", "PYTEST_", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "TESTS_MAY_NOT_")


class CannotInstallError(Exception):
    """pip failed; the message has the end of what it wrote."""


class IndexUnreachableError(Exception):
    """pip had no answer from the index; the message has the end of what it wrote."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A suite that can run.

    Attributes:
        suite: Which.
        folder: Where its environment is, and its distribution.
    """

    suite: Suite
    folder: Path

    def script(self, name: str) -> Path:
        """A console script of the environment."""
        return self.folder / "venv" / "bin" / name

    def unpack(self, folder: Path) -> Path:
        """Unpack the distribution into ``folder``; gives the tree."""
        shutil.unpack_archive(_sdist(self.folder), folder, filter="data")
        (tree,) = folder.iterdir()
        return tree


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without what is meant for it alone; byte code is cached."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)} | extra


def install(suite: Suite) -> Installed:
    """Find ``suite`` in the cache, or put it there.

    Raises:
        IndexUnreachableError: The package index doesn't answer.
        CannotInstallError: pip failed for another reason.
        TimeLimitError: pip took too long.
    """
    cache = _cache()
    link = cache / _key(suite)
    with _lock(cache / f"{link.name}.lock"):
        if not link.exists():
            for left in cache.glob(f"{link.name}.*/"):
                shutil.rmtree(left)
            link.unlink(missing_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f"{link.name}.", dir=cache))
            _build(suite, folder)
            link.symlink_to(folder.name)
    return Installed(suite, link.resolve())


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(home) / "asynctest_kit" / "public-suites"
    cache.mkdir(parents=True, exist_ok=True)
    return cache.resolve()


def _key(suite: Suite) -> str:
    python = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    made_from = [str(_ROOT), project, _CONSTRAINTS.read_text(), suite.extras, suite.requires, sys.base_prefix]
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    return f"{suite.name}-{suite.version}-python-{python}-pytest-{version('pytest')}-{digest[:12]}"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sdist(folder: Path) -> Path:
    (archive,) = (folder / "sdist").iterdir()
    return archive


def _build(suite: Suite, folder: Path) -> None:
    pinned = ("--constraint", _CONSTRAINTS)
    sdist = folder / "sdist"
    _pip(folder, "download", "--no-deps", "--no-binary", suite.name, "--dest", sdist, f"{suite.name}=={suite.version}")
    venv = run(
        [sys.executable, "-m", "venv", "--without-pip", folder / "venv"],
        out=folder / "venv.log",
        limit=_LIMIT,
        cwd=folder,
        environment=environment(),
    )
    if venv.code:
        raise CannotInstallError(f"{suite.name}: no environment; venv wrote:\n{venv.last_words}")
    extras = f"[{','.join(suite.extras)}]" if suite.extras else ""
    _pip(
        folder,
        "--python",
        folder / "venv",
        "install",
        *pinned,
        f"pytest=={version('pytest')}",
        f"{suite.name}{extras} @ {_sdist(folder).as_uri()}",
        *suite.requires,
        "--editable",
        _ROOT,
    )


def _pip(folder: Path, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--no-input", *arguments]
    ended = run(command, out=folder / "pip.log", limit=_LIMIT, cwd=folder, environment=environment())
    if ended.code:
        reason = IndexUnreachableError if any(words in ended.out for words in _UNREACHABLE) else CannotInstallError
        raise reason(f"pip could not {' '.join(map(str, arguments))}; it wrote:\n{ended.last_words}")
