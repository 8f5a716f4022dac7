"""``atk migrations check``: what the migrations of this project's databases can do, tried on the real server."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from asynctest_kit.errors import AtkError, MigrationError, SettingsError
from asynctest_kit.settings import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asynctest_kit.isolation.migration_checks import Checked
    from asynctest_kit.settings import Settings

__all__ = ["check"]

_FAILED = 1
_USAGE_ERROR = 4
_LABEL = 28
_MARK = 7


def check(names: Sequence[str], provider: str | None) -> None:
    """Print what each check found; exit with 1 if one found a fault."""
    try:
        settings = load(paths=(), directory=Path.cwd(), environ=os.environ, options={"provider": provider})
        chosen = _chosen(names, settings)
    except AtkError as error:
        _fail(_USAGE_ERROR, error)
    try:
        faults = asyncio.run(_check(chosen, settings))
    except AtkError as error:
        _fail(_FAILED, error)
    _say(f"{faults} to be mended." if faults else "The migrations hold.")
    if faults:
        sys.exit(_FAILED)


def _chosen(names: Sequence[str], settings: Settings) -> list[str]:
    migrated = [name for name, service in settings.services.items() if service.migrations is not None]
    for name in names:
        if name not in migrated:
            known = ", ".join(migrated) or "none"
            raise SettingsError(f"No service called {name!r} has migrations. Those that have: {known}.")
    if not migrated:
        raise SettingsError(
            "No service has migrations, so there is nothing to check. Say in pyproject.toml how a database gets its "
            'schema, e.g. [tool.asynctest_kit.services.postgres] migrations = { alembic = "alembic.ini" }'
        )
    return list(dict.fromkeys(names)) or migrated


async def _check(names: Sequence[str], settings: Settings) -> int:
    from asynctest_kit.isolation.migration_checks import CHECKS, Checked
    from asynctest_kit.provision.catalog import spec_for
    from asynctest_kit.provision.client import Client

    faults = 0
    cores = asyncio.Semaphore(os.cpu_count() or 1)
    with closing(Client.connect(settings.root)) as client:
        for name in names:
            client.ensure(spec_for(name, settings))
        for name in names:
            server = await client.endpoint(spec_for(name, settings))
            migrations = settings.services[name].migrations
            if migrations is None:
                continue
            preparation = settings.services[name].preparation
            checked = Checked(server=server, migrations=migrations, root=settings.root, preparation=preparation)
            async with asyncio.TaskGroup() as group:
                found = [group.create_task(_try_out(title, checked, cores)) for title in CHECKS]
            seen: dict[str, str] = {}
            for title, task in zip(CHECKS, found, strict=True):
                mark, text = task.result()
                if mark == "FAULT" and seen.setdefault(text, title) != title:
                    mark, text = "-", f'could not run, for the same reason as "{seen[text]}"'
                faults += mark == "FAULT"
                _say(_lines(f"{name}, {title}", mark, text))
    return faults


async def _try_out(title: str, checked: Checked, cores: asyncio.Semaphore) -> tuple[str, str]:
    """One check's verdict, and its words."""
    from asynctest_kit.isolation.migration_checks import CHECKS, NotApplicable

    async with cores:
        try:
            return "ok", await CHECKS[title](checked)
        except NotApplicable as reason:
            return "-", str(reason)
        except MigrationError as fault:
            return "FAULT", str(fault)


def _lines(label: str, mark: str, text: str) -> str:
    first, *others = text.splitlines()
    return "\n".join([f"{label:{_LABEL}}{mark:{_MARK}}{first}", *(f"    {line}" for line in others)])


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  # the command's own answer


def _fail(code: int, error: AtkError) -> NoReturn:
    print(f"atk: {error}", file=sys.stderr)  # noqa: T201  # the command's own message
    sys.exit(code)
