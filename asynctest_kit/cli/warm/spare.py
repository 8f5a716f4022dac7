"""The process that waits for a run: imports what its recipe says, waits, and becomes the run's parent."""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from asynctest_kit.cli.warm import meeting
from asynctest_kit.cli.warm.recipe import Recipe, recipe_path
from asynctest_kit.errors import ProvisionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["main"]

#: See prctl(2).
_PR_SET_PDEATHSIG = 1

#: Seconds in which a run must have said what it is.
_PATIENCE = 10.0

#: What the kernel tells of a process in which two must be alike; see proc(5).
_ALIKE = ("limits", "cgroup", "ns/ipc", "ns/mnt", "ns/net", "ns/pid", "ns/user", "ns/uts", "root", "oom_score_adj")
_STATUS = (
    "Umask", "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
    "SigBlk", "Cpus_allowed", "Mems_allowed",
)  # fmt: skip

#: Standard input, output and error.
_STREAMS = 3


def main() -> None:
    """Wait for a run, as long as services are kept; return in the process that is to run it."""
    recipe = Recipe.kept(recipe_path())
    keeper = None if recipe is None else _keeper(Path(recipe.root))
    if recipe is None or keeper is None:
        return
    lock = _lock()
    if lock is None:
        return
    spare = _Spare.with_imports(recipe)
    connection = None if spare.is_unsuited else _visitor(keeper)
    os.close(keeper)
    os.close(lock)
    if connection is None:
        return
    with connection:
        run = _taken(spare, connection)
    if run is not None:
        run.start()


def _keeper(root: Path) -> int | None:
    """The supervisor that keeps the project's services, to see its end; None if they are not kept."""
    from asynctest_kit.provision.client import Visit

    with suppress(ProvisionError, OSError):
        visit = Visit.at(root)
        if visit is None:
            return None
        try:
            return os.pidfd_open(visit.supervisor) if visit.survey().idle else None
        finally:
            visit.close()
    return None


