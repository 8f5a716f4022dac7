"""Who is connected to a supervisor, as the supervisor sees it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asynctest_kit.provision import messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctest_kit.provision.messages import Check, Reply
    from asynctest_kit.provision.supply import Supply

__all__ = ["Guest", "process_ended"]


@dataclass(slots=True, eq=False)
class Guest:
    """One connected process."""

    task: asyncio.Task[None] = field(init=False)
    parted: asyncio.Event = field(default_factory=asyncio.Event)
    _supply: Supply | None = None
    _writer: asyncio.StreamWriter | None = None
    _conversations: dict[int | Check, asyncio.Task[None]] = field(default_factory=dict)

    @property
    def supply(self) -> Supply:
        """Who may give it services.

        Raises:
            ValueError: It hasn't told what it has around it.
        """
        if self._supply is None:
            raise ValueError("it asks before it has told where it comes from")
        return self._supply

    def have(self, supply: Supply) -> None:
        """Take note of who may give it services."""
        self._supply = supply

    @asynccontextmanager
    async def connected(self, connection: socket.socket) -> AsyncIterator[asyncio.StreamReader]:
        """Its lines; the connection is closed with the context, all that was sent before."""
        reader, self._writer = await asyncio.open_unix_connection(sock=connection, limit=messages.LONGEST_LINE)
        try:
            yield reader
        finally:
            self._writer.close()
            with suppress(ConnectionError):
                await self._writer.wait_closed()

    def send(self, message: Reply) -> None:
        """Send if it is still there. Nobody waits for a client that doesn't read."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(messages.line(message))

    async def tell(self, message: Reply) -> None:
        """Send, and wait until it has read most of what came before."""
        self.send(message)
        if self._writer is not None:
            with suppress(ConnectionError):
                await self._writer.drain()

    def converse(self, about: int | Check, task: asyncio.Task[None]) -> None:
        """Have ``task`` answer it, until it has ended or is stopped; ``about`` is the number to stop it by, if any."""
        self._conversations[about] = task
        task.add_done_callback(lambda _: self._conversations.pop(about, None))

    def stop(self, number: int) -> None:
        """End a conversation; no-op if it has ended."""
        if number in self._conversations:
            self._conversations[number].cancel()

    def end_conversations(self) -> None:
        """It is gone, or wants nothing any more."""
        for task in self._conversations.values():
            task.cancel()


async def process_ended(connection: socket.socket) -> None:
    """Wait until the process at the other end has ended, where the system can tell; else for ever."""
    never = asyncio.Event()
    if not hasattr(os, "pidfd_open"):
        await never.wait()

    try:
        descriptor = os.pidfd_open(_peer(connection))
    except ProcessLookupError:
        return
    except OSError:  # an old kernel: the end of the stream must do
        await never.wait()
        return

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _peer(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], sys.byteorder)
