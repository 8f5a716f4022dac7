"""Names that many tests use at once, told apart: a prefix of the test's own before each.

Channels cross logical databases. A test's client puts the lease's prefix before each on the way to the server, and
takes it off what comes back, so a test that subscribes to ``events`` hears what it and its application publish there,
and nobody else. What names a database itself stays as it is: ``__keyspace@3__:...`` is told apart by its number.

Where there are no databases, the same is done to keys; where a command has them, the server tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from redis.asyncio import Redis

__all__ = ["Commands", "KeyNames", "Names", "command_name"]

_ALL = frozenset({"SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE", "SSUBSCRIBE", "SUNSUBSCRIBE"})
_FIRST = frozenset({"PUBLISH", "SPUBLISH"})

#: Where COMMAND INFO has them in a command's entry.
_KEYS, _SUBCOMMANDS = 8, 9

#: What stands in for commands on whole databases. ARGV[1] matches the keys of a lease.
_ON_ALL_KEYS = {
    "FLUSHDB": "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('UNLINK', key) end "
    "return redis.status_reply('OK')",
    "DBSIZE": "return #redis.call('KEYS', ARGV[1])",
    "RANDOMKEY": "local keys = redis.call('KEYS', ARGV[1]) return keys[1] and keys[math.random(#keys)] or false",
}


class Names:
    """The channels of a lease.

    Args:
        channels: What they begin with.
    """

    def __init__(self, channels: str) -> None:
        self._prefix = channels.encode()

    def sent(self, name: str, command: tuple[Any, ...]) -> tuple[Any, ...]:
        """A command as the server gets it: the same object, if it holds no name."""
        if name in _ALL:
            return (command[0], *map(self._own, command[1:]))
        if name in _FIRST:
            return (command[0], self._own(command[1]), *command[2:])
        return self._asked(_words(command)) if name == "PUBSUB" else command

    def shown(self, reply: Any) -> Any:
        """A reply as the test gets it."""
        if isinstance(reply, bytes):
            return reply.removeprefix(self._prefix)
        if isinstance(reply, (list, tuple, set)):
            return type(reply)(self.shown(part) for part in reply)
        if isinstance(reply, dict):
            return {self.shown(name): self.shown(value) for name, value in reply.items()}
        return reply

    def _asked(self, words: tuple[Any, ...]) -> tuple[Any, ...]:
        """PUBSUB with what it asks for, of the lease's own channels alone."""
        channels = words[2:]
        if not channels and _text(words[1]).upper().endswith("CHANNELS"):
            channels = ("*",)
        return (*words[:2], *map(self._own, channels))

    def _own(self, name: Any) -> Any:
        raw = name.encode() if isinstance(name, str) else name if isinstance(name, bytes) else bytes(name)
        return raw if raw.startswith((self._prefix, b"__key")) else self._prefix + raw


class KeyNames(Names):
    """The channels of a lease, and its keys.

    Args:
        prefix: What both begin with.
        commands: Where commands have their keys.
    """

    def __init__(self, prefix: str, commands: Commands) -> None:
        super().__init__(prefix)
        self._commands = commands

    def sent(self, name: str, command: tuple[Any, ...]) -> tuple[Any, ...]:
        """A command as the server gets it."""
        words = list(_words(super().sent(name, command)))
        if name in _ON_ALL_KEYS:
            return ("EVAL", _ON_ALL_KEYS[name], 0, self._prefix + b"*")
        if name == "KEYS":
            return (words[0], self._own(words[1]))
        if name == "SCAN":
            return self._scanned(words)
        for index in self._commands.keys_in(words):
            words[index] = self._own(words[index])
        return tuple(words)

    def flush(self) -> tuple[Any, ...]:
        """The command that removes all keys."""
        return self.sent("FLUSHDB", ("FLUSHDB",))

    def _scanned(self, words: list[Any]) -> tuple[Any, ...]:
        """SCAN of the lease's own keys."""
        options = [_text(word).upper() for word in words]
        if "MATCH" in options[2:]:
            index = options.index("MATCH", 2) + 1
            words[index] = self._own(words[index])
            return tuple(words)
        return (*words, "MATCH", self._prefix + b"*")


