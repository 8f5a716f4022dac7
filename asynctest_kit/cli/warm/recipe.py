"""What a run imported that the next one can have beforehand: of pytest, this kit, their dependencies and plugins."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import TYPE_CHECKING

from asynctest_kit.cli.warm import meeting
from asynctest_kit.errors import ProvisionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Recipe", "leave_a_process", "recipe_path"]

#: What every run imports.
_ALWAYS = (
    "asynctest_kit.cli.commands",
    "asynctest_kit.cli.run",
    "asynctest_kit.cli.warm.handover",
    "asynctest_kit.provision.client",
    "asynctest_kit.report.live",
    "asynctest_kit.run.engine",
    "asynctest_kit.run.reports",
    "asynctest_kit.run.wiring",
    "pytest",
)

#: What this kit and pytest import under other names than those of the distributions that they require.
_OTHER_NAMES = frozenset({"_pytest", "asynctest_kit", "markdown_it", "mdurl", "pygments", "pytest"})

#: Whose import does something, or takes a terminal.
_NEVER = frozenset({"antigravity", "idlelib", "readline", "rlcompleter", "this", "tkinter", "turtle", "turtledemo"})

#: The whole program of a process that waits; the current folder is not to be imported from.
_PROGRAM = "import sys; sys.path[:1] == [''] and sys.path.pop(0); from asynctest_kit.cli.warm.spare import main; main()"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a process that waits for runs from one folder imports, and how long it waits.

    Attributes:
        root: The project's root: it waits as long as the project's services are kept.
        modules: Names, in the order of a run's imports.
    """

    root: str
    modules: tuple[str, ...]

    @classmethod
    def of_this_run(cls, root: Path, plugins: Iterable[str]) -> Recipe:
        """What this process has imported of what may be imported before a run begins.

        Args:
            root: The project's root.
            plugins: The modules of pytest's installed plugins in this process.
        """
        known = {*_OTHER_NAMES, *_required("asynctest_kit"), *(name.partition(".")[0] for name in plugins)}
        known |= sys.stdlib_module_names - _NEVER
        modules = [name for name in sys.modules if name.partition(".")[0] in known and "__mp_main__" not in name]
        return cls(str(root), (*_ALWAYS, *(name for name in modules if name != "__main__")))

    @classmethod
    def kept(cls, path: Path) -> Recipe | None:
        """The one in a file; None if there is none that makes sense."""
        import json

        try:
            data = json.loads(path.read_bytes())
            return cls(str(data["root"]), tuple(map(str, data["modules"])))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, path: Path) -> None:
        """Write it, in one step that is either done or not."""
        import json

        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
            file.write(json.dumps(asdict(self)))
        Path(file.name).replace(path)


def recipe_path() -> Path:
    """Where the recipe for runs from the current folder is kept."""
    return Path(f"{meeting.socket_path()}.recipe")


def leave_a_process(root: Path, plugins: Iterable[str] | None = None) -> None:
    """Have a process wait for the next run from here, if the project's services are kept.

    It gets the environment that this process was started with. No-op if one waits already.

    Args:
        root: The project's root.
        plugins: The modules of pytest's installed plugins in this run; None if this process has run no tests.
    """
    if sys.platform != "linux" or not _are_kept(root):
        return
    from asynctest_kit.provision import runtime

    with suppress(OSError, ProvisionError):
        runtime.base_directory()
        Path(meeting.directory()).mkdir(mode=0o700, parents=True, exist_ok=True)
        if not meeting.is_private(meeting.directory()):
            return
        kept = None if plugins is not None else Recipe.kept(recipe_path())
        if kept is None or kept.root != str(root):
            Recipe.of_this_run(root, plugins or ()).keep(recipe_path())
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
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001


def _are_kept(root: Path) -> bool:
    from asynctest_kit.provision.client import Visit

    with suppress(ProvisionError, OSError):
        visit = Visit.at(root)
        if visit is None:
            return False
        try:
            return bool(visit.survey().idle)
        finally:
            visit.close()
    return False


def _environment_at_start() -> Mapping[bytes, bytes]:
    """Tests may have changed ours."""
    pairs = (line.partition(b"=") for line in Path("/proc/self/environ").read_bytes().split(b"\0") if line)
    return {name: value for name, _, value in pairs}


def _required(distribution: str) -> set[str]:
    """The names, as of modules, of all that a distribution requires, directly or not."""
    found: set[str] = set()
    left = [distribution]
    while left:
        for requirement in _requirements(left.pop()):
            if requirement not in found:
                found.add(requirement)
                left.append(requirement)
    return {name.replace("-", "_") for name in found}


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
