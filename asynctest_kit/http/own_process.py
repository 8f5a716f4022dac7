"""An ASGI application on a real socket, in a process of its own.

It is uvicorn as in production (:mod:`asynctest_kit.http.served_process`), on a socket that is made here, so that no
port is guessed. It says itself when it is ready, and ends when this process does, however that ends. What it writes is
output of whoever started it: of the test, say.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import signal
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from asynctest_kit.http.lifespan import AppError
from asynctest_kit.http.scrubbing import Scrubber, secrets_of, without
from asynctest_kit.http.served import listening, needs_uvicorn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["Process", "in_own_process"]

#: Characters of its output that messages show at most.
_LAST_WORDS: Final = 4000

_SCRUBBER: Final = Scrubber()

#: Seconds for a process to end that was asked to, before it is killed.
_ENDS_WITHIN: Final = 10.0


class Process:
    """A process that serves an application.

    Attributes:
        target: What it serves, as ``module:name``.
        url: Where.
        last_words: The end of what it has written, without the secrets that it was given, or that are named so in it.
    """

    def __init__(self, target: str, secrets: tuple[str, ...]) -> None:
        self.target = target
        self.url = ""
        self.last_words = ""
        self._secrets = secrets
        self._process: asyncio.subprocess.Process | None = None
        self._pumps: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None  # noqa: S101  # it was started
        return self._process.pid

    def ended(self) -> str:
        """How it ended, in words; empty if it runs."""
        code = self._process.returncode if self._process is not None else None
        if code is None:
            return ""
        return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

    async def start(self, *, factory: bool, env: Mapping[str, str], within: float) -> None:
        """Start it, and wait until it is ready.

        Raises:
            AppError: It isn't in time, or ended.
        """
        ready, says_ready = os.pipe()
        try:
            with listening() as taken:
                self.url = f"http://127.0.0.1:{taken.getsockname()[1]}"
                fds = (taken.fileno(), says_ready)
                spec = {
                    "target": self.target,
                    "factory": factory,
                    "socket": fds[0],
                    "ready": fds[1],
                    "path": [entry for entry in sys.path if entry],
                }
                self._process = await _started(json.dumps(spec), env, fds)
        except BaseException:
            os.close(ready)
            raise
        finally:
            os.close(says_ready)
        for stream, name in ((self._process.stdout, "stdout"), (self._process.stderr, "stderr")):
            self._pumps.append(asyncio.ensure_future(self._pass_on(stream, name)))
        try:
            async with asyncio.timeout(within):
                is_ready = await _said(ready)
        except TimeoutError:
            raise self.failure(f"was not ready within {within:g} s: its lifespan's start-up has not ended") from None
        if not is_ready:
            await self._process.wait()
            await asyncio.gather(*self._pumps)
            raise self.failure(f"did not start: its process ended with {self.ended()}")

    def failure(self, what: str) -> AppError:
        """An error that shows what it has written."""
        told = f" It wrote:\n{self.last_words.rstrip()}" if self.last_words.strip() else " It wrote nothing."
        return AppError(f"The application {self.target}, in a process of its own, {what}.{told}")

    async def aclose(self) -> None:
        """End it."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None  # noqa: S101  # it is a pipe
        process.stdin.close()
        try:
            async with asyncio.timeout(_ENDS_WITHIN):
                await process.wait()
                await asyncio.gather(*self._pumps)
        except TimeoutError:
            pass
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            for pump in self._pumps:
                pump.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _pass_on(self, stream: asyncio.StreamReader | None, name: str) -> None:
        assert stream is not None  # noqa: S101  # it is a pipe
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        kept = ""
        data = b"-"
        while data:
            data = await stream.read(1 << 16)
            kept += decoder.decode(data, final=not data)
            lines, kept = (kept, "") if not data else _whole_lines(kept)
            if lines:
                told = _SCRUBBER.log(without(lines, self._secrets))
                self.last_words = (self.last_words + told)[-_LAST_WORDS:]
                getattr(sys, name).write(told)


@asynccontextmanager
async def in_own_process(
    target: str, *, factory: bool, env: Mapping[str, str], within: float
) -> AsyncIterator[Process]:
    """Serve ``target`` while the block runs.

    Args:
        target: ``module:name`` of the application.
        factory: Whether it is a function that makes it.
        env: Variables beside this process's own.
        within: Seconds for it to be ready.

    Raises:
        AppError: It did not start, or uvicorn isn't installed.
    """
    needs_uvicorn()
    process = Process(target, secrets_of(env))
    try:
        await process.start(factory=factory, env=env, within=within)
        yield process
    finally:
        await process.aclose()


async def _started(spec: str, env: Mapping[str, str], fds: tuple[int, ...]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "asynctest_kit.http.served_process", spec),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
        pass_fds=fds,
        start_new_session=True,
    )


async def _said(ready: int) -> bytes:
    """What comes out of a pipe first, which is closed then."""
    reader = asyncio.StreamReader()
    pipe = os.fdopen(ready, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        return await reader.read(1)
    finally:
        transport.close()


def _whole_lines(text: str) -> tuple[str, str]:
    end = text.rfind("\n") + 1
    return text[:end], text[end:]