@dataclass(frozen=True, slots=True)
class _Keys:
    """Where some keys of a command are; see https://redis.io/docs/latest/develop/reference/key-specs/.

    Attributes:
        begin: How to find the first word that is looked at: ``index``, or ``keyword`` with ``startfrom``.
        found: How to go on: ``lastkey``, ``keystep`` and ``limit``, or ``keynumidx``, ``firstkey`` and ``keystep``.
    """

    begin: dict[str, Any]
    found: dict[str, Any]

    def indices(self, words: Sequence[Any]) -> Iterable[int]:
        """The places of the keys in a command's words."""
        first, step = self._first(words), self.found.get("keystep", 1)
        if first is None:
            return ()

        if "keynumidx" in self.found:
            count = int(_text(words[first + self.found["keynumidx"]]))
            first += self.found["firstkey"]
            return range(first, first + count * step, step)

        last, limit = self.found.get("lastkey", -1), self.found.get("limit", 0)
        if last >= 0:
            last += first
        else:
            last += first + (len(words) - first) // limit if limit else len(words)
        return range(first, last + 1, step)

    def _first(self, words: Sequence[Any]) -> int | None:
        if "index" in self.begin:
            return int(self.begin["index"])
        if "keyword" not in self.begin:
            return None

        start, wanted = self.begin["startfrom"], _text(self.begin["keyword"]).upper()
        places = range(start, len(words)) if start > 0 else range(len(words) + start, 0, -1)
        return next((place + 1 for place in places if _text(words[place]).upper() == wanted), None)


@dataclass(frozen=True, slots=True)
class Commands:
    """Where a server's commands have their keys, as it tells itself.

    Attributes:
        keys: The specifications of each command's keys, by its name in capitals, ``XGROUP|CREATE`` for example.
    """

    keys: dict[str, tuple[_Keys, ...]]

    @classmethod
    async def of(cls, server: Redis) -> Commands | None:
        """Ask a server; None if it doesn't tell, as those before Redis 7."""
        entries = await server.execute_command("COMMAND INFO")  # type: ignore[no-untyped-call]
        if any(len(entry) <= _SUBCOMMANDS for entry in entries):
            return None
        return cls({_text(entry[0]).upper(): tuple(map(_keys, entry[_KEYS])) for entry in _with_subcommands(entries)})

    def keys_in(self, words: Sequence[Any]) -> Iterator[int]:
        """The indices of the keys in a command's words."""
        name = command_name(words)
        subcommand = f"{name}|{_text(words[1]).upper()}" if len(words) > 1 else ""
        for keys in self.keys.get(name) or self.keys.get(subcommand, ()):
            yield from keys.indices(words)


def command_name(command: Sequence[Any]) -> str:
    """The first word of a command, in capitals."""
    return _text(command[0]).partition(" ")[0].upper()


def _words(command: tuple[Any, ...]) -> tuple[Any, ...]:
    """A command in single words: redis-py's methods join the first ones."""
    return (*_text(command[0]).split(), *command[1:])


def _with_subcommands(entries: Iterable[Any]) -> Iterator[Any]:
    for entry in entries:
        yield entry
        yield from entry[_SUBCOMMANDS]


def _keys(specification: Any) -> _Keys:
    parts = _pairs(specification)
    begin, found = (_pairs(_pairs(parts[part]).get("spec", ())) for part in ("begin_search", "find_keys"))
    return _Keys(begin, found)


def _pairs(answer: Any) -> dict[str, Any]:
    """A map of the server's, which in its older protocol is a list."""
    items = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
    return {_text(name): value for name, value in items}


def _text(word: Any) -> str:
    return word.decode(errors="replace") if isinstance(word, bytes) else str(word)
