"""What can be said of a container of any image: its ports, and what it waits for until it is ready.

In ``pyproject.toml`` each wait is a table with the key that names it; a list of tables means all of them::

    wait = { log = "ready to accept", times = 2, stream = "stderr" }
    wait = [{ port = "http" }, { http = "/health", status = [200, 204], body = "ok" }]
    wait = { any = [{ command = ["ready"] }, { health = true }] }

In Python they are the classes below. Nothing here knows how it is waited: see :mod:`asynctest_kit.provision.readiness`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, TypeAlias, Union

import msgspec

from asynctest_kit.setting_errors import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "AllOf",
    "AnyOf",
    "Command",
    "Handshake",
    "Health",
    "Http",
    "Listening",
    "Log",
    "Port",
    "Wait",
    "needs_port",
    "parsed_wait",
    "ports_named_by",
]

#: Kinds of the catalogue that answer to a handshake.
HandshakeKind = Literal["postgres", "redis"]


class Port(msgspec.Struct, frozen=True):
    """A TCP port, and the scheme of the URLs that lead to it."""

    port: int
    scheme: str = "tcp"

    def __post_init__(self) -> None:
        if not 0 < self.port < 1 << 16:
            raise ValueError(f"{self.port} is no port: 1 to 65535")
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*", self.scheme):
            raise ValueError(f"{self.scheme!r} is no scheme of a URL")


class _Wait(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """One thing to wait for."""


class Listening(_Wait, frozen=True):
    """A port takes connections, seen from outside of the container.

    Attributes:
        port: Its name; None for every port that the service exposes.
    """

    port: str | None = None


class Log(_Wait, frozen=True, rename={"pattern": "log"}):
    """A line of the log matches.

    Attributes:
        pattern: A regular expression, found anywhere in a line.
        times: How many such lines it takes.
        stream: In which of the two; None for either.
    """

    pattern: str
    times: int = 1
    stream: Literal["stdout", "stderr"] | None = None

    def __post_init__(self) -> None:
        _check_pattern(self.pattern)
        if self.times < 1:
            raise ValueError(f"times = {self.times}: at least 1")


class Http(_Wait, frozen=True, rename={"path": "http"}):
    """A request is answered as it should be.

    Attributes:
        path: Path and query.
        port: Name of the port; None for the first.
        status: The status, or those that will do; none for any of 200 to 299.
        body: A regular expression that is found in the body; None for any body.
        method: The request's.
        headers: The request's.
        tls: Whether it goes over TLS; the certificate is not verified.
    """

    path: str = "/"
    port: str | None = None
    status: int | tuple[int, ...] = ()
    body: str | None = None
    method: str = "GET"
    headers: dict[str, str] = {}
    tls: bool = False

    def __post_init__(self) -> None:
        if not self.path.startswith("/"):
            raise ValueError(f"http = {self.path!r}: a path begins with /")
        if self.body is not None:
            _check_pattern(self.body)


class Command(_Wait, frozen=True, rename={"argv": "command"}):
    """A program ends with exit code 0 inside the container.

    Attributes:
        argv: The program and its arguments; no shell is involved.
    """

    argv: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.argv:
            raise ValueError("command: at least a program is needed")


class Health(_Wait, frozen=True):
    """The image's own HEALTHCHECK says healthy."""

    health: bool = True

    def __post_init__(self) -> None:
        if not self.health:
            raise ValueError("health: only true makes sense")


class Handshake(_Wait, frozen=True, rename={"kind": "handshake"}):
    """The protocol of a kind of the catalogue is spoken, as that kind's own services are waited for.

    Attributes:
        kind: Whose.
        port: Name of the port; None for the first.
        username: To log in with, as the next two.
        password: None for a server that wants none.
        database: PostgreSQL's.
    """

    kind: HandshakeKind
    port: str | None = None
    username: str | None = None
    password: str | None = None
    database: str | None = None

    def __repr__(self) -> str:
        return f"<Handshake {self.kind} as {self.username}>"


class AllOf(_Wait, frozen=True, rename={"waits": "all"}):
    """All of them, in any order."""

    waits: tuple[Wait, ...]

    def __post_init__(self) -> None:
        _check_some("all", self.waits)


class AnyOf(_Wait, frozen=True, rename={"waits": "any"}):
    """Whichever comes first."""

    waits: tuple[Wait, ...]

    def __post_init__(self) -> None:
        _check_some("any", self.waits)


Wait: TypeAlias = Union[Listening, Log, Http, Command, Health, Handshake, AllOf, AnyOf]  # noqa: UP007 (msgspec reads it)

_BY_KEY: dict[str, type[Listening | Log | Http | Command | Health | Handshake]] = {
    # "http" and "handshake" before "port", which both may have, too.
    "http": Http,
    "handshake": Handshake,
    "log": Log,
    "command": Command,
    "health": Health,
    "port": Listening,
}


def parsed_wait(value: object) -> Wait:
    """The wait that a value of TOML describes.

    Raises:
        ValueError: It describes none; the message says why, as the end of a sentence.
    """
    if isinstance(value, list):
        return AllOf(tuple(map(parsed_wait, value)))
    if not isinstance(value, dict):
        raise ValueError('must be a table such as { log = "ready" }, or a list of tables')  # noqa: TRY004 (of a file)
    for key, together in (("all", AllOf), ("any", AnyOf)):
        if key in value:
            if len(value) > 1 or not isinstance(value[key], list):
                raise ValueError(f"{key} = [...] is a list of tables, with no other key beside it")
            return together(tuple(map(parsed_wait, value[key])))
    kind = next((kind for key, kind in _BY_KEY.items() if key in value), None)
    if kind is None:
        raise ValueError(_without_kind(value))
    fields = kind.__struct_encode_fields__
    if unknown := [key for key in value if key not in fields]:
        raise ValueError(_unknown(unknown[0], fields))
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def ports_named_by(wait: Wait) -> tuple[str, ...]:
    """The names of ports in it, those in its parts too."""
    if isinstance(wait, AllOf | AnyOf):
        return tuple(name for part in wait.waits for name in ports_named_by(part))
    port = getattr(wait, "port", None)
    return () if port is None else (port,)


def needs_port(wait: Wait) -> bool:
    """Whether it, or a part of it, waits for something at a port."""
    if isinstance(wait, AllOf | AnyOf):
        return any(map(needs_port, wait.waits))
    return isinstance(wait, Listening | Http | Handshake)


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None


def _without_kind(table: Mapping[str, object]) -> str:
    """What to say of a table in which no key says what is waited for."""
    kinds = sorted((*_BY_KEY, "all", "any"))
    known = {key for kind in _BY_KEY.values() for key in kind.__struct_encode_fields__}
    if unknown := [key for key in table if key not in known]:
        return _unknown(unknown[0], kinds)
    return f"has none of the keys {', '.join(kinds)}"


def _unknown(key: str, allowed: Iterable[str]) -> str:
    return f'unknown key "{key}".{suggestion(key, allowed).removesuffix(".")}'


def _check_some(key: str, waits: tuple[Wait, ...]) -> None:
    if not waits:
        raise ValueError(f"{key} = []: there is nothing to wait for")
