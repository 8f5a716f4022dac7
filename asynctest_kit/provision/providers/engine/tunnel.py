"""An engine behind SSH: a socket on this machine, each connection to which is one to the engine over there.

As Docker's own client does it, ``docker system dial-stdio`` is run on the other machine, once a connection. Keys,
agents, jump hosts and multiplexing are the business of the user's ``ssh`` and its configuration; nothing is asked for.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from asynctest_kit.provision import runtime
from asynctest_kit.provision.providers import Refusal
from asynctest_kit.provision.waiting import first_of, to_its_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

__all__ = ["Tunnel", "open_tunnel"]

_CHUNK = 1 << 16


class Tunnel:
    """The socket's other side.

    Args:
        argv: What is run for each connection.
        environ: Its environment.
        directory: A private one, in which the socket is.
    """

    def __init__(self, argv: tuple[str, ...], environ: Mapping[str, str], directory: Path) -> None:
        self.socket = directory / "docker.sock"
        self.complaint = ""
        self._argv = argv
        self._environ = environ
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> asyncio.Server:
        """Open the socket."""
        return await asyncio.start_unix_server(self._admit, self.socket)

    async def aclose(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.close())  # one that is cancelled before it runs comes to no `finally`

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(self._environ),
        )
        assert process.stdin is not None  # noqa: S101  # pipes were asked for
        assert process.stdout is not None  # noqa: S101
        complaint = asyncio.ensure_future(self._note(process))
        try:
            with suppress(ConnectionError):
                await first_of(_copy(process.stdout, writer), _copy(reader, process.stdin))
        finally:
            await to_its_end(_ended(process))
            await complaint

    async def _note(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None  # noqa: S101
        while line := await process.stderr.readline():
            self.complaint = line.decode(errors="replace").strip() or self.complaint


@asynccontextmanager
async def open_tunnel(url: str, environ: Mapping[str, str]) -> AsyncIterator[Tunnel]:
    """A tunnel to the engine at ``url``, e.g. ``ssh://user@host:22``.

    Raises:
        Refusal: There is no ``ssh`` on PATH.
    """
    ssh = shutil.which("ssh", path=environ.get("PATH"))
    if ssh is None:
        raise Refusal(f"the Docker engine is at {url}, and there is no `ssh` on PATH")

    directory = await asyncio.to_thread(runtime.data_directory)
    tunnel = Tunnel((ssh, *_arguments(url)), environ, directory)
    try:
        async with await tunnel.serve() as server:
            try:
                yield tunnel
            finally:
                server.close()  # nobody comes in any more
                await to_its_end(tunnel.aclose())
    finally:
        await asyncio.to_thread(runtime.remove, directory)


def _arguments(url: str) -> tuple[str, ...]:
    parts = urlsplit(url)
    user = ("-l", unquote(parts.username)) if parts.username else ()
    port = ("-p", str(parts.port)) if parts.port else ()
    socket = ("--host", f"unix://{parts.path}") if parts.path.strip("/") else ()
    options = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-T")
    return (*user, *port, *options, "--", parts.hostname or "", "docker", *socket, "system", "dial-stdio")


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK):
        target.write(data)
        await target.drain()


async def _ended(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    await process.wait()
