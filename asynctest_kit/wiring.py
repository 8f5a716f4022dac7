"""What services say of each other: who needs whom, and whose address stands in whose configuration.

A template is ``{service.field}`` in a service's environment or command: ``{postgres.url}``, ``{redis.port}``,
``{api.ports.admin}``. Anything else in braces is left as it is, and so is what a doubled brace begins: ``{{a.b}}`` is
``{a.b}``. Naming a service in a template is needing it.

All of it is checked before anything starts (:func:`check`), so that a wrong name costs a second and not a time-out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

from asynctest_kit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from asynctest_kit.container_options import ContainerOptions
    from asynctest_kit.containers import Port, Wait

__all__ = ["FIELDS", "KIND_OF_IMAGES", "OF_STUBS", "Prepared", "Wired", "check", "filled", "needed"]

#: The kind of a service that the catalogue knows nothing of: any image.
KIND_OF_IMAGES: Final = "container"

#: The kinds of servers of stubs, which tests share.
OF_STUBS: Final = ("mockserver", "wiremock")

#: What can be said of a service's endpoint.
FIELDS: Final = ("database", "host", "password", "port", "scheme", "url", "username")
_PORTS: Final = "ports."

_TEMPLATE: Final = re.compile(r"\{\{([a-z][\w-]*\.[a-z][\w.-]*)\}\}|\{([a-z][\w-]*)\.([a-z][\w.-]*)\}")


class Prepared(Protocol):
    """What a database has before its migrations."""

    @property
    def given(self) -> tuple[str, ...]:
        """The keys that say it."""

    @property
    def roles(self) -> Mapping[str, str]:
        """What each role of its server is, by name."""


class Wired(Protocol):
    """A service as far as others matter to it."""

    @property
    def kind(self) -> str:
        """Its kind."""

    @property
    def image(self) -> str | None:
        """Its image."""

    @property
    def container(self) -> ContainerOptions:
        """How its container is made."""

    @property
    def provider(self) -> str | None:
        """Who should give it."""

    @property
    def url(self) -> str | None:
        """Where it is, if it is external."""

    @property
    def migrations(self) -> object | None:
        """What is applied to its database."""

    @property
    def preparation(self) -> Prepared:
        """What its database has before that."""

    @property
    def ports(self) -> Mapping[str, Port]:
        """The ports that it exposes."""

    @property
    def wait(self) -> Wait | None:
        """What it waits for."""

    @property
    def once(self) -> bool:
        """Whether it is run to its end."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of those that it says it needs."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Its variables."""

    @property
    def jar(self) -> object | None:
        """Its jar."""

    @property
    def mappings(self) -> object | None:
        """The stubs that all tests have."""

    @property
    def lease_header(self) -> object | None:
        """The header by which tests are told apart."""

    @property
    def command(self) -> tuple[str, ...]:
        """Its arguments."""

    @property
    def server(self) -> str | None:
        """The service on whose server it is a database."""


def filled(text: str, value: Callable[[str, str], str]) -> str:
    """``text`` with each template replaced by ``value(service, field)``."""

    def one(found: re.Match[str]) -> str:
        escaped, service, field = found.groups()
        return f"{{{escaped}}}" if escaped is not None else value(service, field)

    return _TEMPLATE.sub(one, text)


def needed(service: Wired) -> tuple[str, ...]:
    """The names of those that must be ready before it: that it says or has templates of, and whose server it is on."""
    names = dict.fromkeys((service.server, *service.needs) if service.server else service.needs)
    names.update((name, None) for _, name, _ in _templates(service))
    return tuple(names)


def check(services: Mapping[str, Wired], place: Callable[[str, str], str]) -> None:
    """Check that each service makes sense, by itself and among the others.

    Args:
        services: All of them, by name.
        place: Where a service's key was set, for messages.

    Raises:
        SettingsError: One doesn't.
    """
    for name, service in services.items():
        _check_alone(service, lambda key, name=name: place(name, key))  # type: ignore[misc]
        for other in service.needs:
            if other not in services:
                raise SettingsError(f"{place(name, 'needs')}: {_unknown(other, services)}")
        for key, other, field in _templates(service):
            if other not in services:
                raise SettingsError(
                    f"{place(name, key)}: {{{other}.{field}}}: {_unknown(other, services)} {_LITERALLY}"
                )
            if problem := _unusable(other, services[other], field):
                raise SettingsError(f"{place(name, key)}: {{{other}.{field}}}: {problem}")
        if service.server is not None:
            _check_shared(name, service.server, services, lambda key, name=name: place(name, key))  # type: ignore[misc]
    _check_no_cycle(services, place)


_LITERALLY = "(Double the braces, {{...}}, for a text that is meant as it stands.)"


def _templates(service: Wired) -> Iterator[tuple[str, str, str]]:
    """Key, service and field of each."""
    for key, texts in (("environment", service.environment.values()), ("command", service.command)):
        for text in texts:
            for found in _TEMPLATE.finditer(text):
                if found[2] is not None:
                    yield key, found[2], found[3]


def _check_alone(service: Wired, place: Callable[[str], str]) -> None:
    if service.migrations is not None and service.kind != "postgres":
        raise SettingsError(
            f'{place("migrations")}: a service of kind "{service.kind}" has none. Only "postgres" is migrated.'
        )
    if service.kind != "postgres":
        for key in service.preparation.given:
            raise SettingsError(f'{place(key)}: only services of kind "postgres" have it.')
    if service.kind not in OF_STUBS:
        keys = {"jar": service.jar, "mappings": service.mappings, "lease-header": service.lease_header}
        for key, value in keys.items():
            if value is not None:
                kinds = " and ".join(f'"{kind}"' for kind in OF_STUBS)
                raise SettingsError(f"{place(key)}: only services of the kinds {kinds} have it.")
    if service.kind != KIND_OF_IMAGES:
        for key in _given(service):
            raise SettingsError(f'{place(key)}: only services of kind "{KIND_OF_IMAGES}" have it.')
    elif service.url is None:
        _check_container(service, place)


def _check_shared(name: str, server: str, services: Mapping[str, Wired], place: Callable[[str], str]) -> None:
    """Check a database on the server of another service."""
    service, where = services[name], place("server")
    if service.kind != "postgres":
        raise SettingsError(f'{where}: a service of kind "{service.kind}" shares no server. Only "postgres" does.')
    if server == name:
        raise SettingsError(f"{where}: that is the service itself. Name another one, or leave the key out.")
    if server not in services:
        raise SettingsError(f"{where}: {_unknown(server, services)}")
    if (kind := services[server].kind) != "postgres":
        raise SettingsError(f'{where}: "{server}" is of kind "{kind}". Only the server of a "postgres" can be shared.')
    if (beyond := services[server].server) is not None:
        mend = f'Name "{beyond}" here, too' if beyond != name else "Leave the key out at one of them"
        raise SettingsError(f'{where}: "{server}" has no server of its own, for it is on that of "{beyond}". {mend}.')
    for key in _of_a_server(service):
        raise SettingsError(
            f'{place(key)}: "{name}" is a database on the server of "{server}", to which this would belong: say it '
            'there, or leave the key "server" out, for a server of its own.'
        )
    beside = {other: one for other, one in services.items() if server in (other, one.server)}
    for role, words in service.preparation.roles.items():
        for other, one in beside.items():
            if (others := one.preparation.roles.get(role, words)) != words:
                raise SettingsError(
                    f'{place("roles")}: the role "{role}" is {words!r} here and {others!r} in "{other}", and both '
                    "are on one server. Say the same in both, or give the roles names of their own."
                )


def _of_a_server(service: Wired) -> list[str]:
    """Those keys that it has of the ones that only a server has."""
    keys = {
        "image": service.image,
        "command": service.command,
        "container": service.container != type(service.container)(),
        "environment": service.environment,
        "needs": service.needs,
        "provider": None if service.url else service.provider,
        "settings": "settings" in service.preparation.given,
    }
    return [key for key, value in keys.items() if value]


def _check_container(service: Wired, place: Callable[[str], str]) -> None:
    if service.provider == "embedded":
        raise SettingsError(f'{place("provider")}: an image runs in a container only, so its provider is "docker".')
    if not service.image and not service.container.build:
        raise SettingsError(
            f'{place("kind")}: a service of kind "{KIND_OF_IMAGES}" needs the key "image", or "build" in "container".'
        )
    match _given(service):
        case []:
            raise SettingsError(
                f'{place("image")}: nothing says when it is ready. Give the key "ports", or "wait", or once = true for '
                "something that is run to its end."
            )
        case [key, *_, "once"]:
            raise SettingsError(f"{place(key)}: a service that is run to its end (once = true) has none.")
    if service.wait is not None:
        _check_ports_in_wait(service.wait, service.ports, place("wait"))


def _given(service: Wired) -> list[str]:
    """Those keys that it has of the ones that only containers of any image have."""
    keys = {"ports": service.ports, "wait": service.wait, "once": service.once}
    return [key for key, value in keys.items() if value]


def _check_ports_in_wait(wait: Wait, ports: Mapping[str, Port], place: str) -> None:
    from asynctest_kit.containers import needs_port, ports_named_by

    for port in ports_named_by(wait):
        if port not in ports:
            raise SettingsError(f'{place}: no port is called "{port}". There are: {", ".join(ports) or "none"}.')
    if needs_port(wait) and not ports:
        raise SettingsError(f'{place}: it waits for a port, so the key "ports" is needed.')


def _unusable(name: str, service: Wired, field: str) -> str:
    """Why a field of a service can't be had; empty if it can."""
    if field not in FIELDS and not field.startswith(_PORTS):
        return f"no service has that. There are: {', '.join((*FIELDS, 'ports.NAME'))}."
    if service.kind != KIND_OF_IMAGES:
        return f'"{name}" is of kind "{service.kind}" and has no named ports.' if field.startswith(_PORTS) else ""
    if not service.ports:
        return f'"{name}" exposes no port, so it has no address.'
    if field.startswith(_PORTS) and field.removeprefix(_PORTS) not in service.ports:
        return f'"{name}" exposes no port of that name. There are: {", ".join(service.ports)}.'
    return ""


def _check_no_cycle(services: Mapping[str, Wired], place: Callable[[str, str], str]) -> None:
    settled: set[str] = set()

    def visit(path: tuple[str, ...]) -> None:
        for name in needed(services[path[-1]]):
            if name in path:
                cycle = path[path.index(name) :]
                chain = " needs ".join(f'"{step}"' for step in (*cycle, name))
                raise SettingsError(f"{place(name, 'needs')}: none of these could start first: {chain}.")
            if name not in settled:
                visit((*path, name))
        settled.add(path[-1])

    for name in services:
        visit((name,))


def _unknown(name: str, services: Mapping[str, Wired]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, services, n=1)
    meant = f' Did you mean "{close[0]}"?' if close else ""
    return f'no service is called "{name}".{meant} There are: {", ".join(sorted(services))}.'
