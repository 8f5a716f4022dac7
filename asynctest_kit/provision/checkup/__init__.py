"""What would run here, what would not, and what mends it.

Each check looks at one thing, starts no service and leaves nothing behind.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from asynctest_kit.provision.checkup.engine import examine_engine
from asynctest_kit.provision.checkup.finding import Finding, Part
from asynctest_kit.provision.checkup.machine import examine_machine
from asynctest_kit.provision.checkup.services import examine_service
from asynctest_kit.provision.providers import Refusal
from asynctest_kit.provision.providers.engine import open_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from asynctest_kit.provision.providers.engine import Engine
    from asynctest_kit.settings import Settings

__all__ = ["Finding", "Part", "examine"]


async def examine(settings: Settings, environ: Mapping[str, str]) -> AsyncIterator[Finding]:
    """Look at the engine, then at each service in the settings, then at the machine."""
    async with AsyncExitStack() as stack:
        engine: Engine | None = None
        try:
            engine = await stack.enter_async_context(open_engine(environ))
        except Refusal as reason:
            yield Finding(
                "engine", "engine", "note", str(reason), "start an engine, or set DOCKER_HOST to where one is"
            )
        else:
            yield Finding("engine", "engine", "ok", f"Docker Engine {engine.version} at {engine.location}")
            wanted = {
                name: service
                for name, service in settings.services.items()
                if name in settings.usual_services and (service.provider or settings.provider) in ("auto", "docker")
            }
            if wanted:
                async for finding in examine_engine(engine, wanted):
                    yield finding
        for name in sorted(settings.usual_services):
            for finding in await examine_service(name, settings, engine):
                yield finding
    for finding in examine_machine(settings.concurrency):
        yield finding
