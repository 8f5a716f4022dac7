"""When a service is ready: its own protocol answers.

A log line or an open port is no proof: the official PostgreSQL image starts its server twice, and Docker's port
proxy accepts connections long before anybody listens behind it. So each kind of service brings a handshake, and
each handshake says in words what it waits for: a time-out's message writes itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Address", "Handshake", "NotReadyError", "RejectedError", "wait_ready"]

#: Seconds between two attempts; polling faster gained nothing and costs the server its own start-up time.
INTERVAL = 0.02

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
            NotReadyError: It did not, yet. OSError and end of stream mean the same.
            RejectedError: It never will.
        """


async def wait_ready(handshake: Handshake, address: Address, *, note: Callable[[str], None]) -> None:
    """Try until the service answers; the caller bounds the time and watches whether the service still lives.

    Args:
        handshake: What to try.
        address: Where.
        note: Called with what was last seen, for the message of a time-out.

    Raises:
        RejectedError: The service answered, and will not answer otherwise.
    """
    while (seen := await _one_attempt(handshake.attempt(address))) is not None:
        note(seen)
        await asyncio.sleep(INTERVAL)


async def _one_attempt(attempt: Awaitable[None]) -> str | None:
    try:
        async with asyncio.timeout(ATTEMPT):
            await attempt
    except TimeoutError:
        return f"no answer within {ATTEMPT:g} s"
    except NotReadyError as error:
        return str(error)
    except (EOFError, ConnectionResetError, BrokenPipeError):
        return "the connection was closed without an answer"
    except OSError as error:
        return error.strerror or str(error)
    return None
