"""Names that many tests use at once, told apart: a test's own, before each of its channels.

Channels cross logical databases. A test's client puts the lease's prefix before each on the way to the server, and
takes it off what comes back, so a test that subscribes to ``events`` hears what it and its application publish there,
and nobody else. What names a database itself stays as it is: ``__keyspace@3__:...`` is told apart by its number.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Names"]

_ALL = frozenset({"SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE", "SSUBSCRIBE", "SUNSUBSCRIBE"})
_FIRST = frozenset({"PUBLISH", "SPUBLISH"})


class Names:
    """The channels of a lease.

    Args:
        channels: What they begin with.

    Attributes:
        changed: The commands that hold such names.
    """

    changed = _ALL | _FIRST | {"PUBSUB"}

    def __init__(self, channels: str) -> None:
        self.channels = channels
        self._prefix = channels.encode()

    def sent(self, name: str, command: tuple[Any, ...]) -> tuple[Any, ...]:
        """A command as the server gets it."""
        if name == "PUBSUB":
            return self._asked(command)
        last = 2 if name in _FIRST else len(command)
        return (command[0], *map(self._own, command[1:last]), *command[last:])

    def shown(self, reply: Any) -> Any:
        """A reply as the test gets it."""
        if isinstance(reply, list):
            return [self.shown(part) for part in reply]
        return reply.removeprefix(self._prefix) if isinstance(reply, bytes) else reply

    def _asked(self, command: tuple[Any, ...]) -> tuple[Any, ...]:
        """PUBSUB with what it asks for, of the lease's own channels alone."""
        words = (*_text(command[0]).split(), *command[1:])
        question, *channels = words[1:]
        if _text(question).upper().endswith("CHANNELS") and not channels:
            channels = ["*"]
        return ("PUBSUB", question, *map(self._own, channels))

    def _own(self, channel: Any) -> bytes:
        raw = channel.encode() if isinstance(channel, str) else bytes(channel)
        return raw if raw.startswith((self._prefix, b"__key")) else self._prefix + raw


def _text(word: Any) -> str:
    return word.decode(errors="replace") if isinstance(word, bytes) else str(word)
