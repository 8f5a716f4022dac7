"""What a provider is: a service's order in, its endpoint for as long as the context is open.

A provider either refuses (it is not for it: no engine, no binaries, no URL), and the next one is asked, or it takes
the order; from then on what goes wrong is a :class:`~asynctest_kit.errors.ProvisionError` and the user's to know.
Whatever it made is gone when its context has closed, however it closes: by its end, an error or a cancellation at
any await.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.readiness import Address, Greeting, NotReadyError, RejectedError
from asynctest_kit.provision.service import (
    SECRET_NAME,
    Endpoint,
    Output,
    Phase,
    Program,
    ProviderName,
    ServicePhase,
    ServiceSpec,
)
from asynctest_kit.provision.waiting import first_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from asynctest_kit.provision.catalog.kind import Kind, Login
    from asynctest_kit.provision.readiness import Waiting

__all__ = [
    "ImageRefusal",
    "Order",
    "Provider",
    "Refusal",
    "Running",
    "Take",
    "Witness",
    "await_ready",
    "greeting",
    "quoted",
    "rekeyed",
    "start_error",
]

#: Lines of a service's log that an error shows.
TAIL = 20

_URL_SECRET = re.compile(r"(?<=:)[^:/@\s]+(?=@)")


async def _nobody() -> Mapping[str, Running]:
    return {}


def _ignore(_text: str) -> None:
    pass


class Refusal(Exception):  # noqa: N818 (nothing is wrong: the next provider is asked)
    """A provider does not take the order; the message is the reason, as the end of a sentence."""


class ImageRefusal(Refusal):
    """An engine answers, and can't have the order's image."""


def now_on_loop() -> float:
    """Seconds on the clock of the running loop, which all limits go by."""
    return asyncio.get_running_loop().time()


@dataclass(slots=True, kw_only=True)
class Order:
    """One service to be started, and where the time that it takes is written down.

    Attributes:
        spec: What was asked for.
        kind: Its entry in the catalogue.
        asked: When (seconds, CLOCK_MONOTONIC).
        record: Takes each phase as it ends.
        deadline: When it must be ready, on the clock of the loop that starts it.
        login: As whom tests will connect; the password is drawn afresh.
        may_keep: Whether there is time at its end to keep its data; not if its users were killed.
        project: The project's key; what is kept is kept for it alone.
        needs: Waits until those that it needs are ready, and gives them by name; a ProvisionError if one fails.
        met: Those, once :meth:`meet` has awaited them.
        note: Takes what is being done now, for people, where that lasts.
        environ: The environment of the client that wants it; None for the provider's own.
    """

    spec: ServiceSpec
    kind: Kind
    asked: float
    record: Callable[[ServicePhase], None]
    project: str = ""
    note: Callable[[str], None] = _ignore
    environ: Mapping[str, str] | None = field(default=None, repr=False)
    may_keep: bool = True
    needs: Callable[[], Awaitable[Mapping[str, Running]]] = _nobody
    met: Mapping[str, Running] = field(default_factory=dict)
    deadline: float = field(init=False)
    login: Login = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = now_on_loop() - (time.monotonic() - self.asked) + self.spec.startup_timeout
        self.login = self.kind.login(self.spec, secrets.token_hex(16))

    @property
    def allowed(self) -> str:
        """The time that it has from asked to ready, for messages."""
        return f"{self.spec.startup_timeout:.3g} s"

    @property
    def is_late(self) -> bool:
        """Whether its time is over."""
        return now_on_loop() >= self.deadline

    @property
    def image(self) -> str:
        """The image that it is started from, unless one is built, under the name by which it is to be had."""
        return self.spec.images.name_of(self.spec.image or self.kind.image)

    def begin(self) -> None:
        """Let its time begin now: a server that is up already needs none of it for what came before."""
        self.deadline = now_on_loop() + self.spec.startup_timeout

    async def meet(self) -> None:
        """Wait until what it needs is ready; that takes none of its own time.

        Raises:
            ProvisionError: One of them can't be had.
        """
        with self.excused():
            self.met = await self.needs()

    @contextmanager
    def excused(self) -> Iterator[None]:
        """What the block takes doesn't count: it has a limit of its own."""
        start = now_on_loop()
        try:
            yield
        finally:
            self.deadline += now_on_loop() - start

    @contextmanager
    def phase(self, phase: Phase, provider: ProviderName, *, since: float | None = None) -> Iterator[None]:
        """Record what the block takes, failed or not, beginning at ``since`` if given."""
        start = time.monotonic() if since is None else since
        try:
            yield
        finally:
            end = time.monotonic()
            self.record(ServicePhase(service=self.spec.name, phase=phase, start=start, end=end, provider=provider))

    def resolved(self, provider: ProviderName) -> None:
        """Record that ``provider`` takes the order."""
        with self.phase("resolve", provider, since=self.asked):
            pass

    def redact(self, text: str) -> str:
        """``text`` without this order's secrets."""
        build = self.spec.container.build
        named = (*self.spec.environment.items(), *(build.arguments.items() if build else ()))
        given = (value for name, value in named if SECRET_NAME.search(name))
        wired = (running.endpoint.password for running in self.met.values())
        for secret in filter(None, (self.login.password, *given, *wired)):
            text = text.replace(secret, "***")
        return _URL_SECRET.sub("***", text)


