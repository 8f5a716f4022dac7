"""What a run imported that the next one can have beforehand: of pytest, this kit, their dependencies and plugins."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from contextlib import chdir, suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import TYPE_CHECKING

from asynctest_kit.cli.warm import meeting
from asynctest_kit.errors import ProvisionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from asynctest_kit.settings import Settings

__all__ = [
    "Recipe",
    "begin_anew_unless",
    "begin_as",
    "failed_imports",
    "give_back",
    "is_awaited",
    "kept_by",
    "leave_a_process",
    "recipe_path",
    "required",
    "take_lock",
]

#: Bytes at the beginning of the lock's file that say for which supervisor its holder waits.
_MARK = 20

#: Seconds between two looks for a lock that is not free yet.
_LOOKS = 0.05

#: What every run imports.
_ALWAYS = (
    "asynctest_kit.cli.commands",
    "asynctest_kit.cli.run",
    "asynctest_kit.cli.warm.handover",
    "asynctest_kit.provision.client",
    "asynctest_kit.report.live",
    "asynctest_kit.run.engine",
    "asynctest_kit.run.installed",
    "asynctest_kit.run.reports",
    "asynctest_kit.run.wiring",
    "pytest",
)

#: What this kit and pytest import under other names than those of the distributions that they require.
_OTHER_NAMES = frozenset({"_pytest", "asynctest_kit", "markdown_it", "mdurl", "pygments", "pytest"})

#: Packages that do nothing when they are imported, and read nothing that a conftest file could change before.
_HARMLESS = frozenset({"greenlet", "sqlalchemy", "starlette"})

#: The whole program of a process that waits; the current folder is not to be imported from.
_PROGRAM = "import sys; sys.path[:1] == [''] and sys.path.pop(0); from asynctest_kit.cli.warm.spare import main; main()"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a process that waits for runs from one folder imports, and how long it waits.

    Attributes:
        root: The project's root: it waits as long as the project's services are kept.
        modules: Names, in the order of a run's imports.
        folders: Where the project's own modules are searched, which may be called as others are.
        asked_for: The packages among the modules that are imported because the settings say so.
    """

    root: str
    modules: tuple[str, ...]
    folders: tuple[str, ...]
    asked_for: tuple[str, ...] = ()

    @classmethod
    def of_this_run(cls, settings: Settings, plugins: Iterable[str] | None) -> Recipe:
        """What this process has imported of what may be imported before a run begins.

        Of the standard library that is what those import: a module whose import warns does so in every run.

        Args:
            settings: The project's.
            plugins: The modules of pytest's installed plugins in this process; None if it has run no tests.
        """
        root = settings.root
        known = {
            *_OTHER_NAMES,
            *_HARMLESS,
            *settings.warm_imports,
            *required(),
            *(name.partition(".")[0] for name in plugins or ()),
        }
        return cls(
            root=str(root),
            modules=(*_ALWAYS, *(name for name in sys.modules if name.partition(".")[0] in known)),
            folders=tuple(map(str, _folders(root, has_run=plugins is not None))),
            asked_for=tuple(name for name in settings.warm_imports if name in sys.modules),
        )

    @classmethod
    def kept(cls, path: Path) -> Recipe | None:
        """The one in a file; None if there is none that makes sense."""
        import json

        try:
            data = json.loads(path.read_bytes())
            modules, folders, asked_for = (tuple(map(str, data[name])) for name in ("modules", "folders", "asked_for"))
            return cls(str(data["root"]), modules, folders, asked_for)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, path: Path) -> None:
        """Write it, in one step that is either done or not."""
        import json

        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
            file.write(json.dumps(asdict(self)))
        Path(file.name).replace(path)


#: What this process has imported before it knew its run, because the settings of another run said so.
_asked_for: set[str] = set()


#: Of those what failed, with the error.
_failed: dict[str, str] = {}


def begin_as(recipe: Recipe, failed: Mapping[str, str]) -> None:
    """Note that this process has followed the recipe, but for what failed, and is a run now."""
    _asked_for.update(recipe.asked_for)
    _failed.update((name, error) for name, error in failed.items() if name in recipe.asked_for)


def failed_imports() -> Mapping[str, str]:
    """What the settings name and could not be imported before this run, with the error."""
    return _failed


def begin_anew_unless(settings: Settings) -> None:
    """Run the whole program once more, in this process, if what it has imported is more than the settings say."""
    if not _asked_for.issubset(settings.warm_imports):
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 (itself)


def recipe_path() -> Path:
    """Where the recipe for runs from the current folder is kept."""
    return Path(f"{meeting.socket_path()}.recipe")


