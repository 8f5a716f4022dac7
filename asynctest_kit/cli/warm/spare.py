"""The process that waits for a run: imports what its recipe says, waits, and becomes the run; with its parent."""

from __future__ import annotations

import ast
import ctypes
import fcntl
import importlib.util
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from asynctest_kit.cli.warm import meeting
from asynctest_kit.cli.warm.next_databases import make_next_databases
from asynctest_kit.cli.warm.recipe import Recipe, begin_as, give_back, kept_by, recipe_path, required, take_lock
from asynctest_kit.run.clock import process_start

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["main"]

#: See prctl(2).
_PR_SET_PDEATHSIG = 1

#: Seconds in which a run must have said what it is.
_PATIENCE = 10.0

#: Seconds for one to leave that waited for a run until `atk down`. It may be importing, on a busy machine.
_LEAVES_WITHIN = 60.0

#: What the kernel tells of a process in which two must be alike; see proc(5).
_ALIKE = ("limits", "cgroup", "ns/ipc", "ns/mnt", "ns/net", "ns/pid", "ns/user", "ns/uts", "root", "oom_score_adj")
_STATUS = (
    "Umask", "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
    "SigBlk", "Cpus_allowed", "Mems_allowed",
)  # fmt: skip

#: Standard input, output and error.
_STREAMS = 3

#: Descriptors that one message takes; see unix(7).
_MOST = 253

#: Seconds by which the time at which a file was written can be behind.
_COARSE = 0.1


def main() -> None:
    """Have a child wait for a run, as long as services are kept, and become it; look after that.

    It is forked before it imports anything: a fork of what has would copy each page of its memory when a run begins.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else nobody would know how the run ends
    began = time.time_ns() - int((time.monotonic() - process_start() + _COARSE) * 1e9)
    ours, its = socket.socketpair()
    parent, child = os.getpid(), os.fork()
    if child:
        its.close()
        _look_after(child, ours)
    ours.close()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    run = _run_to_be(began, its) if os.getppid() == parent else None
    if run is None:
        os._exit(0)  # without waiting for threads that a plugin has started
    run.start()


def _run_to_be(began: int, parent: socket.socket) -> _Run | None:
    recipe = Recipe.kept(recipe_path())
    supervisor = None if recipe is None else kept_by(Path(recipe.root))
    if recipe is None or supervisor is None:
        return None
    lock = take_lock(supervisor, within=_LEAVES_WITHIN)
    keeper = _pidfd(supervisor)
    if lock is None or keeper is None:
        return None
    spare = _Spare.with_imports(recipe, began)
    connection = None if spare.has_threads else _visitor(keeper)
    os.close(keeper)
    give_back(lock)
    if connection is None:
        return None
    with connection, parent:
        run = _taken(spare, connection, parent)
    begin_as(recipe, spare.failed)
    return run


def _pidfd(supervisor: int) -> int | None:
    """To see a supervisor's end; None if it has ended."""
    with suppress(OSError):
        return os.pidfd_open(supervisor)
    return None


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
        began: When it began to import.
        folders: Where the project's own modules are.
        failed: What could not be imported, with the error.
    """

    environ: dict[str, str]
    modules: frozenset[str]
    files: dict[str, int]
    began: int
    folders: tuple[str, ...]
    failed: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def with_imports(cls, recipe: Recipe, began: int) -> _Spare:
        """Import all."""
        from asynctest_kit.engine.collection import importing_as_pytest
        from asynctest_kit.run.installed import read_ahead

        environ, modules = dict(os.environ), frozenset(sys.modules)
        failed: dict[str, str] = {}
        with importing_as_pytest():
            for name in recipe.modules:
                try:
                    importlib.import_module(name)
                except (Exception, SystemExit) as error:  # noqa: BLE001  # the run's own import tells
                    failed[name] = f"{type(error).__name__}: {error}".partition("\n")[0]
        make_next_databases(Path(recipe.root))  # which imports, too
        read_ahead()
        required()  # read from many files, for the recipe that the run leaves
        return cls(environ, modules, dict(_written()), began, recipe.folders, failed)

    @property
    def has_threads(self) -> bool:
        """Whether what it imported does anything meanwhile."""
        return threading.active_count() > 1 or len(os.listdir("/proc/self/task")) > 1  # noqa: PTH208

    def refusal(self, run: dict[str, Any], process: int, opened: frozenset[int] = frozenset()) -> str:
        """Why it can't become that run, with these descriptors open; empty if it can."""
        return next(self._differences(run, process, opened), "")

    def _differences(self, run: dict[str, Any], process: int, opened: frozenset[int]) -> Iterator[str]:
        mine = meeting.request()
        yield from (f"another {name}" for name in ("executable", "flags") if run[name] != mine[name])
        if meeting.is_traced():
            yield "a debugger, profiler or coverage is at what waited"
        if taken := opened.intersection(run["descriptors"][_STREAMS:]):
            yield f"a descriptor that is in use: {', '.join(map(str, sorted(taken)))}"
        if others := _differing(run["environ"], self.environ):
            yield f"another environment: {', '.join(others)}"
        if others := sorted(set(filter(_is_installed, run["modules"])) - self.modules - set(sys.modules)):
            yield f"modules of its own: {', '.join(others)}"
        if others := sorted(self._hidden()):
            yield f"a library's name for a module of its own: {', '.join(others)}"
        yield from (f"another {name}" for name in _ALIKE if _told(process, name) != _told(os.getpid(), name))
        if os.getpriority(os.PRIO_PROCESS, process) != os.getpriority(os.PRIO_PROCESS, 0):
            yield "another priority"
        status, own = _status(process), _status(os.getpid())
        yield from (f"another {name}" for name in _STATUS if status.get(name) != own.get(name))
        if dict(_written()) != self.files or max(self.files.values(), default=0) >= self.began:
            yield "files of what is imported have changed"

    def _hidden(self) -> Iterator[str]:
        """Modules of the project's that it could not import, for what is imported here is called the same."""
        imported = {name for name in sys.modules if "." not in name} - self.modules
        for folder in self.folders:
            for name in imported.intersection(_modules_in(folder)):
                if not (getattr(sys.modules[name], "__file__", None) or "").startswith(f"{folder}/"):
                    yield f"{folder}/{name}"


