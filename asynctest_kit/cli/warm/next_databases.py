"""The databases of the next run, made while a process waits for it."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from asynctest_kit.errors import AtkError
from asynctest_kit.provision.visit import Visit
from asynctest_kit.settings import load

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from asynctest_kit.provision.service import Endpoint
    from asynctest_kit.settings import ServiceSettings

__all__ = ["make_next_databases"]

#: Seconds for all of them; a run that comes meanwhile starts without what waits.
_PATIENCE = 10.0


def make_next_databases(root: Path) -> None:
    """Make them on the project's servers that are up, where they can be made; what fails is left to the run."""
    with suppress(AtkError, OSError):
        settings = load(paths=(), directory=root, environ=os.environ, options={}, is_complete=False)
        wanted = [
            (service, endpoint)
            for name, endpoint in _endpoints(root)
            if (service := settings.services.get(name)) and service.migrations and not service.preparation.roles
        ]
        if wanted:
            # On no loop that the process's policy knows of: the run is to find that as it is.
            with closing(asyncio.SelectorEventLoop()) as loop, suppress(Exception):
                loop.run_until_complete(asyncio.wait_for(_make_all(wanted, root), _PATIENCE))


def _endpoints(root: Path) -> list[tuple[str, Endpoint]]:
    """Of what is up, with the service's name."""
    visit = Visit.at(root)
    if visit is None:
        return []
    with closing(visit):
        return [(state.name, state.endpoint) for state in visit.survey().services if state.endpoint is not None]


async def _make_all(wanted: Iterable[tuple[ServiceSettings, Endpoint]], root: Path) -> None:
    from asynctest_kit.isolation.templates import make_next

    for service, endpoint in wanted:
        with suppress(Exception):  # a migration's file that can't be read, a server that has just gone
            await make_next(endpoint, service.migrations, root=root, preparation=service.preparation)
