"""Bodies in several parts: taken apart, and put together again; see RFC 2046, section 5.1.

Nobody knows what of a part is secret that can't be read. So all is read that servers may read, with bare line feeds and
without an end, and what is left is starred out.
"""

from __future__ import annotations

import re
from email.message import Message
from itertools import takewhile
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["BOUNDARY", "Part", "boundary_of", "joined", "parts", "with_boundary"]

#: What stands for a boundary, which is another one each time.
BOUNDARY: Final = "asynctest-kit-boundary"

#: What stands for a part that can't be read.
_UNREADABLE: Final = b"***"

_PART: Final = re.compile(rb"[ \t]*\r?\n((?:[^\r\n]+\r?\n)*)\r?\n(.*)", re.DOTALL)
_FOLD: Final = re.compile(rb"\r?\n[ \t]+")
_LINE: Final = re.compile(r"[^\r\n]+")
_HEADER: Final = re.compile(r"[^\s:]+\s*:")

_IN_KIND: Final = re.compile(r'boundary=("[^"]*"|[^\s;]+)', re.IGNORECASE)


class Part(NamedTuple):
    """One part: its headers, and what is in it."""

    headers: Sequence[tuple[str, str]]
    content: bytes

    @property
    def kind(self) -> str:
        """Its media type; empty if it has none."""
        return next((value for name, value in self.headers if name.lower() == "content-type"), "")

    @property
    def name(self) -> str:
        """Of the field of a form; empty if it is none."""
        message = Message()
        for name, value in self.headers:
            message[name] = value
        found = message.get_param("name", "", header="content-disposition")
        return str(found[2] if isinstance(found, tuple) else found)


def boundary_of(kind: str) -> str:
    """What is between the parts of a body of this media type; empty if it has none."""
    found = _IN_KIND.search(kind) if kind.lower().startswith("multipart/") else None
    return found[1].strip('"') if found else ""


def with_boundary(kind: str) -> str:
    """The media type with the same boundary each time."""
    return _IN_KIND.sub(f"boundary={BOUNDARY}", kind) if boundary_of(kind) else kind


def parts(content: bytes, boundary: str) -> list[Part] | None:
    """The parts of a body; None if it isn't made of such."""
    between = rb"\r?\n--" + re.escape(boundary.encode()) + rb"(?=--|[ \t]*\r?\n)"
    _, *found = re.split(between, b"\n" + content)
    read = [_part(one) for one in takewhile(lambda one: not one.startswith(b"--"), found) if one.strip()]
    return read if found else None


def joined(parts: Iterable[Part], boundary: str) -> bytes:
    """A body of parts."""
    lines = []
    for part in parts:
        headers = "".join(f"{name}: {value}\r\n" for name, value in part.headers)
        lines.append(f"--{boundary}\r\n{headers}\r\n".encode() + part.content + b"\r\n")
    return b"".join(lines) + f"--{boundary}--\r\n".encode()


def _part(text: bytes) -> Part:
    found = _PART.fullmatch(text)
    lines = _LINE.findall(_text(_FOLD.sub(b" ", found[1]))) if found else []
    if found is None or not all(map(_HEADER.match, lines)):
        return Part([], _UNREADABLE)
    pairs = [line.partition(":") for line in lines]
    return Part([(name.strip(), value.strip()) for name, _, value in pairs], found[2])


def _text(head: bytes) -> str:
    try:
        return head.decode()
    except UnicodeDecodeError:
        return head.decode("latin-1")
