"""Processes that begin with pytest and the engine imported, which takes longer than most suites that the tests run.

A server imports them once and forks for every run: ``python preloaded.py`` is that server. Its standard input is a
socket that brings each run as JSON, with two descriptors: for the output, and for the exit code.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import anyio
import pytest
from _pytest.config import default_plugins

from asynctest_kit import engine

#: What every run imports. Plugins that runs are told to load are left to them, since pytest rewrites their asserts.
_MODULES = (
    "under_engine",
    *(module.name for module in pkgutil.iter_modules(engine.__path__, f"{engine.__name__}.")),
    *(f"_pytest.{plugin}" for plugin in default_plugins),
    *(f"anyio._backends._{name}" for name in anyio.get_available_backends()),
    "anyio.from_thread",
    "unittest.mock",
)

_LARGEST = 1 << 20
_one_at_a_time = threading.Lock()


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


def start(arguments: list[str], *, under_engine: bool, cwd: Path, env: dict[str, str], out: Path) -> Process:
    """Start ``python -m pytest ARGUMENT...`` or ``python under_engine.py ARGUMENT...``; ``out`` is for its output."""
    request = json.dumps({"arguments": arguments, "under_engine": under_engine, "cwd": str(cwd), "env": env}).encode()
    status, theirs = os.pipe()
    with out.open("wb") as stream, _one_at_a_time:
        socket.send_fds(_server(), [request], [stream.fileno(), theirs])
        pid = int(_server().recv(16))
    os.close(theirs)
    return Process(pid, status)


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
    """Serve until the other end is closed; returns in the children, as what they are to run has ended."""
    for module in _MODULES:
        import_module(module)
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
            request, descriptors, _, _ = socket.recv_fds(server, _LARGEST, 2)
            if not request:
                return None
            out, status = descriptors
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for end in (server, bell, ringer):
                    end.close()
                for other in (status, *running.values()):
                    os.close(other)
                return _become(json.loads(request), out)
            server.send(str(pid).encode())
            os.close(out)
            running[pid] = status


def _tell_ended(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        descriptor = running.pop(pid)
        os.write(descriptor, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(descriptor)


def _become(run: dict, out: int) -> None:
    """Run it in this process, as if it had been started for that."""
    import under_engine as driver

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)
    os.chdir(run["cwd"])
    os.environ.clear()
    os.environ.update(run["env"])
    sys.argv[1:] = run["arguments"]
    sys.path[:1] = [*run["env"]["PYTHONPATH"].split(os.pathsep)]
    if run["under_engine"]:
        sys.exit(driver.main())
    sys.argv[0] = pytest.__file__
    sys.path.insert(0, run["cwd"])
    sys.exit(pytest.main())


if __name__ == "__main__":
    main()