def _modules_in(folder: str) -> Iterator[str]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".py"):
                yield entry.name.removesuffix(".py")
            elif os.path.exists(f"{entry.path}/__init__.py"):  # noqa: PTH110
                yield entry.name


def _is_installed(module: str) -> bool:
    return module.partition(".")[0] not in sys.stdlib_module_names


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

        _take_descriptors(self.descriptors, self.request["descriptors"])
        sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())  # type: ignore[union-attr]
        os.chdir(f"/proc/{self.process}/cwd")  # where it is, if no name leads there any more
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


def _taken(spare: _Spare, connection: socket.socket, parent: socket.socket) -> _Run | None:
    """The run that this process becomes, and its parent is told of; None if it can't."""
    connection.settimeout(_PATIENCE)
    opened = _opened() - {connection.fileno(), parent.fileno()}
    process, user = _peer(connection)
    with connection.makefile("rb") as lines:
        data, descriptors, *_ = socket.recv_fds(connection, 1 << 16, _MOST)
        if not data.endswith(b"\n"):
            data += lines.readline()
        request = ast.literal_eval(data.decode())
        if user != os.getuid() or len(descriptors) != len(request["descriptors"]):
            return None
        if refusal := spare.refusal(request, process, opened):
            _tell(connection, f"refused {' '.join(refusal.split())}")
            return None
        os.setsid()
        _tell(connection, f"process {os.getpid()}")
        with suppress(OSError):  # the run's own process may have been killed
            if lines.readline():
                socket.send_fds(parent, [b"!"], [connection.fileno()])
                return _Run(request, process, descriptors)
    return None


def _opened() -> frozenset[int]:
    return frozenset(filter(_is_open, map(int, os.listdir("/proc/self/fd"))))  # noqa: PTH208


def _is_open(descriptor: int) -> bool:
    """Whether it still is: the listing itself has one."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _take_descriptors(received: Sequence[int], numbers: Sequence[int]) -> None:
    """Have them under the run's numbers."""
    apart = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, max(numbers) + 1) for descriptor in received]
    for descriptor in received:
        os.close(descriptor)
    for descriptor, number in zip(apart, numbers, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)


def _tell(connection: socket.socket, line: str) -> None:
    with suppress(OSError):  # the run's own process may have been killed
        connection.sendall(f"{line}\n".encode(errors="replace"))


def _look_after(child: int, its: socket.socket) -> NoReturn:
    """When a run has come, tell how the child ends, and end it if nobody is there to be told."""
    _, descriptors, *_ = socket.recv_fds(its, 1, 1)
    if not descriptors:  # no run has come
        os._exit(0)
    connection, handle = socket.socket(fileno=descriptors[0]), os.pidfd_open(child)
    waiting = select.poll()
    waiting.register(connection, select.POLLIN | select.POLLHUP)
    waiting.register(handle, select.POLLIN)
    ready = {descriptor for descriptor, _ in waiting.poll()}
    if handle not in ready:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    connection.settimeout(None)
    _tell(connection, f"status {status}")
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
