"""The users as which tests log in: everything within their logical database, nothing that reaches beyond it.

Each lease has two. One is that of the client which the fixture ``redis`` gives; it keeps the lease's channels apart
itself. The other is in the URL that applications get: nobody stands between them and the server, so the server refuses
them all channels but the lease's own, and what they leave open at the end of a test is told by it, and cut.

They are made once for each database, not for each test; only the password in a URL is a new one for the next test. A
user is also the sign that its database is ours to flush: who finds one whose database nobody holds knows that a run
has died. When the server restarts its users are gone, and what it has kept of their databases counts as somebody's.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from asynctest_kit.isolation.redis_refusals import mend

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis.asyncio import Redis

    from asynctest_kit.isolation.redis_layout import Room

__all__ = ["Leftovers", "Login", "Users"]

_CLIENT = "atk-client-"
_URL = "atk-url-"

#: Seconds between looks at connections that are left: a port that Docker publishes tells late of those that are closed.
_CLOSING = (0.01, 0.03, 0.1)

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
        at_work: Those of them that did something: waited for a key, had a MULTI open, were in another database.
        refused: What the server refused.
        strays: How many keys the server now has in database 0, which is leased to nobody.
    """

    connections: tuple[str, ...] = ()
    at_work: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    strays: int = 0


class Users:
    """The users of a server's leases.

    Args:
        nodes: The server, as somebody who may make users; or all nodes of a cluster, for each has users of its own.

    Attributes:
        refusal: Why there are none; empty as long as the server makes them.
    """

    def __init__(self, nodes: Sequence[Redis]) -> None:
        self._nodes = nodes
        self._knows_databases = True
        self._refused: dict[tuple[int, str], Counter[str]] = {}
        self.refusal = ""

    async def marked(self) -> set[str]:
        """The names of leases that have users: those in use, and those of runs that have died."""
        try:
            users = await self._nodes[0].execute_command("ACL", "USERS")  # type: ignore[no-untyped-call]
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
            try:
                answers = await self._on_all(
                    ("ACL", "LOG", 128),
                    ("ACL", "DELUSER", *(login.username for login in logins)),
                    ("ACL", "SETUSER", *self._rules(room, logins[0], ("&*",))),
                    ("ACL", "SETUSER", *self._rules(room, logins[1], _channels(room))),
                )
            except ResponseError as error:
                self._learn(error)
            else:
                for node, (log, *_) in enumerate(answers):
                    self._newly_refused(node, str(logins[1].username), log)  # what others of its name were
                return logins
        return None

    async def drop(self, room: Room) -> None:
        """Remove a lease's users, and cut off who is logged in as one."""
        if not self.refusal:
            await self._on_all(("ACL", "DELUSER", f"{_CLIENT}{room.name}", f"{_URL}{room.name}"))

    async def cut(self, room: Room) -> None:
        """End the connections of a lease's own client, with what they have sent and the server has not run yet."""
        await self._on_all(("CLIENT", "KILL", "USER", f"{_CLIENT}{room.name}"))

    async def shut_out(self, room: Room) -> tuple[Login, Leftovers]:
        """End what the clients of a lease's URL have open; it gets another password.

        Returns:
            The next login, and what was found of the last one's.
        """
        login = Login(f"{_URL}{room.name}", token_urlsafe(24))
        username = str(login.username)
        answers = await self._on_all(
            # First, so that none can come back.
            ("ACL", "SETUSER", username, "resetpass", _digest(login)),
            ("ACL", "LOG", 128),
            ("SELECT", 0),
            ("DBSIZE",),
            ("CLIENT", "LIST"),
        )
        refused = [new for node, answer in enumerate(answers) for new in self._newly_refused(node, username, answer[1])]
        found = [client for answer in answers for client in _clients_of(username, answer[4])]
        if found:
            found = await self._cut(username)
        return login, Leftovers(
            connections=tuple(_described(client, room) for client in found),
            at_work=tuple(_described(client, room) for client in found if _is_at_work(client, room)),
            refused=tuple(dict.fromkeys(refused)),
            strays=0 if room.database == 0 else answers[0][3],
        )

    async def _cut(self, username: str) -> list[dict[str, str]]:
        """End a user's connections; give those that were not being closed, of which the server may hear late."""
        found: list[dict[str, str]] = []
        for pause in _CLOSING:
            await asyncio.sleep(pause)
            found = [
                client
                for answer in await self._on_all(("CLIENT", "LIST"))
                for client in _clients_of(username, answer[0])
            ]
            if not found:
                break
        await self._on_all(("CLIENT", "KILL", "USER", username))
        return found

    async def _on_all(self, *commands: tuple[Any, ...]) -> list[Any]:
        """The answers of each node, which is asked in one round trip."""
        if len(self._nodes) == 1:
            return [await _asked(self._nodes[0], commands)]
        return await asyncio.gather(*(_asked(node, commands) for node in self._nodes))

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
            *(("-flushdb",) if room.keys else ()),
            f"+select|{room.database}",
            *reach,
        )

    def _learn(self, error: ResponseError) -> None:
        if "'db=" in str(error):  # also of those that were asked for before the first answer came
            self._knows_databases = False  # Valkey 9.1 is the first that does
        else:
            self.refusal = str(error)

    def _newly_refused(self, node: int, username: str, log: Iterable[Any]) -> Sequence[str]:
        """What the log has of a user that it had not when it was read last."""
        found: Counter[str] = Counter()
        for entry in map(_pairs, log):
            if _text(entry[b"username"]) == username and entry[b"reason"] != b"auth":
                found[_refusal(entry)] += int(entry[b"count"])
        known = self._refused.get((node, username), Counter())
        self._refused[node, username] = found
        return [what for what, count in found.items() if count > known[what]]


async def _asked(node: Redis, commands: Iterable[tuple[Any, ...]]) -> Any:
    pipeline = node.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    return await pipeline.execute()


def _channels(room: Room) -> tuple[str, ...]:
    """Its own, and what the server tells of the keys of its database."""
    number = room.database
    return f"&{room.channels}*", f"&__keyspace@{number}__:*", f"&__keyevent@{number}__:*"


def _digest(login: Login) -> str:
    return f"#{sha256(str(login.password).encode()).hexdigest()}"


def _clients_of(username: str, listing: bytes) -> list[dict[str, str]]:
    lines = (line for line in _text(listing).splitlines() if f" user={username} " in f"{line} ")
    return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]


def _is_at_work(client: dict[str, str], room: Room) -> bool:
    return "b" in client["flags"] or client["multi"] != "-1" or client["db"] != str(room.database)


def _described(client: dict[str, str], room: Room) -> str:
    """A connection, by what it does."""
    name = f" of {client['name']}" if client.get("name") else ""
    if client["db"] != str(room.database):
        return f"a connection{name} to database {client['db']}, not to that which redis_url names, its last part"
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
    if reason == "command":
        return f"the command {what.upper()}{within}{mend(reason, what)}"
    if reason == "database" and not what.isdigit():
        return f"the command {what.upper()}{within} outside its database"
    return f"the {reason} {what}{within}{mend(reason, what)}"


def _pairs(entry: Any) -> dict[bytes, Any]:
    return entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True))


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
