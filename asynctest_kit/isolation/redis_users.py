"""The users as which tests log in: everything within their logical database, nothing that reaches beyond it.

Each lease has two. One is that of the client which the fixture ``redis`` gives; it keeps the lease's channels apart
itself. The other is in the URL that applications get: nobody stands between them and the server, so the server refuses
them all channels but the lease's own, and what they leave open at the end of a test is told by it, and cut.

They are made once for each database, not for each test; only the password in a URL is a new one for the next test. A
user is also the sign that its database is ours to flush: who finds one whose database nobody holds knows that a run
has died. When the server restarts its users are gone, and what it has kept of their databases counts as somebody's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis.asyncio import Redis

__all__ = ["Leftovers", "Login", "Room", "Users", "channels_of"]

_CLIENT = "atk-client-"
_URL = "atk-url-"

#: All but what reaches beyond a logical database, and those of a manager's commands that only look.
_RULES = tuple(
    """
    +@all -@admin -flushall -swapdb -move -select -client|kill -client|pause
    -script|flush -script|kill -function|flush -function|kill -function|restore
    +client|list +client|no-evict +config|get +lastsave +latency|doctor +latency|history +latency|latest +module|list
    +role +slowlog|get +slowlog|len
    """.split()  # noqa: SIM905 (twenty rules)
)


@dataclass(frozen=True, slots=True)
class Room:
    """What a lease may reach.

    Attributes:
        name: The lease's; of its users and channels, too.
        database: The number of the only database that it may select.
        keys: How its keys begin; empty for all keys of the database.
    """

    name: str
    database: int
    keys: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    """As whom to log in. Its repr hides the password."""

    username: str | None
    password: str | None

    def __repr__(self) -> str:
        return f"<Login {self.username}>"


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What the clients of a URL had open when their test ended, or were refused while it ran; all in words.

    Attributes:
        connections: Each connection that was still open.
        at_work: Those of them that did something: waited for a key, had a MULTI open.
        refused: What the server refused.
    """

    connections: tuple[str, ...] = ()
    at_work: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class Users:
    """The users of a server's leases.

    Args:
        server: It, as somebody who may make users.

    Attributes:
        refusal: Why there are none; empty as long as the server makes them.
    """

    def __init__(self, server: Redis) -> None:
        self._server = server
        self._knows_databases = True
        self._refused: dict[tuple[bytes, ...], int] = {}
        self.refusal = ""

    async def marked(self) -> set[str]:
        """The names of leases that have users: those in use, and those of runs that have died."""
        try:
            users = await self._server.execute_command("ACL", "USERS")  # type: ignore[no-untyped-call]
        except ResponseError as error:
            self.refusal = str(error)
            return set()

        return {name.removeprefix(_CLIENT) for name in map(_text, users) if name.startswith(_CLIENT)}

    async def make(self, room: Room) -> tuple[Login, Login] | None:
        """The users of a lease, the client's and the URL's; None if the server makes none.

        Whoever is still logged in as one of them is a leftover of a run that died, and is cut off.
        """
        logins = Login(f"{_CLIENT}{room.name}", token_urlsafe(24)), Login(f"{_URL}{room.name}", token_urlsafe(24))
        while not self.refusal:
            pipeline = self._server.pipeline(transaction=False)
            pipeline.execute_command("ACL", "DELUSER", *(login.username for login in logins))
            for login, channels in zip(logins, (("&*",), _channels(room)), strict=True):
                pipeline.execute_command("ACL", "SETUSER", *self._rules(room, login, channels))
            try:
                await pipeline.execute()
            except ResponseError as error:
                self._learn(error)
            else:
                return logins
        return None

    async def drop(self, room: Room) -> None:
        """Remove a lease's users, and cut off who is logged in as one."""
        if not self.refusal:
            await self._server.execute_command("ACL", "DELUSER", f"{_CLIENT}{room.name}", f"{_URL}{room.name}")  # type: ignore[no-untyped-call]

    async def shut_out(self, room: Room) -> tuple[Login, Leftovers]:
        """End what the clients of a lease's URL have open; it gets another password.

        Returns:
            The next login, and what was found of the last one's.
        """
        login = Login(f"{_URL}{room.name}", token_urlsafe(24))
        pipeline = self._server.pipeline(transaction=False)
        # First, so that none can come back.
        pipeline.execute_command("ACL", "SETUSER", login.username, "resetpass", _digest(login))
        pipeline.execute_command("CLIENT", "LIST")
        pipeline.execute_command("CLIENT", "KILL", "USER", login.username)
        pipeline.execute_command("ACL", "LOG", 128)
        _, clients, _, log = await pipeline.execute()
        found = _clients_of(str(login.username), clients)
        return login, Leftovers(
            connections=tuple(map(_described, found)),
            at_work=tuple(_described(client) for client in found if _is_at_work(client)),
            refused=tuple(self._newly_refused(str(login.username), log)),
        )

    def _rules(self, room: Room, login: Login, channels: Sequence[str]) -> tuple[str | None, ...]:
        reach = (f"db={room.database}",) if self._knows_databases else ()
        return (
            login.username,
            "reset",
            "on",
            _digest(login),
            f"~{room.keys}*",
            *channels,
            *_RULES,
            f"+select|{room.database}",
            *reach,
        )

    def _learn(self, error: ResponseError) -> None:
        if self._knows_databases and "'db=" in str(error):
            self._knows_databases = False  # Valkey 9.1 is the first that does
        else:
            self.refusal = str(error)

    def _newly_refused(self, username: str, log: Iterable[Any]) -> Iterable[str]:
        """What the log has of a user that it had not when it was read last."""
        for entry in map(_pairs, log):
            if _text(entry[b"username"]) != username or entry[b"reason"] == b"auth":
                continue

            place = tuple(entry[name] for name in (b"username", b"reason", b"context", b"object"))
            count = int(entry[b"count"])
            if count > self._refused.get(place, 0):
                yield _refusal(entry)
            self._refused[place] = count


