"""The connection to a supervisor: one that listens already, or one that is started for it.

Who starts one keeps the other end of a socket pair that the child inherits, so requests can be written at once and are
read when the child is up.

This module is imported before pytest: it must load light, so no asyncio at import.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING

import msgspec

from asynctest_kit.provision import messages, runtime

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from asynctest_kit.provision.messages import Come, Reply, Request

__all__ = ["Link", "clean_up", "join", "start"]

_LAST_WORDS = 20


class Link:
    """One connection to one supervisor, which is ours (``process``) or was found listening."""

    def __init__(
        self,
        connection: socket.socket,
        come: Come,
        process: subprocess.Popen[bytes] | None = None,
        first_words: IO[bytes] | None = None,
    ) -> None:
        self.come = come
        self._connection = connection
        self._process = process
        self._first_words = first_words
        self._log: Path | None = None
        self._is_greeted = False
        self._is_referred = False
        self._is_end = True
        self.is_parted = False
        self._mutex = threading.Lock()
        self._unsent = b""
        self._is_behind = False
        self.send(come)

    def send(self, request: Request) -> None:
        """Write without waiting; that the other side is gone is for the reader to find.

        What a supervisor that is busy, or has been stopped, does not take at once is written by a thread, in order.
        """
        line = messages.line(request)
        with self._mutex:
            if self._is_behind:
                self._unsent += line
                return
            self._unsent = line[self._sent(line) :]
            self._is_behind = bool(self._unsent)
            if self._is_behind:
                threading.Thread(target=self._catch_up, name="asynctest_kit provision writer", daemon=True).start()

    def _sent(self, line: bytes) -> int:
        """How many bytes of it are taken at once; all of them if nobody is there to take any."""
        try:
            return self._connection.send(line, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            return len(line)

    def _catch_up(self) -> None:
        while unsent := self._take_unsent():
            with suppress(OSError):
                self._connection.sendall(unsent)

    def _take_unsent(self) -> bytes:
        with self._mutex:
            unsent, self._unsent = self._unsent, b""
            self._is_behind = bool(unsent)
        return unsent

    @property
    def peer(self) -> int:
        """The process id of the supervisor that was found."""
        process, _, _ = struct.unpack("3i", self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(process)

    def replies(self) -> Generator[Reply]:
        """What the supervisor says, until its end of the stream is closed."""
        # A supervisor that was killed may have left half a line.
        with suppress(OSError, msgspec.DecodeError), self._connection.makefile("rb") as lines:
            for line in lines:
                yield messages.reply(line)

    def greeted(self, log: Path) -> None:
        """The supervisor serves us."""
        self._is_greeted = True
        self._log = log

    def referred(self) -> None:
        """The supervisor knows another one, which serves us."""
        self._is_referred = True

    def parted(self, *, is_end: bool) -> None:
        """The supervisor said farewell."""
        self.is_parted = True
        self._is_end = is_end

    @property
    def is_of_no_use(self) -> bool:
        """Whether this supervisor had closed its doors when we found it, or sent us to another."""
        return self._is_referred or (self._process is None and not self._is_greeted)

    def epitaph(self) -> str:
        """What to tell of a supervisor that died, its last words included."""
        code = "" if self._process is None else f" with exit code {self._process.returncode}"
        words = _words_before_its_log(self._first_words) if self._log is None else _tail(self._log)
        return f"its supervisor ended unexpectedly{code}.{words}"

    def reap(self) -> None:
        """Wait for our supervisor's exit, if it has nothing left to do."""
        if self._process is not None and self._is_end:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=1.0)

    def close(self) -> None:
        """Hang up. A supervisor that serves others lives on, and is not our child to wait for any more."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
        if self._first_words is not None:
            self._first_words.close()
        if self._process is not None and self._process.poll() is None:
            self._process.returncode = 0  # keeps its __del__ from warning of a child that still runs


def join(root: Path, come: Come) -> Link | None:
    """Go to the supervisor of the project at ``root``; None if nobody listens."""
    project = runtime.existing_project_of(root)
    if project is None:
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(project.socket))
    except OSError:
        connection.close()
        return None
    return Link(connection, come)


def start(root: Path, come: Come) -> Link:
    """Start a supervisor for the project at ``root``; returns at once."""
    ours, theirs = socket.socketpair()
    first_words = tempfile.TemporaryFile()  # noqa: SIM115  # the link's, until it is closed
    arguments = ("--root", str(root.resolve()), "--first", str(theirs.fileno()))
    with theirs:
        process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            # -P: the project's own folder must not shadow the standard library's modules.
            (sys.executable, "-P", "-m", "asynctest_kit.provision.supervisor", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=first_words,
            stderr=first_words,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    return Link(ours, come, process, first_words)


def clean_up() -> None:
    """Remove what a killed supervisor left; returns when it is done."""
    subprocess.run(
        (sys.executable, "-P", "-m", "asynctest_kit.provision.sweep"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=False,
    )


def _words_before_its_log(words: IO[bytes] | None) -> str:
    if words is None or words.closed:
        return ""
    words.seek(0)
    lines = words.read().decode(errors="replace").splitlines()[-_LAST_WORDS:]
    return "\n".join([" Its last words:", *(f"  | {line}" for line in lines)]) if lines else " It said nothing."


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()[-_LAST_WORDS:]
    except OSError:
        return ""
    if not lines:
        return " It wrote no log."

    return "\n".join([f" The end of its log ({log}):", *(f"  | {line}" for line in lines)])
