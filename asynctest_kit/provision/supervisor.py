"""The process that owns every container and server of a project: ``python -m asynctest_kit.provision.supervisor``.

Why a process of its own: containers should boot while the run that needs them still imports and collects, should be
shared between runs and worker processes, and should be gone when the last of these is, however it went. So no user of
a service can be its owner.

Invariants:

- A service is a task. Set-up, hold and removal happen in it; it lives as long as its provider's context is open.
  Cancelling the task is the one way to end it, whether it is starting or held.
- One spec is one service: the first who asks starts it, everybody who asks gets its one answer. A failed start is
  forgotten when it was answered, so that a later client may try again.
- Those that a service needs are services like any other, asked for by it. Each starts when all that it needs is ready,
  so what doesn't need each other starts at once. If one fails, those that need it fail with its message; if one ends
  while it is in use, those that need it are removed, for they were made for what is gone.
- The supervisor lives as long as it has clients, and a client is there while its socket is open *and* its process
  lives (a forked child may hold the socket open without knowing). One that was told to keep its services outlives its
  last client, until nobody has come for as long as it was told.
- When the last client goes, the doors close before anything is removed: the listening socket is gone and the lock is
  free. Who knocks too late sees the stream end without a greeting, and starts another supervisor.
- A project has one supervisor. One that is started while another listens sends its client there, and ends.

Crash rules: what this process made is signed with its identity (containers by labels, directories by a file). If it
is killed, the kernel ends embedded servers, containers end with their standard input, and a sweep, of a client that
is left or the next supervisor's, removes whatever has an owner that is proven dead. Two supervisors never share
anything, so a sweep can't hit the living.

Its own session: Ctrl-C in the terminal goes to the run, whose end is this process's signal to clean up.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision import messages, runtime
from asynctest_kit.provision.catalog import kind_of
from asynctest_kit.provision.messages import (
    Bye,
    Check,
    Checked,
    Elsewhere,
    End,
    Ensure,
    Failed,
    Farewell,
    Hello,
    Keep,
    Lost,
    Measured,
    Noted,
    Over,
    Preserve,
    Read,
    Ready,
    Reply,
    Request,
    Run,
    Stop,
    Survey,
    Surveyed,
    Wrote,
)
from asynctest_kit.provision.providers import Order, Provider, Running, quoted
from asynctest_kit.provision.providers.docker import Docker
from asynctest_kit.provision.providers.embedded import Embedded
from asynctest_kit.provision.providers.external import External
from asynctest_kit.provision.readiness import Address, NotReadyError, RejectedError, wait_ready
from asynctest_kit.provision.readiness.listening import OpenPort
from asynctest_kit.provision.selection import give
from asynctest_kit.provision.service import ServiceState
from asynctest_kit.provision.sweep import sweep
from asynctest_kit.provision.waiting import first_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asynctest_kit.provision.readiness import Handshake
    from asynctest_kit.provision.service import Endpoint, Output, ServicePhase, ServiceSpec

__all__ = ["Supervisor", "main"]

_log = logging.getLogger("asynctest_kit.supervisor")

#: Seconds between two looks for who listens.
_LOOK = 0.01

#: Seconds that a service has to answer once more, when a client doubts it.
_DOUBT = 2.0

_ENDED_EARLY = "The supervisor was told to end ({reason}) before the service {name!r} was ready."


class Supervisor:
    """Clients in, services out; open from its first client to its last.

    Args:
        providers: Who may give services, in the order in which they are asked.
        log: Path of this process's log, for clients to quote from.
        project: The project's key.
    """

    def __init__(self, providers: Sequence[Provider], *, log: Path, project: str = "") -> None:
        self._providers = providers
        self._project = project
        self._log_path = log
        self._clients: set[_Client] = set()
        self._leaving: set[_Client] = set()
        self._services: dict[bytes, _Service] = {}
        self._over = asyncio.Event()
        self._reason = "its last client left"
        self._is_orderly = False
        self._idle = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._tasks: asyncio.TaskGroup

    async def run(self, first: socket.socket, meeting: _Meeting) -> None:
        """Serve ``first`` and whoever comes to ``meeting``, until nobody is left; then remove every service."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._admit(first)
            doors = tasks.create_task(self._keep_doors(meeting))
            await self._over.wait()
            _log.info("ends: %s", self._reason)
            doors.cancel()
            meeting.close()
            if not self._is_orderly:
                for service in self._services.values():
                    service.hurry()
            await self._remove_all()
            self._part()

    def end(self, reason: str, *, orderly: bool = False) -> None:
        """Remove everything and end, clients or not; if that is ``orderly`` there is time to keep snapshots."""
        self._reason = reason
        self._is_orderly = orderly
        self._over.set()

    def _admit(self, connection: socket.socket) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        client = _Client()
        self._clients.add(client)
        client.task = self._tasks.create_task(self._serve(client, connection))

    async def _keep_doors(self, meeting: _Meeting) -> None:
        while True:
            connection = await meeting.accept()
            if self._over.is_set():
                connection.close()
                return
            self._admit(connection)

    async def _serve(self, client: _Client, connection: socket.socket) -> None:
        async with client.connected(connection) as reader:
            client.send(Hello(pid=os.getpid(), log=str(self._log_path)))
            try:
                await first_of(self._obey(client, reader), _process_ended(connection))
            finally:
                client.end_conversations()
                self._forget(client)
            if client in self._leaving:
                await client.parted.wait()

    async def _obey(self, client: _Client, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                request = messages.request(line)
                if isinstance(request, Bye):
                    self._leaving.add(client)
                    return
                self._carry_out(client, request)
        except ConnectionError:
            return
        except ValueError as error:  # msgspec's errors are ValueErrors, and so is a line that is too long
            _log.error("a client is cut off, for it does not speak our language: %s", error)

    def _carry_out(self, client: _Client, request: Request) -> None:
        match request:
            case Ensure():
                self._ensure(client, request)
            case Keep(idle=idle):
                self._idle = idle
            case End():
                self.end("it was told to", orderly=True)
            case Check():
                client.converse(request, self._tasks.create_task(self._answer_check(client, request)))
            case Survey():
                client.send(self._survey())
            case Read(number=number) | Run(number=number) | Preserve(number=number):
                client.converse(number, self._tasks.create_task(self._reach(client, request)))
            case Stop(number=number):
                client.stop(number)

    def _forget(self, client: _Client) -> None:
        self._clients.discard(client)
        if not self._clients and not self._idle and not self._over.is_set():
            self.end(self._reason, orderly=client in self._leaving)
        elif client in self._leaving and not self._over.is_set():
            self._dismiss(client, is_end=False)
        if not self._clients and self._idle:
            reason = f"nobody has come for {self._idle:g} s"
            self._alarm = asyncio.get_running_loop().call_later(self._idle, partial(self.end, reason, orderly=True))

    def _dismiss(self, client: _Client, *, is_end: bool) -> None:
        client.send(Farewell(is_end))
        client.parted.set()

    def _part(self) -> None:
        for client in self._clients | self._leaving:
            self._dismiss(client, is_end=True)
        for client in self._clients:
            client.task.cancel()

    async def _answer_check(self, client: _Client, request: Check) -> None:
        """Say whether a service answers; its silence keeps nobody waiting but who asked for it."""
        doubted = [
            service
            for service in self._services.values()
            if service.spec.name == request.service and service.is_used_by(client)
        ]
        try:
            problems = await asyncio.gather(*(service.check() for service in doubted))
        except Exception:  # noqa: BLE001 (a doubt must not take the services with it)
            _log.exception("a check of %s failed unexpectedly", request.service)
            problems = []
        client.send(Checked(request.number, next(filter(None, problems), "")))

    def _survey(self) -> Surveyed:
        services = tuple(service.state(self._clients) for service in self._services.values())
        return Surveyed(services=services, clients=len(self._clients) - 1, idle=self._idle)

    async def _reach(self, client: _Client, request: Read | Run | Preserve) -> None:
        """Carry out what a client wants of a running service, and tell it all that comes of it."""

        async def take(output: Output) -> None:
            await client.tell(Wrote(request.number, output.stream, output.data))

        code, problem = 0, ""
        try:
            running = self._running(client, request.service)
            match request:
                case Run(program=program):
                    code = await running.run(program, take)
                case Read(lines=lines, follow=follow):
                    await running.log(lines, follow, take)
                case Preserve(migrations=migrations):
                    await running.preserve(migrations)
        except ProvisionError as error:
            problem = str(error)
        except Exception:  # noqa: BLE001 (one question's fault must not take the services with it)
            _log.exception("a look into %s failed unexpectedly", request.service)
            problem = f"the supervisor failed by a fault of its own; see its log {self._log_path}"
        client.send(Over(request.number, code, problem))

    def _running(self, client: _Client, name: str) -> Running:
        held = [service for service in self._services.values() if service.spec.name == name]
        if not held:
            raise ProvisionError("it is not up")
        service = next((service for service in held if service.is_used_by(client)), held[-1])
        if service.running is None:
            raise ProvisionError("it is still starting")
        return service.running

    def _ensure(self, client: _Client, request: Ensure) -> None:
        if self._over.is_set():
            client.send(Failed(request.number, _ENDED_EARLY.format(reason=self._reason, name=request.spec.name)))
            return

        self._service(request.spec, request.asked).ask(client, request.number)

    def _service(self, spec: ServiceSpec, asked: float) -> _Service:
        """The service that ``spec`` is, started if it wasn't, after those that it needs."""
        key = msgspec.json.encode(_without_migrations(spec), order="deterministic")
        service = self._services.get(key)
        if service is None:
            needs = tuple(self._service(need, asked) for need in spec.needs)
            service = self._services[key] = _Service(spec=spec, asked=asked, key=key, needs=needs)
            for need in needs:
                need.dependents.append(service)
            service.task = self._tasks.create_task(self._hold(service))
        return service

    async def _hold(self, service: _Service) -> None:
        try:
            async with give(self._providers, service.place_order(self._project)) as running:
                _log.info("%s is ready: %r", service.spec.name, running.endpoint)
                service.answer_ready(running)
                how = await first_of(running.ended(), service.lost_need())
                self._retire(service)
                _log.error("%s %s while it was in use", service.spec.name, how)
                service.answer_lost(f"{how} while it was in use.{quoted(await running.last_words())}")
        except ProvisionError as error:
            service.answer_failed(error)
        except asyncio.CancelledError:
            service.answer_failed(ProvisionError(service.end_early(self._reason)))
            raise
        except Exception:  # noqa: BLE001 (one service's fault must not take the others with it)
            _log.exception("%s failed unexpectedly", service.spec.name)
            fault = ProvisionError(
                f"The supervisor failed to start the service {service.spec.name!r} by a fault of its own; "
                f"see its log {self._log_path}."
            )
            service.answer_failed(fault)
        finally:
            self._retire(service)

    def _retire(self, service: _Service) -> None:
        """Who asks from here on gets a new one; so do those who ask for one that needs it, for that one ends now."""
        if self._services.get(service.key) is not service:
            return
        del self._services[service.key]
        if service.running is not None:  # if it never was, those that need it are told why
            for dependent in service.dependents:
                dependent.lose(service.spec.name)
                self._retire(dependent)

    async def _remove_all(self) -> None:
        tasks = [service.task for service in self._services.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True, eq=False)
class _Client:
    """One connected process."""

    task: asyncio.Task[None] = field(init=False)
    parted: asyncio.Event = field(default_factory=asyncio.Event)
    _writer: asyncio.StreamWriter | None = None
    _conversations: dict[int | Check, asyncio.Task[None]] = field(default_factory=dict)

    @asynccontextmanager
    async def connected(self, connection: socket.socket) -> AsyncIterator[asyncio.StreamReader]:
        """Its lines; the connection is closed with the context, all that was sent before."""
        reader, self._writer = await asyncio.open_unix_connection(sock=connection, limit=messages.LONGEST_LINE)
        try:
            yield reader
        finally:
            self._writer.close()
            with suppress(ConnectionError):
                await self._writer.wait_closed()

    def send(self, message: Reply) -> None:
        """Send if it is still there. Nobody waits for a client that doesn't read."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(messages.line(message))

    async def tell(self, message: Reply) -> None:
        """Send, and wait until it has read most of what came before."""
        self.send(message)
        if self._writer is not None:
            with suppress(ConnectionError):
                await self._writer.drain()

    def converse(self, about: int | Check, task: asyncio.Task[None]) -> None:
        """Have ``task`` answer it, until it has ended or is stopped; ``about`` is the number to stop it by, if any."""
        self._conversations[about] = task
        task.add_done_callback(lambda _: self._conversations.pop(about, None))

    def stop(self, number: int) -> None:
        """End a conversation; no-op if it has ended."""
        if number in self._conversations:
            self._conversations[number].cancel()

    def end_conversations(self) -> None:
        """It is gone, or wants nothing any more."""
        for task in self._conversations.values():
            task.cancel()


class _StartError(ProvisionError):
    """A service did not start: by its own fault, or by that of the last one on the path of those that it needs."""

    def __init__(self, path: tuple[str, ...], cause: str) -> None:
        first, *others = path
        chain = ", which needs ".join(map(repr, others))
        reason = f"The service {first!r} was not started: it needs {chain}, which failed.\n" if chain else ""
        super().__init__(f"{reason}{cause}")
        self.path = path
        self.cause = cause


@dataclass(slots=True)
class _Doubt:
    """What is seen of a service that may be gone. One that refuses, or is too busy, is there."""

    seen: str = f"no answer within {_DOUBT:g} s"
    is_answered: bool = False

    def note(self, what: str) -> None:
        """Remember what was seen last."""
        self.seen = what

    async def attempt(self, handshake: Handshake, address: Address) -> None:
        """Shake hands once more. What is not yet, or not any more, for a server that is ending, is tried again."""
        self.is_answered = False
        try:
            await handshake.attempt(address)
        except RejectedError:
            return
        except NotReadyError:
            self.is_answered = True
            raise


@dataclass(slots=True, eq=False)
class _Service:
    """One service, those that it needs and those that need it, and those who asked for it."""

    spec: ServiceSpec
    asked: float
    key: bytes
    needs: tuple[_Service, ...]
    dependents: list[_Service] = field(default_factory=list)
    started: asyncio.Future[Running] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    task: asyncio.Task[None] = field(init=False)
    order: Order | None = None
    running: Running | None = None
    is_lost: asyncio.Event = field(default_factory=asyncio.Event)
    _noted: str = ""
    _endpoint: Endpoint | None = None
    _waiting: list[tuple[_Client, int]] = field(default_factory=list)
    _users: set[_Client] = field(default_factory=set)
    _has_lost: asyncio.Event = field(default_factory=asyncio.Event)
    _loss: str = ""

    def place_order(self, project: str) -> Order:
        """Make the order for it; raises ProvisionError if the catalogue does not have its kind."""
        kind = kind_of(self.spec)
        self.order = Order(
            spec=self.spec,
            kind=kind,
            asked=self.asked,
            record=self._record,
            project=project,
            needs=self._needs_started,
            note=self._note,
        )
        return self.order

    def lose(self, need: str) -> None:
        """One that it needs has ended: what was made for that one, or is being made, is of no use any more."""
        self._loss = f"lost {need!r}, which it needs,"
        self._has_lost.set()
        if self.running is None:
            self.task.cancel()

    def end_early(self, reason: str) -> str:
        """Why it was cancelled before it was ready: ``reason``, unless it lost what it needs."""
        if self._loss:
            return f"The service {self.spec.name!r} {self._loss} before it was ready."
        return _ENDED_EARLY.format(reason=reason, name=self.spec.name)

    async def lost_need(self) -> str:
        """Wait until one that it needs has ended; how that is to be told."""
        await self._has_lost.wait()
        return self._loss

    def hurry(self) -> None:
        """Keep nothing at its end."""
        if self.order is not None:
            self.order.may_keep = False

    def is_used_by(self, client: _Client) -> bool:
        """Whether it is up and ``client`` has asked for it."""
        return self._endpoint is not None and client in self._users

    def ask(self, client: _Client, number: int) -> None:
        """Answer ``client`` under ``number``, now or when it is known."""
        self._use(client)
        if self._endpoint is None:
            self._waiting.append((client, number))
        else:
            client.send(Ready(number, self._endpoint))

    def state(self, present: set[_Client]) -> ServiceState:
        """What it is now, for those of ``present`` who use it."""
        return ServiceState(
            name=self.spec.name,
            kind=self.spec.kind,
            asked=self.asked,
            users=len(self._users & present),
            endpoint=self._endpoint,
        )

    def answer_ready(self, running: Running) -> None:
        """It is up."""
        self.running = running
        self._endpoint = running.endpoint
        for client, number in self._waiting:
            client.send(Ready(number, running.endpoint))
        self._waiting.clear()
        if not self.started.done():
            self.started.set_result(running)

    def answer_failed(self, error: ProvisionError) -> None:
        """It will not be; to those who have its endpoint already this is no answer."""
        if not isinstance(error, _StartError):
            error = _StartError((self.spec.name,), str(error))
        for client, number in self._waiting:
            client.send(Failed(number, str(error)))
        self._waiting.clear()
        if not self.started.done():
            self.started.set_exception(error)
            self.started.exception()  # if nobody needs it, nobody retrieves it

    async def _needs_started(self) -> dict[str, Running]:
        """Wait for those that it needs, and give them by name.

        Raises:
            _StartError: The first that failed.
        """
        try:
            running = await asyncio.gather(*(asyncio.shield(need.started) for need in self.needs))
        except _StartError as error:
            raise _StartError((self.spec.name, *error.path), error.cause) from None
        return dict(zip((need.spec.name for need in self.needs), running, strict=True))

    def _use(self, client: _Client) -> None:
        self._users.add(client)
        for need in self.needs:
            need._use(client)  # noqa: SLF001 (of the same class)

    def answer_lost(self, problem: str) -> None:
        """It was up, and is not any more."""
        message = self._lost(problem)
        for client in self._users:
            client.send(Lost(self.spec.name, message))
        self.is_lost.set()

    async def check(self) -> str:
        """What to tell its users if it does not answer; empty if it does, or its end was told."""
        doubt = _Doubt()
        try:
            async with asyncio.timeout(_DOUBT):
                await first_of(self._answers(doubt), self.is_lost.wait())
        except TimeoutError:
            return "" if doubt.is_answered else self._lost(f"does not answer any more: {doubt.seen}.")
        return ""

    async def _answers(self, doubt: _Doubt) -> object:
        endpoint, order = self._endpoint, self.order
        if endpoint is None or order is None:
            return None
        handshake = order.kind.handshake
        address = Address(
            host=endpoint.host,
            port=endpoint.port,
            username=endpoint.username,
            password=endpoint.password,
            database=endpoint.database,
            tls=endpoint.scheme in order.kind.tls_schemes,
            socket=endpoint.socket,
        )
        if handshake is not None:
            await wait_ready(lambda: doubt.attempt(handshake, address), doubt.note)
        elif endpoint.port:
            await OpenPort(str(endpoint.port), address, None).wait(doubt.note)
        return None

    def _lost(self, problem: str) -> str:
        detail = "" if self._endpoint is None else f" ({self._endpoint.detail})"
        message = f"The service {self.spec.name!r}{detail} {problem}"
        return message if self.order is None else self.order.redact(message)

    def _record(self, phase: ServicePhase) -> None:
        for client in self._users:
            client.send(Measured(phase))

    def _note(self, text: str) -> None:
        if text != self._noted:
            self._noted = text
            for client in self._users:
                client.send(Noted(self.spec.name, text))


class _Meeting:
    """The project's listening socket, held by the one who has the lock."""

    def __init__(self, project: runtime.Project, lock: int) -> None:
        self._project = project
        self._lock = lock
        project.socket.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        self._socket.bind(str(project.socket))
        project.socket.chmod(0o600)
        self._socket.listen(64)

    async def accept(self) -> socket.socket:
        """The next one who comes."""
        connection, _ = await asyncio.get_running_loop().sock_accept(self._socket)
        return connection

    def close(self) -> None:
        """Let nobody in any more, and another supervisor listen; idempotent."""
        if self._lock < 0:
            return

        self._project.socket.unlink(missing_ok=True)
        self._socket.close()
        os.close(self._lock)
        self._lock = -1


def _without_migrations(spec: ServiceSpec) -> ServiceSpec:
    """What tells services apart: with other migrations it is the same server."""
    return msgspec.structs.replace(spec, migrations="", needs=tuple(map(_without_migrations, spec.needs)))


async def _process_ended(connection: socket.socket) -> None:
    """Wait until the process at the other end has ended, where the system can tell; else for ever."""
    never = asyncio.Event()
    if not hasattr(os, "pidfd_open"):
        await never.wait()

    try:
        descriptor = os.pidfd_open(_peer(connection))
    except ProcessLookupError:
        return
    except OSError:  # an old kernel: the end of the stream must do
        await never.wait()
        return

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _peer(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], sys.byteorder)


