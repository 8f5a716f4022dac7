"""A run's own side of a warm start: hand everything to the process that waits, and be there for signals until it ends.

What a terminal or a shell does to this process reaches the one that runs the tests: signals, stopping and going on, and
the end. If this process is killed, so is that one. Imported by every ``atk run`` before anything else, so it imports
next to nothing: ``json`` and ``socket`` would take a third of its time.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from asynctest_kit.cli.warm import meeting

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:
    from typing import Any

__all__ = ["hand_over"]

#: As pytest's, for an internal error.
_LOST = 3

#: Seconds in which what waits must answer. It takes hundredths.
_PATIENCE = 10.0

_ENDED = "the process that waited has ended"

_OFF = frozenset({"0", "false", "no", "off"})


def hand_over() -> None:
    """Have this run run by the process that waits for it, and end as it did; return if there is none.

    ``ATK_WARM=0`` has none asked; ``ATK_WARM=tell`` says why the run is run here.
    """
    wanted = os.environ.get("ATK_WARM", "").lower()
    if sys.platform != "linux" or wanted in _OFF:
        return
    path = meeting.socket_path()
    is_there = os.path.exists(path) and meeting.is_private(meeting.directory())  # noqa: PTH110  # pathlib loads slowly
    if not is_there:
        reason, status = "no process waits for runs from this folder (yet)", None
    elif meeting.is_traced():
        reason, status = "a debugger, profiler or coverage is at it", None
    else:
        reason, status = _handed_over(path)
    if reason:
        if wanted == "tell":
            sys.stderr.write(f"atk: not a warm start: {reason}\n")
        return
    _end_as(status)


def _handed_over(path: str) -> tuple[str, int | None]:
    """Why what waits there doesn't run this run; empty if it did, then with the status it ended with, if known."""
    import _socket
    from array import array

    request: Any = meeting.request()
    connection = _socket.socket(_socket.AF_UNIX)
    connection.settimeout(_PATIENCE)
    try:
        line = f"{request!a}\n".encode()
        connection.connect(path)
        descriptors = _socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", request["descriptors"])
        sent = connection.sendmsg([line], [descriptors])
        if rest := line[sent:]:  # to send nothing fails where the answer is there, and nobody any more
            connection.sendall(rest)
        word, _, told = _line(connection).partition(" ")
        if word != "process":
            return told or _ENDED, None
        with _Signals(int(told)):
            connection.settimeout(None)
            connection.sendall(b"go\n")
            last = _line(connection)
    except (OSError, ValueError) as error:  # it ends, and has not begun
        return f"{_ENDED} ({error})", None
    finally:
        connection.close()
    return "", int(last.removeprefix("status ")) if last else None


def _line(connection: Any) -> str:
    """What the other one says; empty if it has ended."""
    line = b""
    while not line.endswith(b"\n"):
        more = connection.recv(1 << 12)
        if not more:
            return ""
        line += more
    return line[:-1].decode()


class _Signals:
    """What comes for this process, passed on as it would have come for that one."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._before: dict[int, object] = {}

    def __enter__(self) -> None:
        import signal

        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH):  # a terminal sends them to the whole group
            self._take(number, lambda number, _: self._send_to_all(number))
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            self._take(number, lambda number, _: self._send(number))
        self._take(signal.SIGTSTP, lambda *_: self._stop())

    def __exit__(self, kind: object, *_: object) -> None:
        """They stay with us, for what comes now finds nobody; unless that one never began."""
        import signal

        if kind is not None:
            for number, handler in self._before.items():
                signal.signal(number, handler)  # type: ignore[arg-type]

    def _take(self, number: int, handler: object) -> None:
        import signal

        if signal.getsignal(number) is not signal.SIG_IGN:
            self._before[number] = signal.signal(number, handler)  # type: ignore[arg-type]

    def _send(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(self._process, number)

    def _send_to_all(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process, number)

    def _stop(self) -> None:
        import signal

        self._send_to_all(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)  # the shell sees this, and wakes us with SIGCONT
        self._send_to_all(signal.SIGCONT)


def _end_as(status: int | None) -> None:
    """End as the process ended that ran the tests."""
    if status is None:
        sys.stderr.write("atk: the process that ran the tests has ended, and nobody knows how.\n")
        sys.stderr.flush()
        os._exit(_LOST)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        import resource
        import signal

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the other one has left its core, if any
        if -code not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
