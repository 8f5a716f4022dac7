"""How a runner, a worker or a plain pytest reaches the supervisor.

:meth:`Client.connect` returns before a supervisor runs: if nobody listens for the project it starts one and keeps the
other end of a socket pair that the child inherits, so requests can be written at once and are read when the child is
up. A thread reads the answers, so the client serves any event loop, several of them, and code without one.

Three ends of the stream are told apart. Before the greeting of a supervisor that was *found* listening: it was about
to end, so one is started and asked again. Before the greeting of one that we *started*, or after a greeting: it died,
and whatever is pending fails with the end of its log. After our own farewell: all is well.

This module is imported before pytest: it must load light, so no asyncio at import.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import msgspec

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision import messages, runtime
from asynctest_kit.provision.messages import (
    Bye,
    End,
    Ensure,
    Failed,
    Farewell,
    Hello,
    Keep,
    Measured,
    Preserve,
    Quote,
    Quoted,
    Ready,
    Reply,
    Request,
    Survey,
    Surveyed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asynctest_kit.provision.service import Endpoint, ServicePhase, ServiceSpec

__all__ = ["Client", "Visit"]

_LAST_WORDS = 20

_Answer = TypeVar("_Answer", Surveyed, Quoted, Farewell)


class Client:
    """A connection to the project's supervisor; safe to use from any thread.

    Services live until the last client of the project has closed or its process has ended.
    """

    def __init__(self, link: _Link, root: Path) -> None:
        """Use :meth:`connect`."""
        self._root = root
        self._link = link
        self._mutex = threading.Lock()
        self._questions: list[_Question] = []
        self._asked: dict[bytes, _Question] = {}
        self._epitaph = ""
        self._phases: list[ServicePhase] = []
        self._endpoints: dict[str, Endpoint] = {}
        self._is_closed = False
        self._reader = threading.Thread(target=self._read, name="asynctest_kit provision client", daemon=True)
        self._reader.start()

    @classmethod
    def connect(cls, root: Path) -> Client:
        """Join the supervisor of the project at ``root``, or start one; returns at once.

        Raises:
            ProvisionError: The private directory for it can't be made.
        """
        return cls(_join(root) or _start(root), root)

    def ensure(self, spec: ServiceSpec) -> Future[Endpoint]:
        """Have a service started, or find it started; asking again for an equal spec gives the same future.

        The future fails with :class:`~asynctest_kit.errors.ProvisionError`, and can't be cancelled: others may wait
        for the same start.
        """
        for need in spec.needs:  # so that we are told of them, too
            self.ensure(need)
        key = msgspec.json.encode(spec, order="deterministic")
        with self._mutex:
            if key in self._asked:
                return self._asked[key].future

            question = _Question(Ensure(number=len(self._questions), spec=spec, asked=time.monotonic()))
            self._questions.append(question)
            self._asked[key] = question
            if self._epitaph:
                question.fail(f"The service {spec.name!r} was asked for after {self._epitaph}")
            else:
                self._link.send(question.request)
        return question.future

    async def endpoint(self, spec: ServiceSpec) -> Endpoint:
        """Await :meth:`ensure` on the running asyncio loop; cancelling this does not cancel the start.

        Raises:
            ProvisionError: The service can't be had.
        """
        import asyncio

        return await asyncio.wrap_future(self.ensure(spec))

    def record(self, phase: ServicePhase) -> None:
        """Add a phase that the caller measured."""
        with self._mutex:
            self._phases.append(phase)

    @property
    def phases(self) -> tuple[ServicePhase, ...]:
        """The phases of our services so far, the supervisor's and the recorded ones."""
        with self._mutex:
            return tuple(self._phases)

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The services ready so far, by name."""
        with self._mutex:
            return MappingProxyType(dict(self._endpoints))

    def close(self, *, timeout: float = 10.0) -> None:
        """Leave; idempotent.

        If this was the last client, it returns when everything is removed and measured, or after ``timeout`` seconds
        (the removal goes on without us then). What is still pending fails.
        """
        with self._mutex:
            self._is_closed = True
            link = self._link
        self._bury("its client was closed.")
        link.send(Bye())
        self._reader.join(timeout)
        link.close()

    def keep(self, idle: float) -> None:
        """Have the services stay when we leave, until nobody has come for ``idle`` seconds."""
        self._link.send(Keep(idle))

    def preserve(self, service: str) -> None:
        """Say that what was made in a service is worth keeping; its provider keeps it at its end, if it can."""
        self._link.send(Preserve(service))

    def _read(self) -> None:
        try:
            while self._listen(self._link):
                self._start_another()
        except (OSError, ProvisionError) as error:
            self._bury(f"no supervisor can be started for it: {error}")

    def _listen(self, link: _Link) -> bool:
        """Take what comes until the stream ends; whether another supervisor should be asked instead."""
        for reply in link.replies():
            self._take(link, reply)
        if link.was_late and not self._is_closed:
            return True

        link.reap()
        self._bury(link.epitaph())
        return False

    def _take(self, link: _Link, reply: Reply) -> None:
        match reply:
            case Hello(log=log):
                link.greeted(Path(log))
            case Measured(phase=phase):
                self.record(phase)
            case Ready(number=number, endpoint=endpoint):
                with self._mutex:
                    self._endpoints[endpoint.service] = endpoint
                self._questions[number].answer(endpoint)
            case Failed(number=number, message=message):
                self._questions[number].fail(message)
            case Farewell(is_end=is_end):
                link.parted(is_end=is_end)

    def _start_another(self) -> None:
        with self._mutex:
            self._link.close()
            self._link = _start(self._root)
            for question in self._questions:
                self._link.send(question.request)

    def _bury(self, epitaph: str) -> None:
        with self._mutex:
            self._epitaph = self._epitaph or epitaph
            pending = [question for question in self._questions if not question.future.done()]
        for question in pending:
            question.fail(f"The service {question.request.spec.name!r} was not ready when {epitaph}")


class Visit:
    """A look at a supervisor that is there already: one question at a time, each answer waited for; close it after.

    It uses no service, but counts as a client as long as it is open.
    """

    def __init__(self, link: _Link) -> None:
        """Use :meth:`at`."""
        self._link = link
        self._replies = link.replies()

    @classmethod
    def at(cls, root: Path) -> Visit | None:
        """Go to the supervisor of the project at ``root``; None if there is none, or it is just ending."""
        link = _join(root)
        if link is None:
            return None
        visit = cls(link)
        if isinstance(next(visit._replies, None), Hello):
            return visit
        link.close()
        return None

    def survey(self) -> Surveyed:
        """What it holds.

        Raises:
            ProvisionError: It has ended meanwhile.
        """
        return self._ask(Survey(), Surveyed)

    def quote(self, service: str, lines: int) -> str:
        """The last ``lines`` of a service's log.

        Raises:
            ProvisionError: There is none; the message says why.
        """
        quoted = self._ask(Quote(service, lines), Quoted)
        if quoted.text is None:
            raise ProvisionError(f"There is no log of the service {service!r}: {quoted.reason}.")
        return quoted.text

    def end(self) -> None:
        """Have everything removed, whoever else uses it; returns when it is.

        Raises:
            ProvisionError: The supervisor ended without saying so.
        """
        self._ask(End(), Farewell)

    def close(self) -> None:
        """Leave."""
        self._link.send(Bye())
        self._link.close()

    def _ask(self, request: Request, kind: type[_Answer]) -> _Answer:
        self._link.send(request)
        for reply in self._replies:
            if isinstance(reply, kind):
                return reply
        raise ProvisionError("The project's supervisor has ended meanwhile.")


class _Question:
    """A service that was asked for, and its answer to come."""

    def __init__(self, request: Ensure) -> None:
        self.request = request
        self.future: Future[Endpoint] = Future()
        # From here on nobody can cancel it, neither directly nor through an event loop's wrapper.
        self.future.set_running_or_notify_cancel()
        self._mutex = threading.Lock()

    def answer(self, endpoint: Endpoint) -> None:
        """The service is up."""
        with self._mutex:
            if not self.future.done():
                self.future.set_result(endpoint)

    def fail(self, message: str) -> None:
        """It is not to be had; no-op if it is up."""
        with self._mutex:
            if not self.future.done():
                self.future.set_exception(ProvisionError(message))


class _Link:
    """One connection to one supervisor, which is ours (``process``) or was found listening."""

    def __init__(self, connection: socket.socket, process: subprocess.Popen[bytes] | None, log: Path | None) -> None:
        self._connection = connection
        self._process = process
        self._log = log
        self._is_greeted = False
        self._is_end = True

    def send(self, request: Request) -> None:
        """Write; that the other side is gone is for the reader to find."""
        with suppress(OSError):
            self._connection.sendall(messages.line(request))

    def replies(self) -> Iterator[Reply]:
        """What the supervisor says, until its end of the stream is closed."""
        # A supervisor that was killed may have left half a line.
        with suppress(OSError, msgspec.DecodeError), self._connection.makefile("rb") as lines:
            for line in lines:
                yield messages.reply(line)

    def greeted(self, log: Path) -> None:
        """The supervisor serves us."""
        self._is_greeted = True
        self._log = log

    def parted(self, *, is_end: bool) -> None:
        """The supervisor said farewell."""
        self._is_end = is_end

    @property
    def was_late(self) -> bool:
        """Whether we found a supervisor listening that had closed its doors already."""
        return self._process is None and not self._is_greeted

    def epitaph(self) -> str:
        """What to tell of a supervisor that died, its last words included."""
        code = "" if self._process is None else f" with exit code {self._process.returncode}"
        words = "" if self._log is None else _tail(self._log)
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
        if self._process is not None and self._process.poll() is None:
            self._process.returncode = 0  # keeps its __del__ from warning of a child that still runs


def _join(root: Path) -> _Link | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(runtime.project_of(root).socket))
    except OSError:
        connection.close()
        return None
    return _Link(connection, None, None)


def _start(root: Path) -> _Link:
    session = runtime.new_session(runtime.project_of(root))
    log = session / "log"
    ours, theirs = socket.socketpair()
    arguments = ("--root", str(root.resolve()), "--session", str(session), "--first", str(theirs.fileno()))
    with theirs, os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as output:
        process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            # -P: the project's own folder must not shadow the standard library's modules.
            (sys.executable, "-P", "-m", "asynctest_kit.provision.supervisor", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    return _Link(ours, process, log)


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()[-_LAST_WORDS:]
    except OSError:
        return ""
    if not lines:
        return " It wrote no log."

    return "\n".join([f" The end of its log ({log}):", *(f"  | {line}" for line in lines)])
