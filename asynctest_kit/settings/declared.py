"""Services that are declared elsewhere than in the settings' file, and variables for services."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from asynctest_kit.errors import SettingsError
from asynctest_kit.settings import parse
from asynctest_kit.settings.given import Given, last
from asynctest_kit.settings.keys import (
    NAMES,
    RUN_KEYS,
    SERVICE_NAME,
    SERVICE_VARIABLE_KEYS,
    service_variable,
    unknown_variable,
    variable_of,
)
from asynctest_kit.settings.model import KINDS
from asynctest_kit.settings.services import provider_and_url
from asynctest_kit.wiring import check

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from asynctest_kit.settings.given import Givens
    from asynctest_kit.settings.model import ServiceSettings, Settings

__all__ = ["check_name", "no_unclaimed", "with_services"]

#: From this likeness on, two names are taken for one that is misspelt.
_NEARLY: Final = 0.75


def check_name(name: str, place: str, *, taken: Collection[str] = KINDS) -> None:
    """Raise SettingsError if a service that is declared at ``place`` can't be called ``name``."""
    if name in taken:
        raise SettingsError(f'{place}: the service "{name}" is in the settings already. Rename one.')
    if not SERVICE_NAME.fullmatch(name):
        raise SettingsError(f'{place}: "{name}" is no name for a service. {NAMES}')


def with_services(settings: Settings, services: Iterable[tuple[ServiceSettings, str]]) -> Settings:
    """The settings with services that are declared elsewhere, each with its place for messages.

    Variables overrule what is declared, as they do what stands in the file.

    Raises:
        SettingsError: One makes no sense, by itself or beside the others.
    """
    known, places, unclaimed = dict(settings.services), dict[str, str](), dict(settings.unclaimed)
    for service, place in services:
        check_name(service.name, place, taken=known)
        places[service.name] = f'{place}, service "{service.name}"'
        if service.server in settings.services:
            raise SettingsError(
                f'{places[service.name]}, server: "{service.server}" is in the settings, and is started, from what was '
                "kept of all its databases, before this is read. Declare both in pyproject.toml, or both in Python."
            )
        variables = {key: service_variable(service.name, key) for key in SERVICE_VARIABLE_KEYS}
        found = {key: variable for key, variable in variables.items() if variable in settings.unclaimed}
        givens = {key: [_from_variable(variable, settings)] for key, variable in found.items()}
        known[service.name] = _overruled(service, givens, places[service.name], settings.root)
        for variable in found.values():
            unclaimed.pop(variable, None)

    def place_of(name: str, key: str) -> str:
        return f"{places[name]}, {key}" if name in places else settings.sources.get(f"services.{name}.{key}", name)

    check(known, place_of)
    return replace(settings, services=MappingProxyType(known), unclaimed=MappingProxyType(unclaimed))


def _from_variable(variable: str, settings: Settings) -> Given:
    value = settings.unclaimed[variable]
    return Given(value, f"environment {variable}", f"environment variable {variable}", settings.root)


def _overruled(service: ServiceSettings, givens: Givens, place: str, folder: Path) -> ServiceSettings:
    if not givens:
        return service
    for key, value in (("provider", service.provider), ("url", service.url)):
        if value is not None:
            givens.setdefault(key, []).insert(0, Given(value, place, f"{place}, {key}", folder))
    provider, url = provider_and_url(givens)
    return replace(
        service,
        provider=provider,
        url=url,
        image=last(givens, "image", parse.text, service.image),
        startup_timeout=last(givens, "startup-timeout", parse.positive_duration, service.startup_timeout),
        jar=last(givens, "jar", parse.path, service.jar),
    )


def no_unclaimed(settings: Settings) -> None:
    """Raise SettingsError if a variable is for a service that nobody has declared.

    An image may be exported for another project's service: it counts only if its name is nearly that of one here.
    """
    for variable in settings.unclaimed:
        if _is_of_another_project(variable, settings.services):
            continue

        known = [service_variable(name, key) for name in settings.services for key in SERVICE_VARIABLE_KEYS]
        raise unknown_variable(variable, [*(f"ATK_{variable_of(key)}" for key in RUN_KEYS), *known])


def _is_of_another_project(variable: str, services: Iterable[str]) -> bool:
    from difflib import get_close_matches

    name = variable.removeprefix("ATK_").removesuffix("_IMAGE")
    known = [variable_of(service) for service in services]
    return variable.endswith("_IMAGE") and not get_close_matches(name, known, n=1, cutoff=_NEARLY)
