"""Redis's handshake: AUTH and PING, for every server that speaks its protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynctest_kit.provision.readiness import Address, NotReadyError, RejectedError

if TYPE_CHECKING:
    import asyncio

__all__ = ["RedisHandshake"]

#: Error codes that pass: data set or script in the way, replica not linked up yet, cluster forming.
_TRANSIENT = ("LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN")


@dataclass(frozen=True, slots=True)
class RedisHandshake:
    """Log in with the service's password and get a PONG."""

    @property
    def expectation(self) -> str:
        """What is waited for."""
        return "Redis to take its password and answer PING"

    async def attempt(self, address: Address) -> None:
        """Greet once; see :class:`~asynctest_kit.provision.readiness.Handshake`."""
        reader, writer = await address.connect(tls=address.tls)
        try:
            for command in _greeting(address):
                writer.write(command)
                await _expect_success(reader)
        finally:
            writer.close()


def _greeting(address: Address) -> list[bytes]:
    if address.password is None:
        return [_command("PING")]

    credentials = (address.username, address.password) if address.username else (address.password,)
    return [_command("AUTH", *credentials), _command("PING")]


def _command(*words: str) -> bytes:
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)


async def _expect_success(reader: asyncio.StreamReader) -> None:
    answer = (await reader.readline()).decode(errors="replace").strip()
    if not answer:
        raise EOFError("the connection was closed without an answer")

    if answer.startswith("+"):
        return

    if answer.startswith("-"):
        text = answer[1:]
        raise NotReadyError(text) if text.startswith(_TRANSIENT) else RejectedError(text)

    raise RejectedError("what answers there does not speak Redis's protocol")