def take_lock(supervisor: int, *, within: float = 0.0) -> int | None:
    """What the one holds that waits for runs from the current folder; None if another does.

    Args:
        supervisor: The process that keeps the project's services, for as long as it waits.
        within: Seconds for another to leave whose services are not kept any more.
    """
    deadline = time.monotonic() + within
    while (lock := _locked(supervisor)) is None:
        if is_awaited(supervisor) or time.monotonic() > deadline:
            return None
        time.sleep(_LOOKS)
    return lock


def give_back(lock: int) -> None:
    """Let another wait for runs."""
    os.ftruncate(lock, 0)
    os.close(lock)


def is_awaited(supervisor: int) -> bool:
    """Whether a process waits for runs from the current folder, as long as ``supervisor`` keeps the services."""
    lock = os.open(_lock_path(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(lock, _MARK, 0) == _mark(supervisor)
    finally:
        os.close(lock)
    return False


def _locked(supervisor: int) -> int | None:
    lock = os.open(_lock_path(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    os.pwrite(lock, _mark(supervisor), 0)
    return lock


def _lock_path() -> str:
    return f"{meeting.socket_path()}.lock"


def _mark(supervisor: int) -> bytes:
    return f"{supervisor}".ljust(_MARK).encode()


def leave_a_process(here: Path, settings: Settings, plugins: Iterable[str] | None = None) -> None:
    """Have a process wait for the next run from here, if the project's services are kept.

    It gets the environment that this process was started with. No-op if one waits already, or would be of no use.

    Args:
        here: The folder that this process was started in; tests may have left it.
        settings: The project's.
        plugins: The modules of pytest's installed plugins in this run; None if this process has run no tests.
    """
    root = settings.root
    if sys.platform != "linux" or meeting.is_traced() or (supervisor := kept_by(root)) is None:
        return
    from asynctest_kit.provision import runtime

    with suppress(OSError, ProvisionError), chdir(here):
        runtime.base_directory()
        Path(meeting.directory()).mkdir(mode=0o700, parents=True, exist_ok=True)
        if not meeting.is_private(meeting.directory()):
            return
        if is_awaited(supervisor):
            return
        kept = None if plugins is not None else Recipe.kept(recipe_path())
        if kept is None or kept.root != str(root):
            Recipe.of_this_run(settings, plugins).keep(recipe_path())
        subprocess.Popen(  # noqa: S603 (our own interpreter and program)
            (sys.executable, *_flags(), "-c", _PROGRAM),
            env=_environment_at_start(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ).returncode = 0  # it outlives us, and is not our child to wait for


def _flags() -> list[str]:
    """This interpreter's own, as ``multiprocessing`` finds them."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    return [*flags, "-u"] if meeting.is_unbuffered() else flags


def _folders(root: Path, *, has_run: bool) -> Iterator[Path]:
    """Of the project's folders those that this process imports from; all that are near if it has run no tests."""
    installed = (Path(sys.prefix), Path(sys.base_prefix))
    near = [] if has_run else [root, *(path for path in root.iterdir() if path.is_dir())]
    for folder in dict.fromkeys((*map(Path, sys.path), *near)):
        if folder.is_relative_to(root) and not any(folder.is_relative_to(other) for other in installed):
            yield folder


def kept_by(root: Path) -> int | None:
    """The supervisor that keeps the project's services; None if they are not kept."""
    from asynctest_kit.provision.visit import Visit

    with suppress(ProvisionError, OSError):
        visit = Visit.at(root)
        if visit is None:
            return None
        try:
            return visit.supervisor if visit.survey().idle else None
        finally:
            visit.close()
    return None


def _environment_at_start() -> Mapping[bytes, bytes]:
    """Tests may have changed ours."""
    pairs = (line.partition(b"=") for line in Path("/proc/self/environ").read_bytes().split(b"\0") if line)
    return {name: value for name, _, value in pairs}


@cache
def required() -> frozenset[str]:
    """The names, as of modules, of all that this kit requires, directly or not."""
    found: set[str] = set()
    left = ["asynctest_kit"]
    while left:
        for requirement in _requirements(left.pop()):
            if requirement not in found:
                found.add(requirement)
                left.append(requirement)
    return frozenset(name.replace("-", "_") for name in found)


def _requirements(distribution: str) -> list[str]:
    import re

    try:
        lines = requires(distribution) or []
    except PackageNotFoundError:
        return []
    return [
        name[0].lower()
        for line in lines
        if "extra ==" not in line and (name := re.match(r"[A-Za-z0-9._-]+", line)) is not None
    ]
