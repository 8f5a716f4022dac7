"""The image's own HEALTHCHECK says so.

The engine runs it, and pushes what it makes of it. But it does so first after a whole interval, which is half a minute
unless the image says otherwise. So the same command is also run from here: one success is what the engine would call
healthy. That it is unhealthy the engine alone decides, with the image's own number of retries.
"""

from __future__ import annotations

import asyncio
import shlex
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynctest_kit.provision.readiness import RejectedError
from asynctest_kit.provision.readiness.command import ExitCode
from asynctest_kit.provision.waiting import first_of

if TYPE_CHECKING:
    from asynctest_kit.provision.readiness import Note
    from asynctest_kit.provision.readiness.candidate import Candidate

__all__ = ["Healthy"]


@dataclass(frozen=True, slots=True)
class Healthy:
    """A container that is healthy; a :class:`~asynctest_kit.provision.readiness.Waiting`."""

    candidate: Candidate

    @property
    def expectation(self) -> str:
        """What is waited for."""
        return "its image's HEALTHCHECK to succeed"

    async def wait(self, note: Note) -> None:
        """See :class:`~asynctest_kit.provision.readiness.Waiting`."""
        check = await self.candidate.check()
        if check is None:
            raise RejectedError("has no HEALTHCHECK in its image by which its health could be known")

        await first_of(self._judged(note, shlex.join(check)), ExitCode(self.candidate, check).wait(note))

    async def _judged(self, note: Note, check: str) -> None:
        async with aclosing(self.candidate.health()) as changes:
            async for health in changes:
                if health.status == "healthy":
                    return
                if health.status == "unhealthy":
                    raise RejectedError(f"is unhealthy: its HEALTHCHECK `{check}` says {health.output.strip()!r}")
                if health.output:
                    note(f"its HEALTHCHECK says {health.output.strip()!r}")
        await asyncio.Event().wait()  # the engine says no more: whether it lives is for its witness to tell
