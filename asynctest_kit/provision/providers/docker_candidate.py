"""A container that is starting, as those see it who wait for it; and one that is run to its end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from asynctest_kit.provision.providers import start_error
from asynctest_kit.provision.providers.engine import EngineError
from asynctest_kit.provision.readiness import NotReadyError
from asynctest_kit.provision.readiness.candidate import Health, Stream
from asynctest_kit.provision.readiness.waits import bound

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from asynctest_kit.containers import Wait
    from asynctest_kit.provision.providers import Order, Witness
    from asynctest_kit.provision.providers.docker_reach import Places
    from asynctest_kit.provision.providers.engine import Engine
    from asynctest_kit.provision.readiness import Waiting

__all__ = ["StartingContainer", "await_end"]

#: What a container's end is called when it is the one that was wanted.
_DONE = "ended with exit code 0"


class StartingContainer:
    """A :class:`~asynctest_kit.provision.readiness.candidate.Candidate` on an engine."""

    def __init__(self, engine: Engine, name: str, places: Places) -> None:
        self._engine = engine
        self._name = name
        self.ports = {port: places.address(port) for port in places.published}
        self.direct = places.direct()

    def waiting(self, wait: Wait | None) -> Waiting:
        """What waits for it."""
        return bound(wait, self)

    async def is_running(self) -> bool:
        """Whether it hasn't ended."""
        try:
            return bool((await self._engine.inspect(self._name))["State"]["Running"])
        except EngineError:
            return False

    async def log(self) -> AsyncGenerator[tuple[Stream, str], None]:
        """See :class:`~asynctest_kit.provision.readiness.candidate.Candidate`."""
        with suppress(EngineError):  # it is gone; its witness tells
            async with aclosing(self._engine.follow_log(self._name)) as lines:
                async for stream, line in lines:
                    yield stream, line

    async def run(self, argv: Sequence[str]) -> tuple[int, str]:
        """See :class:`~asynctest_kit.provision.readiness.candidate.Candidate`."""
        try:
            ended = await self._engine.run(self._name, argv)
        except EngineError as error:
            raise NotReadyError(str(error)) from None
        return ended.code, (ended.stdout + ended.stderr).decode(errors="replace")

    async def check(self) -> tuple[str, ...] | None:
        """See :class:`~asynctest_kit.provision.readiness.candidate.Candidate`."""
        try:
            config = (await self._engine.inspect(self._name))["Config"]
        except EngineError:
            return None
        match (config.get("Healthcheck") or {}).get("Test"):
            case ["CMD", *argv] if argv:
                return tuple(argv)
            case ["CMD-SHELL", script]:
                return (*(config.get("Shell") or ("/bin/sh", "-c")), script)
        return None

    async def health(self) -> AsyncGenerator[Health, None]:
        """See :class:`~asynctest_kit.provision.readiness.candidate.Candidate`."""
        with suppress(EngineError):  # as above
            async with aclosing(self._engine.health_changes(self._name)) as changes:
                async for _ in changes:
                    state = (await self._engine.inspect(self._name))["State"].get("Health") or {}
                    last = (state.get("Log") or [{}])[-1]
                    yield Health(state.get("Status", ""), last.get("Output", ""))


async def await_end(order: Order, witness: Witness, subject: str) -> None:
    """Wait until a container that is run once has ended well.

    Raises:
        ProvisionError: It ended otherwise, or not in time; its last words are in the message.
    """
    try:
        async with asyncio.timeout_at(order.deadline):
            how = await witness.ended()
    except TimeoutError:
        how = f"did not end within {order.allowed}, and is to be run to its end (once = true)"
    if how != _DONE:
        raise await start_error(order, witness, f"{subject} {how}")
