"""The databases of the next run, made while a process waits for it."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from asynctest_kit.cli.warm import meeting
from asynctest_kit.cli.warm.recipe import is_awaited, kept_by
from asynctest_kit.provision.visit import Visit
from asynctest_kit.settings import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asynctest_kit.provision.service import Endpoint
    from asynctest_kit.settings import ServiceSettings

__all__ = ["make_next_databases", "noted_databases"]

#: Seconds for all of them; a run that comes meanwhile starts without what waits.
_PATIENCE = 10.0


def make_next_databases(root: Path) -> None:
    """Make them on the project's servers that are up, where they can be made; what fails is left to the run.

    It is noted for who asks, as ``atk doctor`` does.
    """
    try:
        wanted = _wanted(root)
        told = dict.fromkeys((service.name for service, _ in wanted), f"not made within {_PATIENCE:g} s")
        if wanted:
            # On no loop that the process's policy knows of: the run is to find that as it is.
            with closing(asyncio.SelectorEventLoop()) as loop, suppress(TimeoutError):
                loop.run_until_complete(asyncio.wait_for(_make_all(wanted, root, told), _PATIENCE))
    except Exception as error:  # noqa: BLE001  # the run meets it, too
        told = {"": str(error)}
    with suppress(OSError):
        _notes().write_text(json.dumps(told), encoding="utf-8")


def noted_databases(root: Path) -> Mapping[str, str]:
    """Of the process that waits for a run from the current folder: by service why its database isn't made, or "".

    Empty if none waits. What failed before any service was looked at has the name "".
    """
    supervisor = kept_by(root)
    with suppress(OSError, ValueError):
        if supervisor is not None and _notes().is_file() and is_awaited(supervisor):
            return dict(json.loads(_notes().read_text(encoding="utf-8")))
    return {}


def _notes() -> Path:
    return Path(f"{meeting.socket_path()}.databases")


def _wanted(root: Path) -> list[tuple[ServiceSettings, Endpoint]]:
    settings = load(paths=(), directory=root, environ=os.environ, options={}, is_complete=False)
    return [
        (service, endpoint)
        for name, endpoint in _endpoints(root)
        if (service := settings.services.get(name)) and service.migrations
    ]


def _endpoints(root: Path) -> list[tuple[str, Endpoint]]:
    """Of what is up, with the service's name."""
    visit = Visit.at(root)
    if visit is None:
        return []
    with closing(visit):
        return [(state.name, state.endpoint) for state in visit.survey().services if state.endpoint is not None]


async def _make_all(wanted: Iterable[tuple[ServiceSettings, Endpoint]], root: Path, told: dict[str, str]) -> None:
    from asynctest_kit.isolation.templates import make_next

    for service, endpoint in wanted:
        if service.preparation.roles:
            told[service.name] = "it has roles, which the run makes sure of first"
            continue
        try:
            told[service.name] = await make_next(
                endpoint, service.migrations, root=root, preparation=service.preparation
            )
        except Exception as error:  # noqa: BLE001  # a migration's file that can't be read, a server that has just gone
            told[service.name] = f"{type(error).__name__}: {error}"
