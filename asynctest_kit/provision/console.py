"""A look into a service that is up: its log as it is written, and programs run in it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.messages import Over, Read, Run, Wrote
from asynctest_kit.provision.service import Program, Stream
from asynctest_kit.provision.visit import unreached

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from asynctest_kit.provision.client import Client
    from asynctest_kit.provision.service import ServiceSpec

__all__ = ["Completed", "Console", "Line"]


class Line(NamedTuple):
    """A line of a log, without its end, and the stream it was written to (always stdout for a local program)."""

    stream: Stream
    text: str


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended.

    Attributes:
        code: Its exit code.
        stdout: All that it wrote there.
        stderr: All that it wrote there.
    """

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """What it wrote to its stdout, as text, without the end of the last line."""
        return self.stdout.decode(errors="replace").removesuffix("\n")


class Console:
    """One service, from the inside; works on any loop. It is started, and waited for, if it isn't up.

    Args:
        client: Through whom the service is asked for.
        spec: What it is asked to be.
    """

    def __init__(self, client: Client, spec: ServiceSpec) -> None:
        self._client = client
        self._spec = spec
        self._service = spec.name

    async def run(
        self,
        *argv: str,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        directory: str | None = None,
        check: bool = True,
    ) -> Completed:
        """Run a program in the service's container and wait for its end.

        A cancellation leaves the program running, for Docker has no way to end it; it ends with the container.

        Args:
            argv: The program and its arguments; no shell reads them.
            environment: Variables beside the service's own.
            user: As whom; None for the service's user.
            directory: Where; None for the service's working directory.
            check: Whether an exit code other than 0 is an error.

        Raises:
            ProvisionError: It can't be run, or has failed.
        """
        program = Program(argv=argv, environment=dict(environment or {}), user=user, directory=directory)
        written: dict[Stream, list[bytes]] = {"stdout": [], "stderr": []}
        code = 0
        async with self._reached(lambda number: Run(number, self._service, program)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Over):
                    code = piece.code
                else:
                    written[piece.stream].append(piece.data)
        completed = Completed(code, b"".join(written["stdout"]), b"".join(written["stderr"]))
        if check and code:
            words = completed.stderr.decode(errors="replace").strip()
            raise ProvisionError(f"{argv[0]} in the service {self._service!r} ended with exit code {code}: {words}")
        return completed

    async def log(self, lines: int = 100) -> list[Line]:
        """The last ``lines`` of its log.

        Raises:
            ProvisionError: It can't be read.
        """
        async with self._reached(lambda number: Read(number, self._service, lines, follow=False)) as pieces:
            return [line async for line in _lines(pieces)]

    @asynccontextmanager
    async def follow(self, lines: int = 0) -> AsyncIterator[AsyncIterator[Line]]:
        """Its log: all that is written inside the block, after the last ``lines`` of what there is.

        Raises:
            ProvisionError: It can't be read (any more).
        """
        async with self._reached(lambda number: Read(number, self._service, lines, follow=True)) as pieces:
            await anext(pieces)  # says that what is written from here on will come
            yield _lines(pieces)

    @asynccontextmanager
    async def _reached(self, ask: Callable[[int], Read | Run]) -> AsyncIterator[AsyncIterator[Wrote | Over]]:
        await self._client.endpoint(self._spec)
        inbox = _Inbox(asyncio.get_running_loop())
        number = self._client.reach(ask, inbox.put)
        try:
            yield inbox.pieces(ask(number))
        finally:
            self._client.stop(number)


async def _lines(pieces: AsyncIterator[Wrote | Over]) -> AsyncIterator[Line]:
    begun: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}
    async for piece in pieces:
        if isinstance(piece, Wrote):
            *whole, begun[piece.stream] = (begun[piece.stream] + piece.data).split(b"\n")
            for line in whole:
                yield Line(piece.stream, line.decode(errors="replace"))
    for stream, rest in begun.items():
        if rest:
            yield Line(stream, rest.decode(errors="replace"))


@dataclass(slots=True)
class _Inbox:
    """What another thread puts in and a loop takes out."""

    loop: asyncio.AbstractEventLoop
    queue: asyncio.Queue[Wrote | Over] = field(default_factory=asyncio.Queue)

    def put(self, piece: Wrote | Over) -> None:
        self.loop.call_soon_threadsafe(self.queue.put_nowait, piece)

    async def pieces(self, request: Read | Run) -> AsyncIterator[Wrote | Over]:
        while True:
            piece = await self.queue.get()
            if isinstance(piece, Over) and piece.problem:
                raise ProvisionError(unreached(request, piece.problem))
            yield piece
            if isinstance(piece, Over):
                return
