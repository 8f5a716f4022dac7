"""Statements of ours that are sent ahead of asyncpg's next message, and whose answers nobody waits for.

The problem. A sandbox has a word to say before a test's statement (BEGIN, a savepoint) and after the last one
(ROLLBACK). As statements of their own they cost a round trip each, and asyncpg's protocol knows no pipelining.

The mechanism. Our message is written to the transport before asyncpg writes its own, and in one piece with it if that
comes before the loop's next turn: each piece wakes the server. Until the server has answered it, the transport's
protocol is a :class:`_Filter`, which takes our answers out of the stream and hands asyncpg the rest.

The rules.

1. Nothing may be sent ahead while one of asyncpg's commands is in flight: answers come in the order of the messages.
2. What follows a failure must fail too, or it would be committed. After :func:`begin` the server skips everything up
   to asyncpg's own Sync, so asyncpg gets the failure as its statement's. After :func:`tell`, a transaction that is open
   has failed by it, and refuses what follows, another BEGIN too; where there is none, don't use it.
3. A message that failed with no transaction to refuse what follows, as ROLLBACK might, ends the connection.
"""

from __future__ import annotations

import asyncio
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import asyncpg

__all__ = ["begin", "is_answered", "synchronize", "tell"]

_HEADER = 5
_LENGTH = struct.Struct("!i")
_SYNC = b"S" + _LENGTH.pack(4)
#: What the server sends at any time, whatever was asked: a notice, a notification, a parameter's new value.
_UNASKED = b"NAS"
_COMPLETE, _ERROR, _READY = b"CEZ"


def begin(connection: asyncpg.Connection) -> None:
    """Send BEGIN without a Sync of its own: if it fails, so does what asyncpg sends next, and nothing of it is run.

    asyncpg must send a message with a Sync next, which all have but its simple queries and COPY.
    """
    _send(connection, _BEGIN, _Answer(synchronized=False))


def tell(connection: asyncpg.Connection, text: str, *, is_last: bool = False) -> None:
    """Send a simple query. If it fails and ``is_last``, the connection is closed."""
    _send(connection, _query(text), _Answer(synchronized=True, is_last=is_last))


def synchronize(connection: asyncpg.Connection) -> None:
    """After :func:`begin`, where asyncpg sent nothing after all: have it answered by itself."""
    waiting = connection._transport.get_protocol()  # noqa: SLF001  # asyncpg shows it to nobody
    if isinstance(waiting, _Filter):
        waiting.answers[-1].synchronized = True
        connection._transport.write(_SYNC)  # noqa: SLF001


def is_answered(connection: asyncpg.Connection) -> bool:
    """Whether the server has answered all that was sent ahead."""
    return not isinstance(connection._transport.get_protocol(), _Filter)  # noqa: SLF001


@lru_cache
def _query(text: str) -> bytes:
    return _message(b"Q", text.encode() + b"\0")


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + _LENGTH.pack(len(body) + 4) + body


#: Parse, Bind and Execute of the unnamed statement and portal, which asyncpg uses within one message only.
_BEGIN = _message(b"P", b"\0BEGIN\0" + bytes(2)) + _message(b"B", b"\0\0" + bytes(6)) + _message(b"E", b"\0" + bytes(4))


def _send(connection: asyncpg.Connection, message: bytes, answer: _Answer) -> None:
    transport = connection._transport  # noqa: SLF001
    if transport.is_closing():
        return  # asyncpg will tell

    protocol = transport.get_protocol()
    if not isinstance(protocol, _Filter):
        protocol = _Filter(transport, protocol)
        transport.set_protocol(protocol)
    protocol.answers.append(answer)
    if not hasattr(transport, "__dict__"):  # uvloop's
        transport.write(message)
        return
    held = transport.__dict__.get("write")
    if held is not None:
        held.messages.append(message)
        return
    loop, held = asyncio.get_running_loop(), _Held(transport, message)
    transport.write, transport.writelines = held, held.with_all
    loop.call_soon(held.let_go)


class _Held:
    """Messages of ours until something is written behind them, or the loop's next turn."""

    __slots__ = ("_transport", "messages")

    def __init__(self, transport: Any, message: bytes) -> None:
        self.messages = [message]
        self._transport = transport

    def __call__(self, data: bytes) -> None:
        messages, self.messages = self.messages, []
        if not messages:
            self._transport.write(data)
            return
        del self._transport.write, self._transport.writelines  # the transport's own again
        self._transport.write(b"".join((*messages, data)))

    def with_all(self, pieces: Iterable[bytes]) -> None:
        self(b"".join(pieces))

    def let_go(self) -> None:
        if self.messages:
            self(b"")


class _Answer:
    """What is to be taken out: up to the first failure or completion, or if ``synchronized`` up to ReadyForQuery."""

    __slots__ = ("failed", "is_last", "synchronized")

    def __init__(self, *, synchronized: bool, is_last: bool = False) -> None:
        self.synchronized = synchronized
        self.is_last = is_last
        self.failed = False


class _Filter(asyncio.Protocol):
    """Takes the answers out of what the server sends, and leaves when the last has come."""

    def __init__(self, transport: Any, protocol: Any) -> None:
        self.answers: list[_Answer] = []
        self._transport = transport
        self._protocol = protocol
        self._unread = b""

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def eof_received(self) -> bool | None:
        keep_open: bool | None = self._protocol.eof_received()
        return keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        data = self._unread + data
        start = 0
        passed = []
        while self.answers and len(data) >= start + _HEADER:
            end = start + 1 + _LENGTH.unpack_from(data, start + 1)[0]
            if len(data) < end:
                break

            if not self._takes(data[start]):
                passed.append(data[start:end])
            start = end
        self._unread = data[start:]
        if not self.answers:
            self._transport.set_protocol(self._protocol)
            passed.append(self._unread)
            self._unread = b""
        if rest := b"".join(passed):
            self._protocol.data_received(rest)

    def _takes(self, kind: int) -> bool:
        """Whether a message of this kind is part of an answer of ours."""
        if kind in _UNASKED:
            return False

        answer = self.answers[0]
        if answer.synchronized:
            answer.failed |= kind == _ERROR
            if kind == _READY:
                self._end(answer)
            return True

        if kind in {_COMPLETE, _ERROR}:
            self._end(answer)
        return kind != _ERROR

    def _end(self, answer: _Answer) -> None:
        self.answers.pop(0)
        if answer.failed and answer.is_last:
            self._transport.abort()
