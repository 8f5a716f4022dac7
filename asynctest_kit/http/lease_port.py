"""A port of a test's own before a server that many tests share: it adds a header to each request that comes by it.

So the code under test needs nothing but a base URL, has that URL's root for its paths, and can be in another process.
What comes back is passed on as it is, broken answers included. Requests are HTTP/1.1: on a connection that is no
longer that (after an upgrade, or from a client that begins with HTTP/2) nothing is added.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from asynctest_kit.http.faults import Fault, Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctest_kit.http.faults import Connection, Piece, Toward
    from asynctest_kit.provision.service import Endpoint

__all__ = ["Marker", "open_lease_port"]

#: Bytes of a request's head; with more than that it is none.
_LONGEST_HEAD: Final = 1 << 17

_REQUEST: Final = re.compile(rb"[!-~]+ \S+ HTTP/1\.[01]$")
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;.*)?$")


class Marker:
    """Puts a header into each request of one connection, in the place of any that has its name.

    Args:
        line: The header's line, with its end.
        host: What the ``Host`` header says instead of what the client wrote; None to leave it.
    """

    def __init__(self, line: bytes, host: str | None = None) -> None:
        self._line = line
        self._host = host
        self._kept = b""
        self._passing = 0
        self._is_chunked = False
        self._is_in_trailers = False
        self._is_blind = False

    def feed(self, data: bytes) -> bytes:
        """What to send for ``data``, which arrived next; what may still be within a head or a size is kept."""
        self._kept += data
        sent = []
        while self._kept and (step := self._step()) is not None:
            sent.append(step)
        return b"".join(sent)

    def _step(self) -> bytes | None:
        """Take the next part from what is kept; None if it isn't all there."""
        if self._is_blind:
            return self._take(len(self._kept))
        if self._passing:
            passed = self._take(self._passing)
            self._passing -= len(passed)
            return passed
        return self._size() if self._is_chunked else self._head()

    def _take(self, size: int) -> bytes:
        taken, self._kept = self._kept[:size], self._kept[size:]
        return taken

    def _blindly(self) -> bytes:
        """It isn't what we know: let it all pass."""
        self._is_blind = True
        return b""

    def _size(self) -> bytes | None:
        """The line before a chunk, or one of the trailers."""
        line, end, _ = self._kept.partition(b"\r\n")
        if not end:
            return None if len(self._kept) < _LONGEST_HEAD else self._blindly()
        if self._is_in_trailers:
            self._is_chunked = self._is_in_trailers = bool(line)
        elif (size := _SIZE.match(line)) is None:
            return self._blindly()
        elif (length := int(size[1], 16)) > 0:
            self._passing = length + len(end)
        else:
            self._is_in_trailers = True
        return self._take(len(line) + len(end))

    def _head(self) -> bytes | None:
        if self._kept.startswith(b"\r\n"):
            return self._take(2)
        head, end, _ = self._kept.partition(b"\r\n\r\n")
        if not end:
            return None if len(self._kept) < _LONGEST_HEAD else self._blindly()
        first, *lines = head.split(b"\r\n")
        if not _REQUEST.match(first):
            return self._blindly()
        self._take(len(head) + len(end))
        lines = [line for line in lines if not self._is_left_out(line)]
        self._expect_body(lines)
        self._is_blind = any(_name(line) == b"upgrade" for line in lines) or first.startswith(b"CONNECT ")
        host = [] if self._host is None else [b"Host: " + self._host.encode()]
        return b"\r\n".join((first, *host, *lines)) + b"\r\n" + self._line + b"\r\n"

    def _is_left_out(self, line: bytes) -> bool:
        """Whether it is told otherwise, or would lead to HTTP/2, which we could not read."""
        name, value = _name(line), line.partition(b":")[2].strip().lower()
        is_http2 = (name == b"upgrade" and value == b"h2c") or name == b"http2-settings"
        return is_http2 or name == _name(self._line) or (name == b"host" and self._host is not None)

    def _expect_body(self, lines: list[bytes]) -> None:
        values = {_name(line): line.partition(b":")[2].strip() for line in lines}
        if values.get(b"transfer-encoding", b"").lower().endswith(b"chunked"):
            self._is_chunked = True
        elif (length := values.get(b"content-length", b"")).isdigit():
            self._passing = int(length)


def _name(line: bytes) -> bytes:
    return line.partition(b":")[0].strip().lower()


class _Marked(Fault):
    """Not wrong at all: each connection's requests have their header."""

    line = b""
    host: str | None = None

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(proxy, "service", None)
        self._markers: dict[Connection, Marker] = {}

    def begin(self, connection: Connection) -> None:
        self._markers[connection] = Marker(self.line, self.host)

    async def pass_on(self, connection: Connection, toward: Toward, piece: Piece) -> None:  # noqa: ARG002
        piece.data = self._markers[connection].feed(piece.data)


@asynccontextmanager
async def open_lease_port(server: Endpoint, header: str, lease: str) -> AsyncIterator[Proxy]:
    """A port at which ``server`` gets requests with ``header``, for as long as the block runs."""
    # What the code under test has is no key to the server's admin API.
    upstream = msgspec.structs.replace(server, scheme="http", query="", username=None, password=None)
    proxy = Proxy(upstream, seed=0, speaks_tls=server.scheme == "https")
    marked = _Marked(proxy)
    marked.line = f"{header}: {lease}\r\n".encode()
    # Only a server of the user's own may have others beside it, told apart by their names.
    marked.host = f"{server.host}:{server.port}" if server.provider == "external" else None
    marked.start()
    try:
        await proxy.listen()
        yield proxy
    finally:
        await proxy.aclose()
