"""What client and supervisor say to each other: one JSON object a line, told apart by its ``type``.

A client asks with :class:`Ensure` and goes with :class:`Bye`; a socket that closes without one means the same, only
that nobody hears the answer. The supervisor greets each client with :class:`Hello` before anything else, so that a
client can tell a supervisor that never served it (end of stream before the greeting) from one that died.
"""

from __future__ import annotations

import msgspec

from asynctest_kit.provision.service import Endpoint, ServicePhase, ServiceSpec  # noqa: TC001 (msgspec reads them)

__all__ = [
    "LONGEST_LINE",
    "Bye",
    "Ensure",
    "Failed",
    "Farewell",
    "Hello",
    "Measured",
    "Ready",
    "Reply",
    "Request",
    "line",
    "reply",
    "request",
]

#: Bytes of the longest line that either side reads.
LONGEST_LINE = 1 << 20


class Ensure(msgspec.Struct, frozen=True, tag=True):
    """Client: have this service ready and tell me where it is.

    ``number`` is repeated in the answer; ``asked`` is when the client wanted it (seconds, CLOCK_MONOTONIC).
    """

    number: int
    spec: ServiceSpec
    asked: float


class Bye(msgspec.Struct, frozen=True, tag=True):
    """Client: I need nothing any more; answer :class:`Farewell` when what only I used is gone."""


class Hello(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: I serve you. ``log`` is the path of what I write to stderr."""

    pid: int
    log: str


class Measured(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: one stretch of a service that you asked for."""

    phase: ServicePhase


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: the service asked for under ``number`` answers here."""

    number: int
    endpoint: Endpoint


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: the service asked for under ``number`` can't be had; ``message`` is for the user."""

    number: int
    message: str


class Farewell(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: the last line. ``is_end`` says that everything is removed and the supervisor ends too."""

    is_end: bool


Request = Ensure | Bye
Reply = Hello | Measured | Ready | Failed | Farewell

_encoder = msgspec.json.Encoder()
_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_replies: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


def line(message: Request | Reply) -> bytes:
    """The message as it goes over the socket, line end included."""
    return _encoder.encode(message) + b"\n"


def request(data: bytes) -> Request:
    """The request in one line; raises msgspec.DecodeError if there is none."""
    return _requests.decode(data)


def reply(data: bytes) -> Reply:
    """The reply in one line; raises msgspec.DecodeError if there is none."""
    return _replies.decode(data)
