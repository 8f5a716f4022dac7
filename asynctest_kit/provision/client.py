"""How a runner, a worker or a plain pytest reaches the supervisor.

:meth:`Client.connect` returns before a supervisor runs (see :mod:`asynctest_kit.provision.link`). A thread reads the
answers, so the client serves any event loop, several of them, and code without one.

Clients that come at once each start a supervisor; the first of these listens, and the others send their clients there.

Three ends of the stream are told apart. Before the greeting of a supervisor that was *found* listening: it was about
to end, so one is started and asked again. Before the greeting of one that we *started*, or after a greeting: it died,
whatever is pending fails with the end of its log, what was up is lost, and a process is started that removes what it
left. After our own farewell: all is well.

This module is imported before pytest: it must load light, so no asyncio at import.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.link import clean_up, join, start
from asynctest_kit.provision.messages import (
    Bye,
    Check,
    Checked,
    Claim,
    Elsewhere,
    Ensure,
    Failed,
    Farewell,
    Hello,
    Keep,
    Leave,
    Lost,
    Measured,
    Noted,
    Over,
    Preserve,
    Read,
    Ready,
    Reply,
    Run,
    Stop,
    Wrote,
)
from asynctest_kit.provision.surroundings import come_from_here

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asynctest_kit.provision.link import Link
    from asynctest_kit.provision.service import Endpoint, ServicePhase, ServiceSpec

__all__ = ["Asked", "Client"]

#: Seconds in which a supervisor finds out whether a service still answers.
_CHECK = 5.0


class Asked(NamedTuple):
    """A service that a client has asked for: under which number, as what, when (CLOCK_MONOTONIC), and the answer."""

    number: int
    spec: ServiceSpec
    at: float
    future: Future[Endpoint]

    @property
    def name(self) -> str:
        """What the user calls it."""
        return self.spec.name


class Client:
    """A connection to the project's supervisor; safe to use from any thread.

    Services live until the last client of the project has closed or its process has ended.
    """

    def __init__(self, link: Link, root: Path) -> None:
        """Use :meth:`connect`."""
        self._root = root
        self._link = link
        self._mutex = threading.Lock()
        self._questions: list[_Question] = []
        self._asked: dict[bytes, _Question] = {}
        self._reached: list[_Reach | None] = []
        self._epitaph = ""
        self._phases: list[ServicePhase] = []
        self._notes: dict[str, str] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._losses: dict[str, str] = {}
        self._checks: list[Future[str]] = []
        self._checked: dict[str, tuple[float, str]] = {}
        self._idle = 0.0
        self._is_closed = False
        self._reader = threading.Thread(target=self._read, name="asynctest_kit provision client", daemon=True)
        self._reader.start()

    @classmethod
    def connect(cls, root: Path) -> Client:
        """Join the supervisor of the project at ``root``, or start one; returns at once.

        Nothing is made here but a process, so that whoever is killed right after this leaves nothing.

        Raises:
            ProvisionError: The private directory for it is somebody else's.
        """
        come = come_from_here()
        return cls(join(root, come) or start(root, come), root)

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

    def leave(self, spec: ServiceSpec) -> None:
        """Have a service end that is ours alone; no-op if it wasn't asked for. Returns before it has ended."""
        with self._mutex:
            question = self._asked.pop(msgspec.json.encode(spec, order="deterministic"), None)
            if question is None:
                return
            question.is_left = True
            self._endpoints.pop(spec.name, None)
            self._link.send(Leave(question.request.number))
        question.fail(f"The service {spec.name!r} was left before it was ready.")

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
            self._notes.pop(phase.service, None)

    def note(self, service: str, text: str) -> None:
        """Say what is being done with a service, until a phase of it is recorded."""
        with self._mutex:
            self._notes[service] = text

    @property
    def is_closed(self) -> bool:
        """Whether it was left; what was pending then has failed for that reason alone."""
        return self._is_closed

    @property
    def asked(self) -> tuple[Asked, ...]:
        """The services that were asked for so far."""
        with self._mutex:
            return tuple(question.asked for question in self._questions)

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

    @property
    def losses(self) -> Mapping[str, str]:
        """What is known of services that were ready and are not any more: by name, what to tell of each."""
        with self._mutex:
            return MappingProxyType(dict(self._losses))

    def check(self, service: str, *, since: float) -> str:
        """Have it seen whether a service answers; blocks until that is known, or :attr:`losses` tells.

        Args:
            service: Its name.
            since: A moment (``time.time()``): what was seen after it is not looked for again, so that failures that
                come at once wait for one look.

        Returns:
            What to tell of it, if it does not answer. It may do so again: nothing but losses is for good.
        """
        check: Future[str] = Future()
        with self._mutex:
            if service in self._losses or service not in self._endpoints or self._epitaph:
                return ""
            at, problem = self._checked.get(service, (0.0, ""))
            if at > since:
                return problem
            self._checks.append(check)
            self._link.send(Check(len(self._checks) - 1, service))
        with suppress(TimeoutError):
            problem = check.result(_CHECK)
            with self._mutex:
                self._checked[service] = time.time(), problem
            return problem
        return ""

    @property
    def notes(self) -> Mapping[str, str]:
        """What is being done for services right now, for people, by name; only where it lasts, as a pull does."""
        with self._mutex:
            return MappingProxyType(dict(self._notes))

    def reach(self, ask: Callable[[int], Read | Run | Preserve], take: Callable[[Wrote | Over], object]) -> int:
        """Read the log of a service that is up, run a program in it or have it kept.

        Args:
            ask: Makes the request, given its number.
            take: Gets what comes of it, in another thread; last of all the end.

        Returns:
            The number to :meth:`stop` it by.
        """
        with self._mutex:
            number = len(self._reached)
            reach = _Reach(ask(number), take)
            self._reached.append(reach)
            epitaph = self._epitaph
            if not epitaph:
                self._link.send(reach.request)
        if epitaph:
            self._take_piece(Over(number, problem=epitaph))
        return number

    def stop(self, number: int) -> None:
        """Hear nothing more of what was asked under that number; no-op if it has ended."""
        with self._mutex:
            is_open = self._reached[number] is not None
            self._reached[number] = None
            if is_open:
                self._link.send(Stop(number))

    def close(self, *, timeout: float = 10.0) -> None:
        """Leave; idempotent.

        If this was the last client, it returns when everything is removed and measured, or after ``timeout`` seconds
        (the removal goes on without us then, and so it does after Ctrl-C). What is still pending fails.
        """
        with self._mutex:
            self._is_closed = True
            link = self._link
        self._bury("its client was closed.")
        with suppress(KeyboardInterrupt):
            link.send(Bye())
            self._reader.join(timeout)
        link.close()

    def keep(self, idle: float) -> None:
        """Have the services stay when we leave, until nobody has come for ``idle`` seconds."""
        with self._mutex:
            self._idle = idle
            self._link.send(Keep(idle))

    async def preserve(self, service: str, migrations: str) -> None:
        """Have a service's data kept as it is now, if its provider can; returns when nothing later comes into it.

        Args:
            service: Its name.
            migrations: The digest of those that have been made in it.
        """
        import asyncio

        loop, is_taken = asyncio.get_running_loop(), asyncio.Event()
        number = self.reach(
            lambda number: Preserve(number, service, migrations), lambda _: loop.call_soon_threadsafe(is_taken.set)
        )
        try:
            await is_taken.wait()
        finally:
            self.stop(number)

    def claim(self, service: str, migrations: str, *, is_open: bool = False) -> None:
        """Have a service be for ``migrations`` (a digest) alone: who asks for it with others gets another.

        Args:
            service: Its name.
            migrations: The digest; empty to take back what was open.
            is_open: Whether that is to be so only if this client goes, or is killed, before it has claimed again.
        """
        with self._mutex:
            self._link.send(Claim(service, migrations, is_open))

    def _read(self) -> None:
        try:
            while self._listen(self._link):
                self._ask_another()
        except (OSError, ProvisionError) as error:
            self._bury(f"no supervisor can be started for it: {error}")

    def _listen(self, link: Link) -> bool:
        """Take what comes until the stream ends; whether another supervisor should be asked instead."""
        for reply in link.replies():
            self._take(link, reply)
        if link.is_of_no_use and not self._is_closed:
            return True

        link.reap()
        if not link.is_parted and not link.is_of_no_use:
            self._mourn(link.epitaph())
            clean_up()
        elif not self._is_closed:
            self._mourn("its supervisor was told to end, by `atk down` or a signal.")
        return False

    def _take(self, link: Link, reply: Reply) -> None:
        match reply:
            case Hello(log=log):
                link.greeted(Path(log))
            case Elsewhere():
                link.referred()
            case Farewell(is_end=is_end):
                link.parted(is_end=is_end)
            case Wrote() | Over():
                self._take_piece(reply)
            case _:
                self._take_news(reply)

    def _take_news(self, reply: Reply) -> None:
        match reply:
            case Measured(phase=phase):
                self.record(phase)
            case Noted(service=name, text=text):
                self.note(name, text)
            case Ready(number=number, endpoint=endpoint):
                with self._mutex:
                    if not self._questions[number].is_left:
                        self._endpoints[endpoint.service] = endpoint
                self._questions[number].answer(endpoint)
            case Failed(number=number, message=message):
                self._questions[number].fail(message)
            case Lost(service=service, message=message):
                with self._mutex:
                    self._losses[service] = message
            case Checked(number=number, problem=problem):
                self._checks[number].set_result(problem)

    def _take_piece(self, piece: Wrote | Over) -> None:
        with self._mutex:
            reach = self._reached[piece.number]
            if isinstance(piece, Over):
                self._reached[piece.number] = None
        if reach is not None:
            reach.take(piece)

    def _ask_another(self) -> None:
        with self._mutex:
            self._link.close()
            come = self._link.come
            self._link = join(self._root, come) or start(self._root, come)
            if self._idle:
                self._link.send(Keep(self._idle))
            for question in self._questions:
                if not question.is_left:
                    self._link.send(question.request)
            for reach in filter(None, self._reached):
                self._link.send(reach.request)

    def _mourn(self, epitaph: str) -> None:
        with self._mutex:
            for service, endpoint in self._endpoints.items():
                if endpoint.provider != "external" and service not in self._losses:
                    self._losses[service] = f"The service {service!r} ({endpoint.detail}) was lost when {epitaph}"
        self._bury(epitaph)

    def _bury(self, epitaph: str) -> None:
        with self._mutex:
            self._epitaph = self._epitaph or epitaph
            pending = [question for question in self._questions if not question.future.done()]
            checks = [check for check in self._checks if not check.done()]
            reached = [reach.request.number for reach in self._reached if reach is not None]
        for check in checks:
            check.set_result("")
        for number in reached:
            self._take_piece(Over(number, problem=epitaph))
        for question in pending:
            question.fail(f"The service {question.request.spec.name!r} was not ready when {epitaph}")


class _Reach(NamedTuple):
    """What was asked of a running service, and who takes what comes of it."""

    request: Read | Run | Preserve
    take: Callable[[Wrote | Over], object]


class _Question:
    """A service that was asked for, and its answer to come."""

    def __init__(self, request: Ensure) -> None:
        self.request = request
        self.is_left = False
        self.future: Future[Endpoint] = Future()
        # From here on nobody can cancel it, neither directly nor through an event loop's wrapper.
        self.future.set_running_or_notify_cancel()
        self._mutex = threading.Lock()

    @property
    def asked(self) -> Asked:
        """What was asked."""
        return Asked(self.request.number, self.request.spec, self.request.asked, self.future)

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