def _lock() -> int | None:
    """What the one holds that waits for runs from here; None if another does."""
    lock = os.open(f"{meeting.socket_path()}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _visitor(keeper: int) -> socket.socket | None:
    """The run that comes first; None if the services go before. Nobody else is let in."""
    path = Path(meeting.socket_path())
    with socket.socket(socket.AF_UNIX) as listener:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(1)
        waiting = select.poll()
        waiting.register(listener, select.POLLIN)
        waiting.register(keeper, select.POLLIN)
        try:
            ready = {descriptor for descriptor, _ in waiting.poll()}
            return None if keeper in ready else listener.accept()[0]
        finally:
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Spare:
    """What this process is.

    Attributes:
        environ: Its environment before it imported anything.
        modules: What an interpreter has imported before it begins.
        files: When the files of what is imported were last written, and the folders that are searched.
    """

    environ: dict[str, str]
    modules: frozenset[str]
    files: dict[str, int]

    @classmethod
    def with_imports(cls, recipe: Recipe) -> _Spare:
        """Import all."""
        from asynctest_kit.engine.collection import importing_as_pytest

        environ, modules = dict(os.environ), frozenset(sys.modules)
        with importing_as_pytest():
            for name in recipe.modules:
                with suppress(Exception):
                    importlib.import_module(name)
        return cls(environ, modules, dict(_written()))

    @property
    def is_unsuited(self) -> bool:
        """Whether a fork of it would be no whole process."""
        return threading.active_count() > 1 or len(os.listdir("/proc/self/task")) > 1  # noqa: PTH208

    def refusal(self, run: dict[str, Any], process: int) -> str:
        """Why it can't become that run; empty if it can."""
        return next(self._differences(run, process), "")

    def _differences(self, run: dict[str, Any], process: int) -> Iterator[str]:
        mine = meeting.request()
        yield from (f"another {name}" for name in ("executable", "flags") if run[name] != mine[name])
        if run["is_traced"] or mine["is_traced"]:
            yield "a debugger, profiler or coverage is at it"
        if others := _differing(run["environ"], self.environ):
            yield f"another environment: {', '.join(others)}"
        if others := sorted(set(run["modules"]) - self.modules - set(sys.modules)):
            yield f"modules of its own: {', '.join(others)}"
        yield from (f"another {name}" for name in _ALIKE if _told(process, name) != _told(os.getpid(), name))
        if os.getpriority(os.PRIO_PROCESS, process) != os.getpriority(os.PRIO_PROCESS, 0):
            yield "another priority"
        status, own = _status(process), _status(os.getpid())
        yield from (f"another {name}" for name in _STATUS if status.get(name) != own.get(name))
        if dict(_written()) != self.files:
            yield "files of what is imported have changed"


def _differing(environ: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    names = environ.keys() | other.keys()
    return sorted(name for name in names if environ.get(name) != other.get(name) and not meeting.is_read_later(name))


def _written() -> Iterator[tuple[str, int]]:
    for name in sys.path:
        if name.endswith("-packages"):  # where installing and removing happens
            yield name, _changed(name)
    for module in tuple(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            yield file, _changed(file)


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116
    except OSError:
        return 0


def _told(process: int, name: str) -> str:
    path = f"/proc/{process}/{name}"
    try:
        return os.readlink(path) if "/" in name or name == "root" else Path(path).read_text()  # noqa: PTH115
    except OSError:
        return ""


def _status(process: int) -> dict[str, str]:
    lines = _told(process, "status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@dataclass(frozen=True, slots=True)
class _Run:
    """A run that this process has become."""

    request: dict[str, Any]
    process: int
    descriptors: Sequence[int]

    def start(self) -> None:
        """Be what it was; what follows is the run."""
        from asynctest_kit.run import clock

        for number, descriptor in enumerate(self.descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())  # type: ignore[union-attr]
        os.chdir(self.request["directory"])
        for name in filter(meeting.is_read_later, {*os.environ, *self.request["environ"]}):
            os.environ.pop(name, None)
            if name in self.request["environ"]:
                os.environ[name] = self.request["environ"][name]
        sys.argv[:], sys.orig_argv[:] = self.request["arguments"], self.request["all_arguments"]
        sys.path[:] = self.request["path"]
        _be_main(*self.request["program"])
        _take_signals(int(_status(self.process)["SigIgn"], 16))
        clock.count_for(self.process)

        from asynctest_kit.cli import run_command

        run_command()


def _taken(spare: _Spare, connection: socket.socket) -> _Run | None:
    """The run, in the process that is to run it; None in one that is of no use any more. Its parent never returns."""
    connection.settimeout(_PATIENCE)
    process, user = _peer(connection)
    with connection.makefile("rb") as lines:
        data, descriptors, *_ = socket.recv_fds(connection, 1 << 16, _STREAMS)
        if not data.endswith(b"\n"):
            data += lines.readline()
        if user != os.getuid() or len(descriptors) != _STREAMS:
            return None
        request = json.loads(data)
        if refusal := spare.refusal(request, process):
            _tell(connection, refused=refusal)
            return None
        is_to_go, go = os.pipe()
        child = os.fork()
        if child == 0:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            os.setsid()
            os.close(go)
            os.read(is_to_go, 1)
            os.close(is_to_go)
            return _Run(request, process, descriptors)
        for descriptor in (*descriptors, is_to_go):
            os.close(descriptor)
        _tell(connection, process=child)
        if lines.readline():
            os.close(go)
        return _look_after(child, connection)


def _tell(connection: socket.socket, **news: object) -> None:
    with suppress(OSError):  # the run's own process may have been killed
        connection.sendall(json.dumps(news).encode() + b"\n")


def _look_after(child: int, connection: socket.socket) -> NoReturn:
    """Tell how the child ends, and end it if nobody is there to be told."""
    handle = os.pidfd_open(child)
    waiting = select.poll()
    waiting.register(connection, select.POLLIN | select.POLLHUP)
    waiting.register(handle, select.POLLIN)
    ready = {descriptor for descriptor, _ in waiting.poll()}
    if handle not in ready:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    _tell(connection, status=status)
    os._exit(0)


def _peer(connection: socket.socket) -> tuple[int, int]:
    """Process and user of the other end; see unix(7)."""
    process, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return process, user


def _be_main(file: str | None, name: str | None) -> None:
    """What ``multiprocessing`` and tracebacks know a program by."""
    main = sys.modules["__main__"]
    if file is not None:
        main.__file__ = file
    if name is not None:
        main.__spec__ = importlib.util.find_spec(name)


def _take_signals(ignored: int) -> None:
    """Ignore what the run's starter has it ignore, as a shell does for what it puts in the background."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        is_ignored = bool(ignored >> (number - 1) & 1)
        if is_ignored:
            signal.signal(number, signal.SIG_IGN)
        elif signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
