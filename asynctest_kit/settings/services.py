"""One service, from all that was given for it."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from asynctest_kit.container_options import ContainerOptions
from asynctest_kit.errors import SettingsError
from asynctest_kit.setting_errors import listing, shown, suggestion
from asynctest_kit.settings import parse
from asynctest_kit.settings.given import Given, last, table_of, wrong
from asynctest_kit.settings.model import KINDS, SEED_ENDINGS, Migrations, Preparation, ServiceSettings
from asynctest_kit.wiring import KIND_OF_IMAGES

if TYPE_CHECKING:
    from pathlib import Path

    from asynctest_kit.containers import Port, Wait
    from asynctest_kit.settings.given import Givens
    from asynctest_kit.settings.model import ProviderChoice

__all__ = ["provider_and_url", "service"]

#: How URLs of servers of a kind begin.
_SCHEMES: Final = {
    "mockserver": ("http", "https"),
    "postgres": ("postgresql", "postgres"),
    "redis": ("redis", "rediss"),
    "wiremock": ("http", "https"),
}

_MIGRATION_TOOLS: Final = ("alembic", "command", "sql")
_MIGRATION_KEYS: Final = (*_MIGRATION_TOOLS, "downgrade-to", "round-trip", "seeds")
_SETTING: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_OURS_TO_SAY: Final = frozenset({
    "config_file", "data_directory", "external_pid_file", "hba_file", "listen_addresses", "port",
    "unix_socket_directories",
})  # fmt: skip
_PORTS: Final = (
    'must be ports such as [8080], { http = 8080, grpc = 9090 } or { admin = { port = 9000, scheme = "https" } }'
)


def service(name: str, givens: Givens) -> ServiceSettings:
    """Raises SettingsError where a key, or keys beside each other, make no sense."""
    kind = last(givens, "kind", _kind, name if name in KINDS else KIND_OF_IMAGES)
    provider, url = provider_and_url(givens)
    for given in givens.get("url", ()):
        _check_scheme(given, kind)
    return ServiceSettings(
        name=name,
        kind=kind,
        provider=provider,
        image=last(givens, "image", parse.text, None),
        url=url,
        environment=MappingProxyType(last(givens, "environment", parse.environment, {})),
        command=last(givens, "command", parse.command, ()),
        startup_timeout=last(givens, "startup-timeout", parse.positive_duration, None),
        migrations=last(givens, "migrations", _migrations, None),
        preparation=Preparation(
            extensions=last(givens, "extensions", _extensions, ()),
            roles=MappingProxyType(last(givens, "roles", _roles, {})),
            settings=MappingProxyType(last(givens, "settings", _server_settings, {})),
        ),
        ports=MappingProxyType(_ports(givens)),
        wait=last(givens, "wait", _wait, None),
        needs=last(givens, "needs", parse.names, ()),
        once=last(givens, "once", parse.truth, default=False),
        container=last(givens, "container", _container, ContainerOptions()),
        jar=last(givens, "jar", parse.path, None),
        mappings=last(givens, "mappings", parse.existing, None),
        lease_header=last(givens, "lease-header", parse.header, None),
        server=last(givens, "server", parse.text, None),
    )


def provider_and_url(givens: Givens) -> tuple[ProviderChoice | None, str | None]:
    """Return both, made consistent: the file's URL gives way to the environment's provider and the other way round."""
    provider = last(givens, "provider", parse.provider, None)
    url = last(givens, "url", parse.url, None)
    if url is None and provider == "external":
        raise wrong(givens["provider"][-1], 'the provider "external" needs the key "url" or its variable')

    if url is None or provider in (None, "auto", "external"):
        return ("external" if url else provider), url

    from_variable = {key: givens[key][-1].source.startswith("environment") for key in ("provider", "url")}
    if from_variable["provider"] == from_variable["url"]:
        raise wrong(
            givens["provider"][-1],
            f'"{provider}" contradicts the URL that is set beside it. Remove one: a service with a URL is external',
        )

    return ("external", url) if from_variable["url"] else (provider, None)


def _kind(given: Given) -> str:
    return parse.one_of(given, (*KINDS, KIND_OF_IMAGES))


def _check_scheme(given: Given, kind: str) -> None:
    """Raise SettingsError if a URL, which is not shown for it may hold a password, leads to no server of that kind."""
    scheme, schemes = parse.url(given).partition(":")[0], _SCHEMES.get(kind, ())
    if schemes and scheme not in schemes:
        allowed = listing([f"{scheme}://" for scheme in schemes])
        raise SettingsError(f'{given.place}: "{scheme}://" leads to no server of kind "{kind}". Allowed: {allowed}.')


def _ports(givens: Givens) -> dict[str, Port]:
    if not givens.keys() & {"ports", "scheme"}:
        return {}
    if "ports" not in givens:
        raise wrong(givens["scheme"][-1], 'is the scheme of ports, so the key "ports" is needed')
    import msgspec

    from asynctest_kit.containers import Port

    given = givens["ports"][-1]
    scheme = last(givens, "scheme", parse.text, "tcp")
    value = given.value
    if isinstance(value, list):
        value = {str(number): number for number in value}
    ports = {}
    for name, port in table_of(value, given.place).items():
        table = port if isinstance(port, dict) else {"port": port}
        if not re.fullmatch(r"[a-z0-9][\w-]*", name) or not table.keys() <= {"port", "scheme"}:
            raise wrong(given, _PORTS)
        number = table.get("port")
        if not isinstance(number, int):
            raise SettingsError(f"{given.place}, {name}: {shown(number)} is no port, but a number is: 8080.")
        try:
            ports[name] = msgspec.convert({"scheme": scheme} | table, Port)
        except msgspec.ValidationError as error:
            raise SettingsError(f"{given.place}, {name}: {_lower(error)}. Ports {_PORTS}.") from None
    if not ports:
        raise wrong(given, _PORTS)
    return ports


def _lower(error: Exception) -> str:
    text = str(error).partition(" - at ")[0]
    return text[:1].lower() + text[1:]


def _wait(given: Given) -> Wait:
    from asynctest_kit.containers import parsed_wait

    try:
        return parsed_wait(given.value)
    except ValueError as error:
        raise SettingsError(f"{given.place}: {error}.") from None


def _migrations(given: Given) -> Migrations:
    table = table_of(given.value, given.place)
    for key in table:
        if key not in _MIGRATION_KEYS:
            raise SettingsError(f'{given.place}: unknown key "{key}".{suggestion(key, _MIGRATION_KEYS)}')

    tools = [key for key in _MIGRATION_TOOLS if key in table]
    if len(tools) > 1 or not (tools or "seeds" in table):
        raise SettingsError(
            f"{given.place}: exactly one of {listing(_MIGRATION_TOOLS)} is needed, {listing(tools) or 'none'} given. "
            'E.g. migrations = { alembic = "alembic.ini" }'
        )

    def inner(key: str) -> Given:
        return Given(table[key], given.source, f"{given.place}.{key}", given.folder)

    return Migrations(
        alembic=parse.existing_file(inner("alembic")) if "alembic" in table else None,
        sql=parse.existing_folder(inner("sql")) if "sql" in table else None,
        command=parse.command(inner("command")) if "command" in table else None,
        seeds=_seeds(inner("seeds")) if "seeds" in table else (),
        downgrade_to=parse.text(inner("downgrade-to")) if "downgrade-to" in table else None,
        round_trip=parse.existing_folder(inner("round-trip")) if "round-trip" in table else None,
    )


def _seeds(given: Given) -> tuple[Path, ...]:
    values = given.value if isinstance(given.value, list) else [given.value]
    paths = tuple(parse.path(Given(value, given.source, given.place, given.folder)) for value in values)
    for path in paths:
        if not path.is_dir() and not (path.is_file() and path.suffix in SEED_ENDINGS):
            raise wrong(given, f"names no folder and no {listing(SEED_ENDINGS)} file: {path} was looked for")

    if not paths:
        raise wrong(given, 'is empty. Allowed: a file or folder, or a list of them, e.g. ["seeds"]')

    return paths


def _extensions(given: Given) -> tuple[str, ...]:
    value = given.value
    if isinstance(value, list) and all(isinstance(name, str) and name.strip() for name in value):
        return tuple(value)

    raise wrong(given, 'must be a list of names of extensions, e.g. ["pgcrypto", "citext"]')


def _roles(given: Given) -> dict[str, str]:
    value = given.value
    if isinstance(value, list):
        value = dict.fromkeys(value, "") if all(isinstance(name, str) for name in value) else None
    if isinstance(value, dict) and all(name.strip() and isinstance(words, str) for name, words in value.items()):
        return dict(value)

    raise wrong(
        given, 'must be a list of names of roles, or what each is: ["app"] or { app = "LOGIN", reader = "NOLOGIN" }'
    )


def _server_settings(given: Given) -> dict[str, str]:
    settings = {}
    for name, value in table_of(given.value, given.place).items():
        if name in _OURS_TO_SAY:
            raise SettingsError(f"{given.place}, {name}: where the server is, and its data, is not to be set here.")
        if not _SETTING.fullmatch(name) or not isinstance(value, str | int | float):
            raise SettingsError(
                f'{given.place}, {name}: {shown(value)} is no setting\'s value. Allowed: e.g. {{ work_mem = "8MB", '
                'jit = false, wal_level = "logical" }'
            )
        settings[name] = ("on" if value else "off") if isinstance(value, bool) else str(value)
    return settings


def _container(given: Given) -> ContainerOptions:
    from asynctest_kit.settings.containers import container_options

    def duration(value: object, place: str) -> float:
        return parse.positive_duration(Given(value, given.source, place, given.folder))

    return container_options(given.value, place=given.place, folder=given.folder, duration=duration)
