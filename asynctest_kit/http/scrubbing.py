"""What is secret in requests, responses and logs, by its name, and what is shown or kept instead."""

from __future__ import annotations

import base64
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlencode

import httpx

from asynctest_kit.http.multipart import Part, boundary_of, joined, parts
from asynctest_kit.provision.service import SECRET_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["OF_TRANSFER", "STARS", "Scrubber", "content_of", "secrets_of", "without"]

#: What stands for a secret.
STARS: Final = "***"

#: Headers that are secret, beside those that are named so.
_SECRET_HEADERS: Final = re.compile(r"authorization|cookie|signature|credential", re.IGNORECASE)

#: Headers that tell how a body came, which is kept as it is without all that; and those that differ each time.
OF_TRANSFER: Final = frozenset({"connection", "content-encoding", "content-length", "date", "transfer-encoding"})

#: The password in a URL.
_IN_URL: Final = re.compile(r"://[^/@\s:]*:([^/@\s]+)@")

#: Whose name and password a URL in a text has.
_USER: Final = re.compile(r"(?<!\w)(\w+)://([^/?#@\s\"'<>]+)@")

#: A parameter in the query or the fragment of a URL in a text.
_PARAMETER: Final = re.compile(r"(?<=[?&#;])([^?&#;=\s\"'<>\\]+)=([^&#;\s\"'<>\\]*)")

#: Of a line of a log: headers whose value has spaces, what proves an identity, and what is said to have a value.
_HEADER: Final = re.compile(r"\b((?:proxy-)?authorization|(?:set-)?cookie):[ \t]*[^\s\"'][^\n\"']*", re.IGNORECASE)
_BEARER: Final = re.compile(r"\b((?i:bearer|basic))[ \t]+(?=\S*(?:\d|=|[a-z][A-Z])|\S{20})[\w+/=.~-]{4,}")
_NAMED: Final = re.compile(
    r"""(?<![\w.-])(?P<name>[\w.-]+)(?P<is>\\?["']?[ \t]*[=:][ \t]*)"""
    r"""(?P<value>b?"(?:[^"\\\n]|\\.)*"|b?'(?:[^'\\\n]|\\.)*'|\\?["']?[^\s"',;&)}\]\\]+)"""
)

#: Where the words of a name begin; in a log those that make it secret, alone or after another one.
_WORDS: Final = re.compile(r"[_.-]+|(?<=[a-z0-9])(?=[A-Z])")
_SECRET_WORD: Final = re.compile(
    r"(password|passwd|passphrase|passcode|pwd|secret|token|apikey|authorization|cookie|signature|credentials?)\d*$"
)
_SECRET_AFTER_ANOTHER: Final = re.compile(r"(pass|key)\d*$")

#: In place of a secret, what is none.
_NO_SECRETS: Final = frozenset({"none", "null", "true", "false", "str", "int", "bytes", STARS})

#: A value with fewer characters is no secret, and would be found everywhere.
_SHORTEST: Final = 4


