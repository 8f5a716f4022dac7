"""The process that owns every container and server of a project: ``python -m asynctest_kit.provision.supervisor``.

Why a process of its own: containers should boot while the run that needs them still imports and collects, should be
shared between runs and worker processes, and should be gone when the last of these is, however it went. So no user of
a service can be its owner.

Invariants:

- A service is a task. Set-up, hold and removal happen in it; it lives as long as its provider's context is open.
  Cancelling the task is the one way to end it, whether it is starting or held.
- One spec is one service: the first who asks starts it, everybody who asks gets its one answer. A failed start is
  forgotten when it was answered, so that a later client may try again. One that runs is also another's whose spec
  makes the same server; limits and the like don't matter then.
- What a client gets is what it would have got alone: from the engine and the binaries that it has around it, and not
  from those that the supervisor or another client has (see :mod:`asynctest_kit.provision.supply`).
- Those that a service needs are services like any other, asked for by it. Each starts when all that it needs is ready,
  so what doesn't need each other starts at once. If one fails, those that need it fail with its message; if one ends
  while it is in use, those that need it are removed, for they were made for what is gone.
- A service that is one client's own ends when that client leaves it, or goes, however it went.
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
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision import messages, runtime
from asynctest_kit.provision.guest import Guest, process_ended
from asynctest_kit.provision.messages import (
    Bye,
    Check,
    Checked,
    Claim,
    Come,
    Elsewhere,
    End,
    Ensure,
    Failed,
    Farewell,
    Hello,
    Keep,
    Leave,
    Over,
    Preserve,
    Read,
    Request,
    Run,
    Stop,
    Survey,
    Surveyed,
    Wrote,
)
from asynctest_kit.provision.providers import Running, quoted
from asynctest_kit.provision.selection import give
from asynctest_kit.provision.service import same_server
from asynctest_kit.provision.supervised import Service, Wanted, ended_early
from asynctest_kit.provision.supply import open_supplies
from asynctest_kit.provision.surroundings import Surroundings
from asynctest_kit.provision.waiting import first_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asynctest_kit.provision.service import Output, ServiceSpec
    from asynctest_kit.provision.supply import Supplies

__all__ = ["Supervisor", "main"]

_log = logging.getLogger("asynctest_kit.supervisor")

#: Seconds between two looks for who listens.
_LOOK = 0.01


class Supervisor:
    """Clients in, services out; open from its first client to its last.

    Args:
        supplies: Who may give services to which client.
        log: Path of this process's log, for clients to quote from.
        project: The project's key.
    """

    def __init__(self, supplies: Supplies, *, log: Path, project: str = "") -> None:
        self._supplies = supplies
        self._project = project
        self._log_path = log
        self._clients: set[Guest] = set()
        self._leaving: set[Guest] = set()
        self._services: list[Service] = []
        self._discarded: set[asyncio.Task[None]] = set()
        self._ended: dict[str, str] = {}
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
                for service in self._services:
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
        client = Guest()
        self._clients.add(client)
        client.task = self._tasks.create_task(self._serve(client, connection))

    async def _keep_doors(self, meeting: _Meeting) -> None:
        while True:
            connection = await meeting.accept()
            if self._over.is_set():
                connection.close()
                return
            self._admit(connection)

    async def _serve(self, client: Guest, connection: socket.socket) -> None:
        async with client.connected(connection) as reader:
            client.send(Hello(pid=os.getpid(), log=str(self._log_path)))
            try:
                await first_of(self._obey(client, reader), process_ended(connection))
            finally:
                client.end_conversations()
                self._forget(client)
            if client in self._leaving:
                await client.parted.wait()

    async def _obey(self, client: Guest, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                request = messages.request(line)
                if isinstance(request, Bye):
                    self._leaving.add(client)
                    return
                if isinstance(request, Come):
                    client.have(await self._supplies.of(Surroundings.told(request)))
                else:
                    if isinstance(request, Ensure):
                        client.have(await self._supplies.renewed(client.supply))
                    self._carry_out(client, request)
        except ConnectionError:
            return
        except ValueError as error:  # msgspec's errors are ValueErrors, and so is a line that is too long
            _log.error("a client is cut off, for it does not speak our language: %s", error)
        except Exception:  # noqa: BLE001 (one client's request must not take the others' services with it)
            _log.exception("a client is cut off, for what it asked failed unexpectedly")

    def _carry_out(self, client: Guest, request: Request) -> None:
        match request:
            case Ensure():
                self._ensure(client, request)
            case Leave(number=number):
                self._leave(client, number)
            case Keep(idle=idle):
                self._idle = idle
            case End():
                self.end("it was told to", orderly=True)
            case Check():
                client.converse(request, self._tasks.create_task(self._answer_check(client, request)))
            case Claim():
                self._claim(client, request)
            case Survey():
                client.send(self._survey(client))
            case Read(number=number) | Run(number=number) | Preserve(number=number):
                client.converse(number, self._tasks.create_task(self._reach(client, request)))
            case Stop(number=number):
                client.stop(number)

    def _forget(self, client: Guest) -> None:
        self._clients.discard(client)
        for service in tuple(self._services):
            service.settle_claim(client)
            if service.spec.is_own and service.is_of(client):
                self._end_own(service)
        if not self._clients and not self._idle and not self._over.is_set():
            self.end(self._reason, orderly=client in self._leaving)
        elif client in self._leaving and not self._over.is_set():
            self._dismiss(client, is_end=False)
        if not self._clients and self._idle:
            reason = f"nobody has come for {self._idle:g} s"
            self._alarm = asyncio.get_running_loop().call_later(self._idle, partial(self.end, reason, orderly=True))

    def _dismiss(self, client: Guest, *, is_end: bool) -> None:
        client.send(Farewell(is_end))
        client.parted.set()

    def _part(self) -> None:
        for client in self._clients | self._leaving:
            self._dismiss(client, is_end=True)
        for client in self._clients:
            client.task.cancel()

    async def _answer_check(self, client: Guest, request: Check) -> None:
        """Say whether a service answers; its silence keeps nobody waiting but who asked for it."""
        doubted = [
            service for service in self._services if service.spec.name == request.service and service.is_used_by(client)
        ]
        try:
            problems = await asyncio.gather(*(service.check() for service in doubted))
        except Exception:  # noqa: BLE001 (a doubt must not take the services with it)
            _log.exception("a check of %s failed unexpectedly", request.service)
            problems = []
        client.send(Checked(request.number, next(filter(None, problems), "")))

    def _survey(self, client: Guest) -> Surveyed:
        services = tuple(service.state(self._clients, client.supply) for service in self._services)
        return Surveyed(services=services, clients=len(self._clients) - 1, idle=self._idle, ended=self._ended)

    async def _reach(self, client: Guest, request: Read | Run | Preserve) -> None:
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

    def _running(self, client: Guest, name: str) -> Running:
        held = [service for service in self._services if service.spec.name == name]
        if not held:
            raise ProvisionError("it is not up")
        service = max(held, key=lambda service: (service.is_used_by(client), service.is_from(client.supply)))
        if service.running is None:
            raise ProvisionError("it is still starting")
        return service.running

    def _ensure(self, client: Guest, request: Ensure) -> None:
        if self._over.is_set():
            client.send(Failed(request.number, ended_early(request.spec, self._reason)))
            return

        try:
            service = self._service(client, request.spec, request.asked)
        except ProvisionError as error:
            client.send(Failed(request.number, str(error)))
        else:
            service.ask(client, request.number)

    def _service(self, client: Guest, spec: ServiceSpec, asked: float) -> Service:
        """The service that ``spec`` is for ``client``, started if it wasn't, after those that it needs.

        Raises:
            ProvisionError: The catalogue doesn't have its kind.
        """
        needs = tuple(self._service(client, need, asked) for need in spec.needs)
        wanted = Wanted(spec, same_server(spec), needs, client.supply.sources(spec))
        found = [service for service in self._services if service.serves(wanted)]
        # What it has already comes first, then what its own providers would have given it before others.
        found.sort(key=lambda service: (not service.is_of(client), wanted.preference(service.given_by)))
        if found:
            return found[0]

        self._remove_superseded(wanted)
        service = Service(wanted=wanted, asked=asked, supply=client.supply)
        self._services.append(service)
        self._ended.pop(spec.name, None)
        for need in needs:
            need.dependents.append(service)
        service.task = self._tasks.create_task(self._hold(service))
        return service

    def _leave(self, client: Guest, number: int) -> None:
        """End what a client asked for under ``number``, if it is its alone; no-op if it has ended."""
        for service in tuple(self._services):
            if service.spec.is_own and service.was_asked(client, number):
                self._end_own(service)

    def _end_own(self, service: Service) -> None:
        _log.info("%s is left", service.spec.name)
        self._discard(service)

    def _discard(self, service: Service) -> None:
        """Have it removed while others go on; whoever ends all waits for that."""
        self._retire(service)
        self._discarded.add(service.task)
        service.task.add_done_callback(self._discarded.discard)
        service.task.cancel()

    def _claim(self, client: Guest, request: Claim) -> None:
        for service in self._services:
            if service.spec.name == request.service and service.is_used_by(client):
                service.server.claim(client, request.migrations, is_open=request.is_open)

    def _remove_superseded(self, wanted: Wanted) -> None:
        """Remove those in whose place ``wanted`` is started, for they are other migrations', and that nobody uses."""
        for service in tuple(self._services):
            would_serve = service.wanted.is_served_by(wanted, service.given_by)
            if service.claimed and would_serve and not service.has_users(self._clients):
                _log.info("%s is for other migrations, and is not used", service.spec.name)
                self._discard(service)

    async def _hold(self, service: Service) -> None:
        try:
            async with give(service.supply.providers, service.place_order(self._project)) as running:
                _log.info("%s is ready: %r", service.spec.name, running.endpoint)
                service.answer_ready(running)
                how = await first_of(running.ended(), service.lost_need())
                self._retire(service)
                self._ended[service.spec.name] = how
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

    def _retire(self, service: Service) -> None:
        """Who asks from here on gets a new one; so do those who ask for one that needs it, for that one ends now."""
        if service not in self._services:
            return
        self._services.remove(service)
        if service.running is not None:  # if it never was, those that need it are told why
            for dependent in service.dependents:
                dependent.lose(service.spec.name)
                self._retire(dependent)

    async def _remove_all(self) -> None:
        tasks = [service.task for service in self._services]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._discarded, return_exceptions=True)


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
    async with open_supplies(session, project.key) as supplies:
        meeting = _Meeting(project, lock)
        _log.info("process %d starts", os.getpid())
        supervisor = Supervisor(supplies, log=session / "log", project=project.key)
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, supervisor.end, sign.name)
        try:
            await supervisor.run(first, meeting)
        finally:
            meeting.close()


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
