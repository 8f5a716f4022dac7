"""The admin API of a server of stubs: one call, and the handshake that tells such a server from any other.

Not by an HTTP client of the application's kind: those may be mocked while a test runs.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from asynctest_kit.provision.readiness import NotReadyError, RejectedError

if TYPE_CHECKING:
    from asynctest_kit.provision.readiness import Address

__all__ = ["AdminAnswer", "Answer", "ask"]


class Answer(NamedTuple):
    """Status, as number and in words, and body."""

    status: int
    told: str
    body: bytes


async def ask(address: Address, method: str, path: str, body: bytes = b"") -> Answer:
    """One request, on a connection of its own; as the address's user, below its path if it has any.

    Raises:
        OSError, EOFError: There was no answer.
    """
    reader, writer = await address.connect(tls=address.tls)
    try:
        # Of that version, so that the answer ends with the connection and is in one piece.
        lines = [
            f"{method} {f'/{address.database}' if address.database else ''}{path} HTTP/1.0",
            f"Host: {address.host}:{address.port}",
            f"Content-Length: {len(body)}",
            "Content-Type: application/json",
            *_credentials(address),
        ]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        answer = await reader.read()
    finally:
        writer.transport.abort()
    head, _, content = answer.decode(errors="replace").partition("\r\n\r\n")
    _, _, told = head.partition("\r\n")[0].partition(" ")
    if not answer:
        raise EOFError("the connection was closed without an answer")
    return Answer(int(told[:3]) if told[:3].isdigit() else 0, told or head[:80], content.encode())


def _credentials(address: Address) -> list[str]:
    if address.username is None:
        return []
    pair = f"{address.username}:{address.password or ''}".encode()
    return [f"Authorization: Basic {base64.b64encode(pair).decode()}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminAnswer:
    """A handshake; see :class:`~asynctest_kit.provision.readiness.Handshake`.

    Attributes:
        server: Whose API it is, for people.
        method: The request's.
        path: The request's.
        sign: What is in the answer of such a server that is ready.
    """

    server: str
    method: str
    path: str
    sign: bytes

    @property
    def expectation(self) -> str:
        """What is waited for."""
        return f"{self.server} to answer {self.method} {self.path}"

    async def attempt(self, address: Address) -> None:
        """Ask once; see :class:`~asynctest_kit.provision.readiness.Handshake`."""
        answer = await ask(address, self.method, self.path)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise NotReadyError(f"the status {answer.told}")
        if answer.status != HTTPStatus.OK or self.sign not in answer.body:
            raise RejectedError(f"{answer.told!r}, as {self.server} would not")
