"""What client and supervisor say to each other: one JSON object a line, told apart by its ``type``.

A client tells first of all where it has :class:`Come` from. It asks with :class:`Ensure`, may :class:`Leave` what is
its own, and goes with :class:`Bye`; a socket that closes without one means the same, only that nobody hears the answer.
Who only looks in asks with :class:`Survey`; :class:`Keep` and :class:`End` say how long the services live;
:class:`Read` and :class:`Run` reach into one. The supervisor greets each client with :class:`Hello` before anything
else, so that a client can tell a supervisor that never served it (end of stream before the greeting) from one that
died; one that came second says :class:`Elsewhere` in its place. :class:`Lost` comes unasked, when a service has ended
while it was in use.
"""

from __future__ import annotations

import json

import msgspec

from asynctest_kit.provision.service import (  # noqa: TC001 (msgspec reads them)
    Endpoint,
    Program,
    ServicePhase,
    ServiceSpec,
    ServiceState,
    Stream,
)

__all__ = [
    "LONGEST_LINE",
    "Bye",
    "Check",
    "Checked",
    "Claim",
    "Come",
    "Elsewhere",
    "End",
    "Ensure",
    "Failed",
    "Farewell",
    "Hello",
    "Keep",
    "Leave",
    "Lost",
    "Measured",
    "Noted",
    "Over",
    "Preserve",
    "Read",
    "Ready",
    "Reply",
    "Request",
    "Run",
    "Stop",
    "Survey",
    "Surveyed",
    "Wrote",
    "line",
    "reply",
    "request",
]

#: Bytes of the longest line that either side reads.
LONGEST_LINE = 1 << 24


class Come(msgspec.Struct, frozen=True, tag=True):
    """Client: what I have around me, before anything else (see :mod:`asynctest_kit.provision.surroundings`)."""

    environ: bytes
    python_path: bytes

    def __repr__(self) -> str:
        return "<Come>"


class Ensure(msgspec.Struct, frozen=True, tag=True):
    """Client: have this service ready and tell me where it is.

    ``number`` is repeated in the answer; ``asked`` is when the client wanted it (seconds, CLOCK_MONOTONIC).
    """

    number: int
    spec: ServiceSpec
    asked: float


class Leave(msgspec.Struct, frozen=True, tag=True):
    """Client: I don't need what I asked for under ``number`` any more; it ends, if it is mine alone."""

    number: int


class Bye(msgspec.Struct, frozen=True, tag=True):
    """Client: I need nothing any more; answer :class:`Farewell` when what only I used is gone."""


class Keep(msgspec.Struct, frozen=True, tag=True):
    """Client: stay when your last client has gone, until nobody has come for ``idle`` seconds."""

    idle: float


class End(msgspec.Struct, frozen=True, tag=True):
    """Client: remove everything and end, whoever else is there; answer :class:`Farewell` when it is done."""


class Check(msgspec.Struct, frozen=True, tag=True):
    """Client: see whether this service, which I use, still answers; answer :class:`Checked`."""

    number: int
    service: str


class Survey(msgspec.Struct, frozen=True, tag=True):
    """Client: tell what you hold; answer :class:`Surveyed`."""


class Read(msgspec.Struct, frozen=True, tag=True):
    """Client: tell the last ``lines`` of a service's log, and if I ``follow`` it what comes then.

    Answer :class:`Wrote` for each piece, and :class:`Over` when there is no more.
    """

    number: int
    service: str
    lines: int
    follow: bool


class Run(msgspec.Struct, frozen=True, tag=True):
    """Client: run this program in a service; answers as to :class:`Read`."""

    number: int
    service: str
    program: Program


class Preserve(msgspec.Struct, frozen=True, tag=True):
    """Client: keep this service's data for the next run, as it is now: ``migrations`` (a digest) have been made in it.

    Answer :class:`Over` when nothing that happens from then on can come into it.
    """

    number: int
    service: str
    migrations: str


class Claim(msgspec.Struct, frozen=True, tag=True):
    """Client: this service, which I use, is for these ``migrations`` (a digest) alone from now on.

    They have changed what is the server's and no database's, as roles are: others may not find it as they expect it.
    A word that is no digest: for nobody who comes, for they failed half-way. If it ``is_open``: only if I go before I
    have claimed again, and an empty one takes that back.
    """

    service: str
    migrations: str
    is_open: bool = False


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Client: tell me nothing more under this number. A program that runs is not ended by it."""

    number: int


class Hello(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: I serve you. ``log`` is the path of what I write to stderr."""

    pid: int
    log: str


class Elsewhere(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: I don't serve you, for another one listens; ask there."""


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


class Lost(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: a service that you use has ended by itself; ``message`` is for the user."""

    service: str
    message: str


class Checked(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: the check that was asked for under ``number`` is over.

    Attributes:
        number: That one.
        problem: For the user: that it doesn't answer now. Empty if it does, or its end came before, as a loss.
    """

    number: int
    problem: str = ""


class Surveyed(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: what I hold.

    Attributes:
        services: In the order in which they were asked for.
        clients: How many are here, without the one that asks.
        idle: For how many seconds I stay without any; 0 if I go with the last.
        ended: What has ended while it was up, by name, and how; until it is started anew.
    """

    services: tuple[ServiceState, ...]
    clients: int
    idle: float
    ended: dict[str, str] = {}


class Noted(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: what is being done for a service that you asked for, for people; until its phase is measured."""

    service: str
    text: str


class Wrote(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: a piece of the log that you read, or of what the program that you run has written."""

    number: int
    stream: Stream
    data: bytes


class Over(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: the log has ended, or the program, and with which exit code; or ``problem`` kept me from it."""

    number: int
    code: int = 0
    problem: str = ""


class Farewell(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: the last line. ``is_end`` says that everything is removed and the supervisor ends too."""

    is_end: bool


Request = Come | Ensure | Leave | Bye | Keep | End | Check | Survey | Read | Run | Preserve | Claim | Stop
Reply = Hello | Elsewhere | Noted | Measured | Ready | Failed | Lost | Checked | Surveyed | Wrote | Over | Farewell

_encoder = msgspec.json.Encoder()
_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_replies: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


def line(message: Request | Reply) -> bytes:
    """The message as it goes over the socket, line end included; what is no text in it is replaced."""
    try:
        return _encoder.encode(message) + b"\n"
    except UnicodeEncodeError:  # a file's name need not be text
        return json.dumps(msgspec.to_builtins(message), ensure_ascii=False).encode(errors="replace") + b"\n"


def request(data: bytes) -> Request:
    """The request in one line; raises msgspec.DecodeError if there is none."""
    return _requests.decode(data)


def reply(data: bytes) -> Reply:
    """The reply in one line; raises msgspec.DecodeError if there is none."""
    return _replies.decode(data)
