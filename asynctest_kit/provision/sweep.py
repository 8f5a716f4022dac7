"""Remove what dead supervisors left: ``python -m asynctest_kit.provision.sweep``.

Every supervisor begins with it. A client whose supervisor was killed runs it by itself, since no other supervisor may
come for days; and so does ``atk gc``.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from asynctest_kit.provision import runtime, snapshots
from asynctest_kit.provision.providers.docker import Docker

__all__ = ["Swept", "main", "sweep"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Swept:
    """What was removed, by name or id."""

    directories: list[str]
    containers: list[str]


async def sweep(docker: Docker, *, always: bool) -> Swept:
    """Remove what has an owner that is proven dead.

    Args:
        docker: Where containers are.
        always: Whether to ask the engine without a sign of a dead supervisor; else it is asked when it is needed.
    """
    directories = await asyncio.to_thread(runtime.sweep) + await asyncio.to_thread(snapshots.sweep)
    return Swept(directories, await docker.sweep(now=always or bool(directories)))


async def _alone() -> None:
    async with Docker(session="sweep", project="sweep") as docker:
        _log.info("swept: %r", await sweep(docker, always=True))


def main() -> None:
    """Sweep once."""
    asyncio.run(_alone())


if __name__ == "__main__":
    main()