def channels_of(name: str) -> str:
    """How the channels of a lease begin."""
    return f"atk:{name}:"


def _channels(room: Room) -> tuple[str, ...]:
    """Its own, and what the server tells of the keys of its database."""
    number = room.database
    return f"&{channels_of(room.name)}*", f"&__keyspace@{number}__:*", f"&__keyevent@{number}__:*"


def _digest(login: Login) -> str:
    return f"#{sha256(str(login.password).encode()).hexdigest()}"


def _clients_of(username: str, listing: bytes) -> list[dict[str, str]]:
    lines = (line for line in _text(listing).splitlines() if f" user={username} " in f"{line} ")
    return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]


def _is_at_work(client: dict[str, str]) -> bool:
    return "b" in client["flags"] or client["multi"] != "-1"


def _described(client: dict[str, str]) -> str:
    """A connection, by what it does."""
    name = f" of {client['name']}" if client.get("name") else ""
    if "b" in client["flags"]:
        return f"a connection{name} waiting in {client['cmd'].upper()}"
    if client["multi"] != "-1":
        return f"a connection{name} inside a MULTI"
    if any(client.get(kind, "0") != "0" for kind in ("sub", "psub", "ssub")):
        return f"a connection{name} subscribed to channels"
    return f"an idle connection{name}"


def _refusal(entry: dict[bytes, Any]) -> str:
    what, reason = _text(entry[b"object"]), _text(entry[b"reason"])
    within = " in a script" if entry[b"context"] == b"lua" else ""
    if reason == "command" or (reason == "database" and not what.isdigit()):
        return f"the command {what.upper()}{within}"
    return f"the {reason} {what}{within}"


def _pairs(entry: Any) -> dict[bytes, Any]:
    return entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True))


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
