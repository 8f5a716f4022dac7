"""One service of a supervisor's: what it is, who asked for it, what it needs, and what all of them are told.

When it starts and ends is the supervisor's to say: see :mod:`asynctest_kit.provision.supervisor`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING

import msgspec

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.catalog import kind_of
from asynctest_kit.provision.messages import Failed, Lost, Measured, Noted, Ready
from asynctest_kit.provision.providers import Order
from asynctest_kit.provision.readiness import Address, NotReadyError, RejectedError, wait_ready
from asynctest_kit.provision.readiness.listening import OpenPort
from asynctest_kit.provision.service import ServiceState
from asynctest_kit.provision.waiting import first_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asynctest_kit.provision.guest import Guest
    from asynctest_kit.provision.providers import Running
    from asynctest_kit.provision.readiness import Handshake
    from asynctest_kit.provision.service import Endpoint, ProviderName, ServicePhase, ServiceSpec
    from asynctest_kit.provision.supply import Supply

__all__ = ["Service", "Wanted", "ended_early"]

#: Seconds that a service has to answer once more, when a client doubts it.
_DOUBT = 2.0


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


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A service as one client asks for it.

    Attributes:
        spec: What it is to be.
        server: What tells its server from others.
        needs: The services that it needs.
        sources: From what each provider would give it, in the order in which they are asked.
    """

    spec: ServiceSpec
    server: bytes
    needs: tuple[Service, ...]
    sources: Mapping[ProviderName, str]

    def is_served_by(self, other: Wanted, given_by: ProviderName | None) -> bool:
        """Whether what was started for this serves the ``other``, too.

        While it starts it serves those who ask in the same words: it has their limits. One that runs serves those who
        would be given it, from the same source: by a provider that they prefer to all others, or that has come next
        here too, after the same refusals. One that was asked for by its provider's name is for all who don't mind.
        """
        if self.server != other.server or self.needs != other.needs:
            return False
        if given_by is None:
            return self.sources == other.sources and _in_other_words(self.spec) == _in_other_words(other.spec)
        if other.sources.get(given_by) != self.sources[given_by]:
            return False
        refused = takewhile(lambda name: name != given_by, other.sources)
        is_by_name = next(iter(self.sources)) == given_by
        return is_by_name or all(self.sources.get(name) == other.sources[name] for name in refused)

    def preference(self, given_by: ProviderName | None) -> int:
        """How many providers would have been asked before that one."""
        return 0 if given_by is None else tuple(self.sources).index(given_by)


@dataclass(slots=True, eq=False)
class Service:
    """One service, those that it needs and those that need it, and those who asked for it.

    If it is ``claimed``, it is for those migrations alone.
    """

    wanted: Wanted
    asked: float
    supply: Supply
    dependents: list[Service] = field(default_factory=list)
    started: asyncio.Future[Running] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    task: asyncio.Task[None] = field(init=False)
    order: Order | None = None
    running: Running | None = None
    is_lost: asyncio.Event = field(default_factory=asyncio.Event)
    claimed: str = ""
    _open_claims: dict[Guest, str] = field(default_factory=dict)
    _noted: str = ""
    _endpoint: Endpoint | None = None
    _waiting: list[tuple[Guest, int]] = field(default_factory=list)
    _users: set[Guest] = field(default_factory=set)
    _numbers: set[tuple[Guest, int]] = field(default_factory=set)
    _has_lost: asyncio.Event = field(default_factory=asyncio.Event)
    _loss: str = ""

    @property
    def spec(self) -> ServiceSpec:
        """What it is."""
        return self.wanted.spec

    @property
    def server(self) -> Service:
        """The one whose server it is on; itself if it has one."""
        return self.wanted.needs[0] if self.spec.shares else self

    @property
    def given_by(self) -> ProviderName | None:
        """Who gave it; None while it starts."""
        return None if self._endpoint is None else self._endpoint.provider

    def serves(self, wanted: Wanted) -> bool:
        """Whether it is what a client wants."""
        is_free = self.claimed in ("", wanted.spec.migrations)
        return is_free and self.wanted.is_served_by(wanted, self.given_by)

    def claim(self, client: Guest, migrations: str, *, is_open: bool) -> None:
        """Have it be for these migrations; if that is open, only if ``client`` goes before it has claimed again."""
        if is_open:
            self._open_claims[client] = migrations
        else:
            self._open_claims.pop(client, None)
            self.claimed = migrations or self.claimed

    def settle_claim(self, client: Guest) -> None:
        """The claim that ``client`` has left open, if any, stands."""
        self.claimed = self._open_claims.pop(client, "") or self.claimed

    def has_users(self, present: set[Guest]) -> bool:
        """Whether any of those who use it is present."""
        return not self._users.isdisjoint(present)

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
            environ=self.supply.environ,
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
        return ended_early(self.spec, reason)

    async def lost_need(self) -> str:
        """Wait until one that it needs has ended; how that is to be told."""
        await self._has_lost.wait()
        return self._loss

    def hurry(self) -> None:
        """Keep nothing at its end."""
        if self.order is not None:
            self.order.may_keep = False

    def is_used_by(self, client: Guest) -> bool:
        """Whether it is up and ``client`` has asked for it."""
        return self._endpoint is not None and self.is_of(client)

    def is_of(self, client: Guest) -> bool:
        """Whether ``client`` has asked for it, or for one that needs it."""
        return client in self._users

    def ask(self, client: Guest, number: int) -> None:
        """Answer ``client`` under ``number``, now or when it is known."""
        self._use(client)
        self._numbers.add((client, number))
        if self._endpoint is None:
            self._waiting.append((client, number))
        else:
            client.send(Ready(number, self._endpoint))

    def was_asked(self, client: Guest, number: int) -> bool:
        """Whether ``client`` has asked for it under ``number``."""
        return (client, number) in self._numbers

    def is_from(self, supply: Supply) -> bool:
        """Whether it was given from what ``supply`` has, too."""
        given_by = self.given_by
        return given_by is not None and supply.sources(self.spec).get(given_by) == self.wanted.sources[given_by]

    def state(self, present: set[Guest], supply: Supply) -> ServiceState:
        """What it is now, for those of ``present`` who use it, told to one who has ``supply``."""
        return ServiceState(
            name=self.spec.name,
            kind=self.spec.kind,
            asked=self.asked,
            users=len(self._users & present),
            endpoint=self._endpoint,
            is_own=self.is_from(supply),
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
        for need in self.wanted.needs:
            need.started.add_done_callback(lambda _: self._note_needs())
        self._note_needs()
        try:
            running = await asyncio.gather(*(asyncio.shield(need.started) for need in self.wanted.needs))
        except _StartError as error:
            raise _StartError((self.spec.name, *error.path), error.cause) from None
        return dict(zip((need.spec.name for need in self.wanted.needs), running, strict=True))

    def _note_needs(self) -> None:
        missing = [need.spec.name for need in self.wanted.needs if not need.started.done()]
        self._note(f"waiting for {', '.join(missing)}" if missing else "")

    def _use(self, client: Guest) -> None:
        self._users.add(client)
        for need in self.wanted.needs:
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
        address = Address.of(endpoint)
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


def _in_other_words(spec: ServiceSpec) -> ServiceSpec:
    """Without what is no matter for a start."""
    return msgspec.structs.replace(spec, migrations="", needs=())


def ended_early(spec: ServiceSpec, reason: str) -> str:
    """What to tell of a service that was not ready when its supervisor was told to end."""
    return f"The supervisor was told to end ({reason}) before the service {spec.name!r} was ready."