#: Takes what is written, piece by piece.
Take: TypeAlias = "Callable[[Output], Awaitable[None]]"


async def _no_log(_lines: int, _follow: bool, _take: Take) -> None:
    raise ProvisionError("its provider has no log that could be read")


async def _no_place(_program: Program, _take: Take) -> int:
    raise ProvisionError("it is in no container: run the program here (`atk url` tells where the service is)")


async def _no_words() -> None:
    return None


async def _nowhere() -> None:
    return None


async def _not_kept(_migrations: str) -> None:
    pass


async def _no_obstacle() -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A service that answers.

    Attributes:
        endpoint: Where it answers.
        ended: Waits until it has ended by itself, and tells how.
        log: Give the last so many lines of its log, and if told to what follows, until it ends. First of all an empty
            piece says that what is written from then on will come.
        run: Run a program in it, and return its exit code.
        last_words: The end of its log, also when it has ended; None where there is none that we could read.
        inside: Finds out where containers reach it, its host an address or a name that all know; None if they can't.
        preserve: Take its data as it is now, to be kept at its end for runs whose migrations have the given digest;
            no-op if that can't be done.

    ``log`` and ``run`` raise ProvisionError, whose message is the end of a sentence, where that can't be done.
    """

    endpoint: Endpoint
    ended: Callable[[], Awaitable[str]]
    log: Callable[[int, bool, Take], Awaitable[None]] = _no_log
    run: Callable[[Program, Take], Awaitable[int]] = _no_place
    last_words: Callable[[], Awaitable[str | None]] = _no_words
    inside: Callable[[], Awaitable[Endpoint | None]] = _nowhere
    preserve: Callable[[str], Awaitable[None]] = _not_kept


class Witness(Protocol):
    """Who can tell about a process or a container that is starting."""

    async def ended(self) -> str:
        """Wait until it has ended; say how, as the end of the sentence "it ...". Safe to cancel."""

    async def last_words(self) -> str | None:
        """The end of its log; None if it has none that we could read."""


class Provider(Protocol):
    """One way to give a service."""

    @property
    def name(self) -> ProviderName:
        """What settings call it."""

    def source(self, spec: ServiceSpec) -> str:
        """What it would give the service from; two that are given from the same are the same. Empty: from nothing."""

    def give(self, order: Order) -> AbstractAsyncContextManager[Running]:
        """Start what was ordered; remove it when the context closes.

        Raises:
            Refusal: On entry: this provider can't serve the order.
            ProvisionError: On entry: it took the order, and the start failed.
        """


async def await_ready(
    order: Order,
    waiting: Waiting,
    witness: Witness,
    *,
    subject: str,
    way: Callable[[], Awaitable[str]] = _no_obstacle,
) -> None:
    """Wait until a service is ready.

    Args:
        order: Bounds the time.
        waiting: What proves it.
        witness: Tells of its end.
        subject: What it is, to begin a message with.
        way: Finds out what is in the way of who tries to reach it, as a sentence without its full stop; empty if
            nothing is.

    Raises:
        ProvisionError: It ended, will never be ready or was not in time; its last words are in the message.
    """
    seen = "nothing yet"

    def note(what: str) -> None:
        nonlocal seen
        seen = what

    try:
        async with asyncio.timeout_at(order.deadline):
            ended = await first_of(waiting.wait(note), witness.ended())
    except TimeoutError:
        problem = f"was not ready within {order.allowed}: waited for {waiting.expectation}; last seen: {seen}"
        if obstacle := await way():
            problem = f"{problem}. {obstacle}"
    except RejectedError as error:
        problem = str(error)
    else:
        if ended is None:
            return
        problem = ended

    raise await start_error(order, witness, f"{subject} {problem}")


async def start_error(order: Order, witness: Witness, problem: str) -> ProvisionError:
    """The error that tells a problem with the service's last words."""
    return ProvisionError(order.redact(f"{problem}.{quoted(await witness.last_words())}"))


def greeting(order: Order, address: Address) -> Greeting:
    """The handshake of a kind that has one."""
    assert order.kind.handshake is not None, order.kind.name  # noqa: S101 (containers are waited for otherwise)
    return Greeting(order.kind.handshake, address)


async def rekeyed(order: Order, address: Address) -> Address:
    """Give a server whose data knows another password the order's; its address from then on.

    Raises:
        ProvisionError: It refuses.
    """
    rekey, password = order.kind.rekey, order.login.password
    if rekey is None or address.password == password:
        return address
    try:
        await rekey(address, password)
    except (NotReadyError, RejectedError, OSError, EOFError) as error:
        raise ProvisionError(
            order.redact(f"{order.kind.title} for the service {order.spec.name!r} did not take a new password: {error}")
        ) from None
    return replace(address, password=password)


def quoted(log: str | None, title: str = "Its last words") -> str:
    """The end of a log, to end a message with; nothing if there is none that could be read."""
    if log is None:
        return ""

    lines = log.rstrip().splitlines()[-TAIL:]
    if not lines:
        return " It wrote no log."

    return "\n".join([f" {title}:", *(f"  | {line}" for line in lines)])
