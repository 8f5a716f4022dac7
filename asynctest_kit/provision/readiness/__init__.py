"""When a service is ready: its own protocol answers, or what its user says proves it.

A log line or an open port is no proof: the official PostgreSQL image starts its server twice, and Docker's port
proxy accepts connections long before anybody listens behind it. So each kind of service brings a handshake. For a
container of any image the user says what to wait for; one module each has how (:mod:`.listening`, :mod:`.log`,
:mod:`.http`, :mod:`.command`, :mod:`.health`, :mod:`.together`), and :mod:`.waits` binds them to a container.

All of them say in words what they wait for: a time-out's message writes itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asynctest_kit.provision.service import Endpoint

    Note: TypeAlias = Callable[[str], None]

__all__ = [
    "Address",
    "Greeting",
    "Handshake",
    "NotReadyError",
    "RejectedError",
    "Waiting",
    "wait_ready",
]

#: Seconds between two attempts; polling faster gained nothing and costs the server its own start-up time.
INTERVAL = 0.02

#: How much longer each pause is than the one before, where an attempt costs more than a handshake does.
_GROWTH = 1.4

#: Seconds after which an attempt without an answer is given up.
ATTEMPT = 2.0


class NotReadyError(Exception):
    """Not yet: the message says what was seen instead of an answer."""


class RejectedError(Exception):
    """Never: the service answered, and trying again can't change its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to shake hands, and as whom; by ``socket``, if it is not empty, before ``host`` and ``port``."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    database: str | None = None
    tls: bool = False
    socket: str = ""

    @classmethod
    def of(cls, endpoint: Endpoint) -> Address:
        """Where a service that is there answers."""
        return cls(
            host=endpoint.host,
            port=endpoint.port,
            username=endpoint.username,
            password=endpoint.password,
            database=endpoint.database,
            tls=endpoint.asks_for_tls,
            socket=endpoint.socket,
        )

    def __str__(self) -> str:
        return self.socket or f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Address {self}>"

    async def connect(self, *, tls: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection: by the unix socket if there is one."""
        if self.socket:
            return await asyncio.open_unix_connection(self.socket)
        return await asyncio.open_connection(self.host, self.port, ssl=True if tls else None)


class Handshake(Protocol):
    """One try of a protocol's own greeting."""

    @property
    def expectation(self) -> str:
        """What is waited for, as the end of the sentence "waited for ..."."""

    async def attempt(self, address: Address) -> None:
        """Return if the service answered as it should.

        Raises:
            NotReadyError: It answered that it can't yet. OSError and EOFError: it did not answer.
            RejectedError: It never will.
        """


class Waiting(Protocol):
    """Something to wait for, bound to the service that it is expected of."""

    @property
    def expectation(self) -> str:
        """What is waited for, as the end of the sentence "waited for ..."."""

    async def wait(self, note: Note) -> None:
        """Return when it is so; the caller bounds the time and watches whether the service still lives.

        Args:
            note: Called with what was last seen, for the message of a time-out.

        Raises:
            RejectedError: It never will be; why, as the end of a sentence about the service.
        """


@dataclass(frozen=True, slots=True)
class Greeting:
    """A handshake with a server at an address; a :class:`Waiting`."""

    handshake: Handshake
    address: Address

    @property
    def expectation(self) -> str:
        """What is waited for."""
        return f"{self.handshake.expectation} on {self.address}"

    async def wait(self, note: Note) -> None:
        """See :class:`Waiting`."""
        try:
            await wait_ready(lambda: self.handshake.attempt(self.address), note)
        except RejectedError as error:
            raise RejectedError(f"answered the handshake with: {error}") from None


async def wait_ready(
    attempt: Callable[[], Awaitable[None]], note: Note, *, limit: float = ATTEMPT, longest: float = INTERVAL
) -> None:
    """Try until an attempt succeeds.

    Args:
        attempt: Raises what :meth:`Handshake.attempt` does.
        note: Called with what was last seen.
        limit: Seconds for one attempt.
        longest: Seconds between two attempts at most; pauses grow up to it.

    Raises:
        RejectedError: It never will.
    """
    pause = INTERVAL
    while (seen := await _one_attempt(attempt(), limit)) is not None:
        note(seen)
        await asyncio.sleep(pause)
        pause = min(pause * _GROWTH, longest)


async def _one_attempt(attempt: Awaitable[None], limit: float) -> str | None:
    try:
        async with asyncio.timeout(limit):
            await attempt
    except TimeoutError:
        return f"no answer within {limit:g} s"
    except NotReadyError as error:
        return str(error)
    except (EOFError, ConnectionResetError, BrokenPipeError):
        return "the connection was closed without an answer"
    except OSError as error:
        return error.strerror or str(error)
    return None
