"""What is secret in requests and responses, by its name, and what is shown or kept instead."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlencode

import httpx

from asynctest_kit.provision.service import SECRET_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["OF_TRANSFER", "STARS", "Scrubber", "secrets_of", "without"]

#: What stands for a secret.
STARS: Final = "***"

#: Headers that are secret, beside those that are named so.
_SECRET_HEADERS: Final = re.compile(r"authorization|cookie|signature|credential", re.IGNORECASE)

#: Headers that tell how a body came, which is kept as it is without all that; and those that differ each time.
OF_TRANSFER: Final = frozenset({"connection", "content-encoding", "content-length", "date", "transfer-encoding"})

#: Headers that are URLs.
_URLS: Final = frozenset({"content-location", "location", "origin", "referer"})

#: The password in a URL.
_IN_URL: Final = re.compile(r"://[^/@\s:]*:([^/@\s]+)@")

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
        return [[name, self._kept(name, value)] for name, value in kept]

    def header(self, name: str, value: str) -> str:
        """A header's value for people."""
        if self.is_secret(name):
            return STARS
        if name.lower() not in _URLS:
            return value
        try:
            return self.shown(httpx.URL(value))
        except httpx.InvalidURL:
            return value

    def _kept(self, name: str, value: str) -> str:
        """A header's value to be kept: a URL is as it was, if nothing in it is secret."""
        if self.is_secret(name) or name.lower() not in _URLS:
            return self._value(name, value)
        try:
            url = httpx.URL(value)
        except httpx.InvalidURL:
            return value
        is_open = not url.userinfo and not url.fragment and not any(map(self.is_secret, url.params))
        return value if is_open else self.url(url)

    def text(self, text: str) -> str:
        """A text for people, which may be JSON."""
        if not text.lstrip().startswith(("{", "[")):
            return text
        try:
            return json.dumps(self.within(json.loads(text)), ensure_ascii=False)
        except ValueError:
            return text

    def body(self, content: bytes, kind: str) -> dict[str, Any]:
        """A body of the media type ``kind``: as JSON, as text, or else in base64."""
        try:
            text = content.decode()
            if "json" in kind and text:
                return {"json": self.within(json.loads(text))}
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(content).decode()}
        except ValueError:
            return {"text": text}
        if "x-www-form-urlencoded" in kind:
            pairs = [(name, self._value(name, value)) for name, value in httpx.QueryParams(text).multi_items()]
            text = urlencode(pairs)
        return {"text": text}

    def _value(self, name: str, value: str) -> str:
        return STARS if self.is_secret(name) else value

    def within(self, value: Any) -> Any:
        """A value of JSON, at any depth."""
        if isinstance(value, dict):
            return {key: STARS if self.is_secret(key) else self.within(one) for key, one in value.items()}
        return [self.within(one) for one in value] if isinstance(value, list) else value


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