class Scrubber:
    """Takes secrets out.

    Args:
        names: More names of headers, parameters and keys whose values are secret; their case doesn't matter.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._names = frozenset(name.lower() for name in names)

    def is_secret(self, name: str) -> bool:
        """Whether nobody should see what goes by ``name``."""
        return name.lower() in self._names or bool(SECRET_NAME.search(name) or _SECRET_HEADERS.search(name))

    def url(self, url: httpx.URL) -> str:
        """``url`` without user and password, and without secrets in its query."""
        bare = url.copy_with(userinfo=b"", fragment=None)
        if not url.query:
            return str(bare)
        pairs = [(name, self._value(name, value)) for name, value in url.params.multi_items()]
        return str(bare.copy_with(params=pairs))

    def shown(self, url: httpx.URL) -> str:
        """The same for people: nothing is percent-encoded that isn't in ``url``."""
        bare = str(url.copy_with(query=None, userinfo=b"", fragment=None))
        return f"{bare}?{self.query(url.params)}" if url.query else bare

    def query(self, params: httpx.QueryParams) -> str:
        """Parameters for people."""
        return "&".join(f"{name}={self._value(name, value)}" for name, value in params.multi_items())

    def headers(self, headers: httpx.Headers) -> list[list[str]]:
        """Names and values."""
        kept = [(name, value) for name, value in headers.multi_items() if name.lower() not in OF_TRANSFER]
        return [[name, self.header(name, value)] for name, value in kept]

    def header(self, name: str, value: str) -> str:
        """A header's value."""
        return self._value(name, value)

    def text(self, text: str) -> str:
        """A text, which may be JSON, or have URLs in it; it is as it was if nothing in it is secret."""
        if text.lstrip().startswith(("{", "[")):
            with suppress(ValueError, RecursionError):
                value = json.loads(text)
                clean = self.within(value)
                return text if clean == value else json.dumps(clean, ensure_ascii=False)
        return self._urls(text)

    def log(self, text: str) -> str:
        """Whole lines that a program wrote: without what follows a name that is secret, and without secrets in URLs."""
        text = _HEADER.sub(rf"\1: {STARS}", self._urls(text))
        return _NAMED.sub(self._named, _BEARER.sub(rf"\1 {STARS}", text))

    def body(self, content: bytes, kind: str) -> dict[str, Any]:
        """A body of the media type ``kind``: in its parts, as JSON, as text, or else in base64.

        What is said to be in parts, and isn't, is starred out: it has secrets that can't be told from the rest.
        """
        if content and (boundary := boundary_of(kind)):
            found = parts(content, boundary)
            return {"text": STARS} if found is None else {"parts": [self._part(part) for part in found]}
        if content and "json" in kind:
            return self._json(content)
        if "x-www-form-urlencoded" in kind:
            pairs = httpx.QueryParams(content.decode(errors="replace")).multi_items()
            return {"text": urlencode([(name, self._value(name, value)) for name, value in pairs])}
        try:
            return {"text": self.text(content.decode())}
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(content).decode()}

    def _json(self, content: bytes) -> dict[str, Any]:
        """JSON in any encoding, and what is said to be some: lines of it, say."""
        try:
            text = content.decode(json.detect_encoding(content))
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        with suppress(ValueError, RecursionError):
            return {"json": self.within(json.loads(text))}
        return {"text": self.log("".join(map(self.text, text.splitlines(keepends=True))))}

    def within(self, value: Any) -> Any:
        """A value of JSON, at any depth."""
        if isinstance(value, dict):
            return {key: STARS if self.is_secret(key) else self.within(one) for key, one in value.items()}
        if isinstance(value, str):
            return self.text(value)
        return [self.within(one) for one in value] if isinstance(value, list) else value

    def _value(self, name: str, value: str) -> str:
        return STARS if self.is_secret(name) else self.text(value)

    def _part(self, part: Part) -> dict[str, Any]:
        content = STARS.encode() if self.is_secret(part.name) else part.content
        return {"headers": self.headers(httpx.Headers(list(part.headers), "utf-8")), **self.body(content, part.kind)}

    def _urls(self, text: str) -> str:
        """A text without secrets in the URLs that are in it."""
        return _PARAMETER.sub(self._parameter, _USER.sub(_unknown_user, text))

    def _parameter(self, found: re.Match[str]) -> str:
        name, value = unquote(found[1]), unquote(found[2])
        clean = self._value(name, value)
        return found[0] if clean == value or not value else f"{found[1]}={quote(clean, safe='*')}"

    def _named(self, found: re.Match[str]) -> str:
        name, value = found["name"], found["value"]
        if not (name.lower() in self._names or _is_secret_in_log(name)):
            return found[0]
        bare = value.lstrip("b\\").strip("\"'")
        return found[0] if bare.lower() in _NO_SECRETS else found[0].removesuffix(value) + value.replace(bare, STARS)


def content_of(told: Mapping[str, Any], kind: str) -> bytes:
    """The bytes of a body of :meth:`Scrubber.body`.

    Raises:
        ValueError, KeyError, TypeError: It is none.
    """
    if "parts" in told:
        return joined(map(_as_part, told["parts"]), boundary_of(kind))
    if "json" in told:
        return json.dumps(told["json"], ensure_ascii=False).encode()
    return base64.b64decode(told["base64"]) if "base64" in told else str(told["text"]).encode()


def secrets_of(variables: Mapping[str, str]) -> tuple[str, ...]:
    """What of a process's variables nobody should see: values of those that are named so, and passwords in URLs."""
    found = {value for name, value in variables.items() if SECRET_NAME.search(name)}
    passwords = [password for value in variables.values() for password in _IN_URL.findall(value)]
    found.update(passwords, map(unquote, passwords))
    return tuple(sorted((one for one in found if len(one) >= _SHORTEST), key=len, reverse=True))


def without(text: str, secrets: Iterable[str]) -> str:
    """``text`` with each of ``secrets`` starred out."""
    for secret in secrets:
        text = text.replace(secret, STARS)
    return text


def _as_part(told: Mapping[str, Any]) -> Part:
    headers = Part([(name, value) for name, value in told["headers"]], b"")
    return headers._replace(content=content_of(told, headers.kind))


def _unknown_user(found: re.Match[str]) -> str:
    scheme, user = found[1], found[2]
    name, colon, password = user.partition(":")
    if password:
        return f"{scheme}://{name}{colon}{STARS}@"
    return f"{scheme}://{STARS}@" if scheme in ("http", "https") else found[0]  # a token, as it is used there


def _is_secret_in_log(name: str) -> bool:
    *before, last = (word.lower() for word in _WORDS.split(name) if word) if name.strip("_.-") else ("",)
    return bool(_SECRET_WORD.search(last) or (before and _SECRET_AFTER_ANOTHER.fullmatch(last)))
