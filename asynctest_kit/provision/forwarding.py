"""TCP for a server that listens on a unix socket alone: a port of 127.0.0.1, each of whose connections is passed on.

It takes the place of Docker's own port proxy, which is slower, and for which a container needs a network.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["forwarded"]

_HOST = "127.0.0.1"

#: Connections that may wait to be taken.
_BACKLOG = 512


@asynccontextmanager
async def forwarded(path: str) -> AsyncIterator[int]:
    """Pass on what connects to a free port, which is given, to the socket at ``path``, there or not yet.

    While nobody listens there, a connection is closed at once. At the end all are cut.
    """
    forwarder = _Forwarder(path)
    server = await asyncio.get_running_loop().create_server(
        partial(_Caller, forwarder), host=_HOST, port=0, backlog=_BACKLOG
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await forwarder.cut()


class _Forwarder:
    """The connections of one port."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._dialling: set[asyncio.Task[None]] = set()
        self.ends: set[_End] = set()

    def dial(self, caller: _Caller) -> None:
        """Find the server for one who has called."""
        task = asyncio.get_running_loop().create_task(self._dial(caller))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    async def cut(self) -> None:
        """End every connection."""
        tasks = list(self._dialling)
        for task in tasks:
            task.cancel()
        for end in list(self.ends):
            end.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _dial(self, caller: _Caller) -> None:
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: _End(self, caller), self._path)
        except OSError:
            caller.transport.abort()
        else:
            caller.transport.resume_reading()


class _End(asyncio.Protocol):
    """One end of a connection: what it hears goes out at the other end, no faster than that can take it."""

    transport: asyncio.Transport

    def __init__(self, forwarder: _Forwarder, other: _End | None = None) -> None:
        self._forwarder = forwarder
        self.other = other
        self.is_silent = False
        if other is not None:
            other.other = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.Protocol`."""
        self.transport = cast("asyncio.Transport", transport)
        self._forwarder.ends.add(self)
        if self.other is not None and self.other.transport.is_closing():
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        if self.other is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """See :class:`asyncio.Protocol`; the other direction stays open until it is silent too."""
        self.is_silent = True
        if self.other is None or self.other.is_silent:
            return False
        if not self.other.transport.is_closing():
            self.other.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio.Protocol's
        """See :class:`asyncio.Protocol`."""
        self._forwarder.ends.discard(self)
        if self.other is not None:
            self.other.transport.close()

    def pause_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""
        if self.other is not None:
            self.other.transport.resume_reading()


class _Caller(_End):
    """The end of one who connected to the port; unheard until the server has been found."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.Protocol`."""
        super().connection_made(transport)
        self.transport.pause_reading()
        self._forwarder.dial(self)
