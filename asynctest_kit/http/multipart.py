"""Bodies in several parts: taken apart, and put together again; see RFC 2046, section 5.1."""

from __future__ import annotations

import re
from email.message import Message
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["BOUNDARY", "Part", "boundary_of", "joined", "parts", "with_boundary"]

#: What stands for a boundary, which is another one each time.
BOUNDARY: Final = "asynctest-kit-boundary"

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
    _, *found = (b"\r\n" + content).split(f"\r\n--{boundary}".encode())
    if not found or not found[-1].startswith(b"--"):
        return None
    try:
        return [_part(one) for one in found[:-1]]
    except ValueError:
        return None


def joined(parts: Iterable[Part], boundary: str) -> bytes:
    """A body of parts."""
    lines = []
    for part in parts:
        headers = "".join(f"{name}: {value}\r\n" for name, value in part.headers)
        lines.append(f"--{boundary}\r\n{headers}\r\n".encode() + part.content + b"\r\n")
    return b"".join(lines) + f"--{boundary}--\r\n".encode()


def _part(text: bytes) -> Part:
    _, _, rest = text.partition(b"\r\n")
    head, is_whole, content = (b"\r\n" + rest).partition(b"\r\n\r\n")
    if not is_whole:
        raise ValueError(text)
    lines = [line.decode().partition(":") for line in head.split(b"\r\n") if line]
    return Part([(name.strip(), value.strip()) for name, _, value in lines], content)
