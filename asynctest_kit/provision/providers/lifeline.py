"""What ties a container to the life of the process that started it, and hears the last of it.

The process holds the container's standard input open and never writes to it. The image's own entry point is started
by a shell that first leaves a watcher behind: when the input ends, because its holder has ended, however it ended, the
watcher kills the server. So nothing has to run that could be killed too, and no image of ours is needed. Process 1 is
the engine's own init, which hands signals to the server, reaps what it leaves and ends with its exit code; so the
server gets its signals as it would get them alone. A container that has ended is removed by the engine itself.

Without a switch, and so left to the sweep of the next start, are images that have no shell or insist on being process
1, and engines without an init. All containers are listened to from before they start: the exit code and the last
output are there even if the container is gone already.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from asynctest_kit.provision.providers.engine import EngineError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from asynctest_kit.provision.providers.engine import Engine

__all__ = ["Lifeline", "create", "hold"]

_SHELL = "/bin/sh"

#: Only what is built into every shell. The server gets the shell's own process id, and no descriptor of the watcher's.
_SWITCH = 'exec 3<&0 </dev/null; (while read -r _; do :; done <&3; kill -KILL $$) >/dev/null 2>&1 & exec "$@" 3<&-'

#: Entry points that are an init and refuse to be anything but process 1 (s6-overlay, systemd).
_INITS = frozenset({"/init", "/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd"})

#: Bytes of output that are remembered.
_MEMORY = 1 << 16

#: Seconds for the last output of a container that has ended.
_LAST_OUTPUT = 1.0


class Lifeline:
    """A container's output and end, as heard by the one who holds it."""

    def __init__(self) -> None:
        self._output = bytearray()
        self._is_silent = asyncio.Event()
        self._is_watched = asyncio.Event()
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ended(self) -> str:
        """See :class:`~asynctest_kit.provision.providers.Witness`."""
        return await asyncio.shield(self._end)

    async def tail(self, lines: int) -> str:
        """The last lines of its output; all of them that there are, if it has ended."""
        if self._end.done():
            await _within(_LAST_OUTPUT, self._is_silent)
        return "\n".join(self._output.decode(errors="replace").splitlines()[-lines:])

    async def _listen(self, output: AsyncIterator[bytes]) -> None:
        try:
            async for text in output:
                self._output += text
                del self._output[:-_MEMORY]
        finally:
            self._is_silent.set()

    async def _watch(self, engine: Engine, name: str) -> None:
        try:
            async with engine.exit_of(name) as exit_code:
                self._is_watched.set()
                self._end.set_result(f"ended with exit code {await exit_code}")
        except EngineError as error:
            self._end.set_result(f"is gone or can't be watched any more: {error}")
        finally:
            self._is_watched.set()


async def create(engine: Engine, name: str, config: Mapping[str, Any], *, platform: str | None = None) -> None:
    """Create a container that can be held; don't cancel this."""
    image = await engine.image_config(config["Image"])
    await engine.create(name, _tied(config, image, has_init=engine.has_init), platform=platform)
    if not await engine.has_file(name, _SHELL):
        await engine.remove(name)
        await engine.create(name, _tied(config, image, has_init=False), platform=platform)


@asynccontextmanager
async def hold(engine: Engine, name: str) -> AsyncIterator[Lifeline]:
    """Hold a created container, to be started inside: it lives no longer than the block, or this process."""
    lifeline = Lifeline()
    async with engine.attach(name) as output:
        listening = asyncio.ensure_future(lifeline._listen(output))  # noqa: SLF001 (its one user)
        watching = asyncio.ensure_future(lifeline._watch(engine, name))  # noqa: SLF001
        try:
            await lifeline._is_watched.wait()  # noqa: SLF001
            yield lifeline
        finally:
            listening.cancel()
            watching.cancel()
            await asyncio.gather(listening, watching, return_exceptions=True)


def _tied(config: Mapping[str, Any], image: Mapping[str, Any], *, has_init: bool) -> dict[str, Any]:
    host = {**config.get("HostConfig", {}), "AutoRemove": True}
    heard = {**config, "AttachStdout": True, "AttachStderr": True, "HostConfig": host}
    # The engine forgets an image's command when it is given another entry point.
    entrypoint = config.get("Entrypoint") or image.get("Entrypoint") or []
    command = config.get("Cmd") or ([] if config.get("Entrypoint") else image.get("Cmd")) or []
    program = [*entrypoint, *command]
    if not has_init or not program or program[0] in _INITS:
        return heard

    return heard | {
        "Entrypoint": [_SHELL, "-c", _SWITCH, "sh", *entrypoint],
        "Cmd": list(command),
        "AttachStdin": True,
        "OpenStdin": True,
        "StdinOnce": True,
        "HostConfig": host | {"Init": True},
    }


async def _within(seconds: float, event: asyncio.Event) -> None:
    await asyncio.wait((waiter := asyncio.ensure_future(event.wait()),), timeout=seconds)
    waiter.cancel()