async def _sweep(docker: Docker) -> None:
    try:
        swept = await sweep(docker, always=False)
    except Exception:  # noqa: BLE001 (what others left must not hinder this run; the next one tries again)
        _log.exception("the sweep failed")
    else:
        _log.info("swept of what dead supervisors left: %r", swept)


async def _lock(project: runtime.Project) -> int | None:
    """The lock that the one who listens has; None if another one listens."""
    while (lock := runtime.take_lock(project)) is None:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(str(project.socket))
            return None
        await asyncio.sleep(_LOOK)  # it begins to listen, or has just ended
    return lock


async def _serve_or_refer(first: socket.socket, project: runtime.Project) -> None:
    lock = await _lock(project)
    if lock is None:
        first.sendall(messages.line(Elsewhere()))
        first.close()
        return
    session = runtime.new_session(project)
    try:
        _log_to(session / "log")
        await _supervise(first, project, session, lock)
    finally:
        runtime.leave(project, session)


def _log_to(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for output in (1, 2):
        os.dup2(descriptor, output)
    os.close(descriptor)


async def _supervise(first: socket.socket, project: runtime.Project, session: Path, lock: int) -> None:
    async with AsyncExitStack() as resources:
        docker = await resources.enter_async_context(Docker(session=session.name, project=project.key, sockets=session))
        meeting = _Meeting(project, lock)
        resources.callback(meeting.close)
        _log.info("process %d starts", os.getpid())
        supervisor = Supervisor((docker, Embedded(), External()), log=session / "log", project=project.key)
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, supervisor.end, sign.name)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_sweep(docker))  # to its end: the sign of what is left is removed first
            await supervisor.run(first, meeting)
            docker.close_doors()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a supervisor to its end."""
    parser = argparse.ArgumentParser(prog="asynctest_kit.provision.supervisor", description=main.__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the project's root")
    parser.add_argument("--first", type=int, required=True, help="descriptor of the first client's socket")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        project = runtime.project_of(options.root)
        asyncio.run(_serve_or_refer(socket.socket(fileno=options.first), project))
    except ProvisionError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
