"""Who gives services to which client, and from what.

Clients of one supervisor may have other engines, credentials, binaries and wheels around them. Each is served from its
own: an engine has one provider, however many name it and in whatever way, and a client has its own way to local
binaries. A running service is another client's too if that one would have been given it from the same source.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asynctest_kit.provision.providers import Refusal
from asynctest_kit.provision.providers.docker import Docker, NoDocker
from asynctest_kit.provision.providers.embedded import Embedded, Search
from asynctest_kit.provision.providers.engine import locate
from asynctest_kit.provision.providers.external import External
from asynctest_kit.provision.selection import candidates
from asynctest_kit.provision.sweep import sweep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from asynctest_kit.provision.providers import Provider
    from asynctest_kit.provision.service import ProviderName, ServiceSpec
    from asynctest_kit.provision.surroundings import Surroundings

__all__ = ["Supplies", "Supply", "open_supplies"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Supply:
    """What one client has.

    Attributes:
        environ: Its environment.
        providers: Who may give it services, in the order in which they are asked.
    """

    environ: Mapping[str, str] = field(repr=False)
    providers: tuple[Provider, ...]

    @property
    def has_no_engine(self) -> bool:
        """Whether no engine was found for it; one may be there by now."""
        return any(isinstance(provider, NoDocker) for provider in self.providers)

    def sources(self, spec: ServiceSpec) -> dict[ProviderName, str]:
        """From what each provider that ``spec`` allows would give it, in the order in which they are asked."""
        if spec.shares:
            (server,) = spec.needs
            return self.sources(server)
        return {provider.name: provider.source(spec) for provider in candidates(self.providers, spec)}


class Supplies:
    """Those of all clients; made by :func:`open_supplies`."""

    def __init__(self, session: Path, project: str, resources: AsyncExitStack, tasks: asyncio.TaskGroup) -> None:
        self._session = session
        self._project = project
        self._resources = resources
        self._tasks = tasks
        self._engines: dict[str, Docker] = {}
        self._mutex = asyncio.Lock()

    async def of(self, surroundings: Surroundings) -> Supply:
        """What a client has that has these around it."""
        environ = surroundings.environ
        embedded = Embedded(search=Search.around(surroundings), environ=environ)
        return Supply(environ, (await self._docker(environ), embedded, External()))

    async def renewed(self, supply: Supply) -> Supply:
        """The same, with the engine that has come since."""
        if not supply.has_no_engine:
            return supply
        _, *others = supply.providers
        return Supply(supply.environ, (await self._docker(supply.environ), *others))

    def close_doors(self) -> None:
        """Nobody will order any more."""
        for docker in self._engines.values():
            docker.close_doors()

    async def _docker(self, environ: Mapping[str, str]) -> Docker | NoDocker:
        try:
            location = await asyncio.to_thread(locate, environ)
        except Refusal as reason:
            return NoDocker(str(reason))
        key = location.identity
        async with self._mutex:
            if key not in self._engines:
                number = len(self._engines)
                docker = Docker(
                    session=f"{self._session.name}-{number}" if number else self._session.name,
                    project=self._project,
                    sockets=self._session,
                    environ=environ,
                    location=location,
                )
                self._engines[key] = await self._resources.enter_async_context(docker)
                self._tasks.create_task(_sweep(docker))
            return self._engines[key]


@asynccontextmanager
async def open_supplies(session: Path, project: str) -> AsyncIterator[Supplies]:
    """The supplies of one supervisor.

    Args:
        session: Its private folder.
        project: The project's key.
    """
    async with AsyncExitStack() as resources, asyncio.TaskGroup() as tasks:
        supplies = Supplies(session, project, resources, tasks)
        try:
            yield supplies
        finally:
            supplies.close_doors()  # each sweep goes to its end: the sign of what is left is removed first


async def _sweep(docker: Docker) -> None:
    try:
        swept = await sweep(docker, always=False)
    except Exception:  # noqa: BLE001 (what others left must not hinder this run; the next one tries again)
        _log.exception("the sweep failed")
    else:
        _log.info("swept of what dead supervisors left: %r", swept)
