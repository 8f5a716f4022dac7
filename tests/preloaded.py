"""Processes that begin with pytest and the kit imported, which takes longer than most suites that the tests run.

A server imports them once and forks for every run: ``python preloaded.py`` is that server. Its standard input is a
socket that brings each run as JSON, with three descriptors: for the two outputs, and for the exit code.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PathDistribution, distributions
from pathlib import Path
from typing import IO, Any, Never

import anyio
from _pytest.config import default_plugins

import asynctest_kit

#: What every run imports, or many do. Plugins that runs are told to load are left to them, since pytest rewrites their
#: asserts; and the kit's modules that import httpx and respx, or SQLAlchemy: runs look for them.
_MODULES = (
    *(f"_pytest.{plugin}" for plugin in default_plugins),
    *(
        module.name
        for module in pkgutil.walk_packages(asynctest_kit.__path__, f"{asynctest_kit.__name__}.")
        if not module.name.endswith(("__main__", "alembic", "cli.pact", "sqlalchemy"))
        and not {"contracts", "http"} & set(module.name.split("."))
    ),
    "anyio.from_thread",
    "unittest.mock",
)

_HAVE_PLUGINS = {"anyio", "asynctest_kit"}

_LARGEST = 1 << 20
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class Finished:
    """What came of a command."""

    returncode: int | None
    stdout: str
    stderr: str


class Process:
    """A run that was forked: the part of Popen that the tests use.

    Attributes:
        pid: Its process id.
        returncode: Its exit code, negative for a signal; None as long as nobody has seen its end.
    """

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = status

    async def ended(self) -> int | None:
        """Its exit code, when it has ended; a cancelled wait kills it."""
        try:
            if self.returncode is None:
                await anyio.wait_readable(self._status)
        finally:
            self.send_signal(signal.SIGKILL)
        return self.poll()

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self.wait(0)

    def wait(self, timeout: float) -> int | None:
        """Wait for its end, ``timeout`` seconds at most; the exit code, or None."""
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = int(os.read(self._status, 16))
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)


def start(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], out: IO[bytes], err: IO[bytes]) -> Process:
    """Start ``python COMMAND...``, which is ``-m MODULE ARGUMENT...`` or ``SCRIPT ARGUMENT...``."""
    request = json.dumps({"command": [*command], "cwd": str(cwd), "env": {**env}}).encode()
    status, theirs = os.pipe()
    with _one_at_a_time:
        socket.send_fds(_server(), [request], [out.fileno(), err.fileno(), theirs])
        pid = int(_server().recv(16))
    os.close(theirs)
    return Process(pid, status)


async def started(command: Sequence[str], **how: Any) -> Process:
    """``start``, for the first call waits for the server's imports. Not cancelled: nobody would know of the process."""
    with anyio.CancelScope(shield=True):
        return await anyio.to_thread.run_sync(functools.partial(start, command, **how))


def run(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float = 120) -> Finished:
    """Run ``python COMMAND...`` for ``timeout`` seconds at most."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = start(command, cwd=cwd, env=env, out=out, err=err)
        if process.wait(timeout) is None:
            process.send_signal(signal.SIGKILL)
            raise AssertionError(f"it did not end within {timeout} s: {command}\n{_read(out)}{_read(err)}")
        return Finished(process.returncode, _read(out), _read(err))


async def finished(command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Finished:
    """Run ``python COMMAND...``; cancelling it kills the process."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = await started(command, cwd=cwd, env=env, out=out, err=err)
        return Finished(await process.ended(), _read(out), _read(err))


def _read(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="backslashreplace")


@functools.cache
def _server() -> socket.socket:
    """A socket to this process's server, which ends with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST)
    with theirs:
        server = subprocess.Popen([sys.executable, __file__], stdin=theirs, start_new_session=True)

    def leave() -> None:
        ours.close()
        server.wait()

    atexit.register(leave)
    return ours


def main() -> None:
    """Serve until the other end is closed."""
    _load()
    _tell_coverage()
    server = socket.socket(fileno=0)
    bell, ringer = socket.socketpair()
    ringer.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ringer.fileno(), warn_on_full_buffer=False)
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([server, bell], [], [])
        if bell in ready:
            bell.recv(4096)
            _tell_ended(running)
        if server in ready:
            request, descriptors, _, _ = socket.recv_fds(server, _LARGEST, 3)
            if not request:
                return
            out, err, status = descriptors
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for end in (server, bell, ringer):
                    end.close()
                for other in (status, *running.values()):
                    os.close(other)
                _end(_become(json.loads(request), out, err))
            server.send(str(pid).encode())
            os.close(out)
            os.close(err)
            running[pid] = status


def _load() -> None:
    for module in _MODULES:
        import_module(module)
    _read_once("files")
    _read_once("entry_points")
    for installed in distributions():
        if any(point.group == "pytest11" for point in installed.entry_points):
            assert installed.files
    gc.freeze()  # each run collects garbage several times, and this is none
    for name in anyio.get_available_backends():  # not frozen: hypothesis asks the collector who holds trio's numbers
        import_module(f"anyio._backends._{name}")
    for name, module in sys.modules.items():
        if name.partition(".")[0] in _HAVE_PLUGINS:  # a run is not to warn that it can't rewrite their asserts
            module.__doc__ = f"PYTEST_DONT_REWRITE: {module.__doc__}"


def _read_once(name: str) -> None:
    """Have what is installed read here, and not by each run again: pytest asks for all files of all its plugins."""
    read = getattr(PathDistribution, name).fget
    known: dict[str, Any] = {}

    def once(distribution: Any) -> Any:
        place = str(distribution._path)
        if place not in known:
            known[place] = read(distribution)
        return known[place]

    setattr(PathDistribution, name, property(once))


def _tell_coverage() -> None:
    """Where coverage is measured, write what the imports covered: else each run would, with its own."""
    coverage = sys.modules.get("coverage")
    measured = coverage and coverage.Coverage.current()
    if measured:
        measured.save()


def _tell_ended(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        descriptor = running.pop(pid)
        os.write(descriptor, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(descriptor)


def _end(code: int) -> Never:
    """Exit as Python does, but don't take apart all that was imported: a fork would first have to copy it."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    os._exit(code & 0xFF)


def _become(run: dict, out: int, err: int) -> int:
    """Run it in this process, as if it had been started for that; its exit code."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    os.chdir(run["cwd"])
    os.environ.clear()
    os.environ.update(run["env"])
    program, *arguments = run["command"]
    try:
        _run(program, arguments, run)
    except SystemExit as exit_:
        if exit_.code is None or isinstance(exit_.code, int):
            return exit_.code or 0
        raise  # it is a message
    return 0


def _run(program: str, arguments: list[str], run: dict) -> None:
    added = [*filter(None, run["env"].get("PYTHONPATH", "").split(os.pathsep))]
    if program == "-m":
        program, *sys.argv[1:] = arguments
        sys.path[:1] = [run["cwd"], *added]
        for folder in added:  # Python's own start-up is over
            if (Path(folder) / "sitecustomize.py").exists():
                import_module("sitecustomize")
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = [program, *arguments]
        sys.path[:1] = [str(Path(program).parent), *added]
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
