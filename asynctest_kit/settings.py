"""What a run was asked to do: pyproject.toml, then the environment, then the command line; the later overrules.

Every value is checked where it stands, also one that is overruled later, so a mistake in the file shows in every run.
An error says what was asked, where (file, table and key; variable; or flag), what is allowed and, for a misspelt
name, which one was probably meant. A variable that is set to nothing counts as unset.

A URL may hold a password: no error and no repr shows one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeVar, cast, get_args

from asynctest_kit.container_options import ContainerOptions, ImageSource, PullPolicy
from asynctest_kit.contract_settings import GraphQLSettings, OpenApiSettings, graphql_settings, openapi_settings
from asynctest_kit.errors import SettingsError
from asynctest_kit.pact_settings import PactSettings, pact_settings
from asynctest_kit.setting_errors import listing as _listing
from asynctest_kit.setting_errors import shown as _shown
from asynctest_kit.setting_errors import suggestion as _suggestion
from asynctest_kit.wiring import KIND_OF_IMAGES, check

if TYPE_CHECKING:
    from asynctest_kit.containers import Port, Wait

__all__ = [
    "KINDS",
    "SEED_ENDINGS",
    "Migrations",
    "Override",
    "Preparation",
    "ProviderChoice",
    "ServiceSettings",
    "Settings",
    "check_name",
    "has_services",
    "load",
    "no_unclaimed",
    "parse_duration",
    "with_services",
]

ProviderChoice = Literal["auto", "docker", "embedded", "external"]

#: The kinds of service that the catalogue can start. Each is also a service that needs no table in the settings.
KINDS: Final = ("mockserver", "postgres", "redis", "wiremock")

#: Those of them that every project has, unless it says otherwise.
_USUAL: Final = ("postgres", "redis")

#: How the files are called that can be loaded into a database.
SEED_ENDINGS: Final = (".csv", ".json", ".sql", ".yaml", ".yml")

#: How URLs of servers of a kind begin.
_SCHEMES: Final = {
    "mockserver": ("http", "https"),
    "postgres": ("postgresql", "postgres"),
    "redis": ("redis", "rediss"),
    "wiremock": ("http", "https"),
}

_TABLE: Final = "tool.asynctest_kit"
AuditIsolation = Literal["", "suite", "each"]
ReportLength = Literal["full", "short", "none"]
Isolation = Literal["transaction", "database", "server"]

_RUN_KEYS: Final = (
    "audit-isolation", "block-threshold", "budget", "budget-strict", "concurrency", "explain-plan", "fail-slow",
    "image-prefix", "interference", "isolation", "provider", "publish-openly", "pull", "pull-stall", "record", "repeat",
    "report", "report-json", "retries", "shuffle", "snapshots", "timeout",
    "warm-imports",
)  # fmt: skip
_TABLES: Final = ("graphql", "groups", "images", "openapi", "overrides", "pact", "services")
_OVERRIDE_KEYS: Final = ("exclusive", "group", "isolation", "retries", "tests", "timeout")
_INTERFERENCE: Final = ("fail", "warn")
_SERVICE_KEYS: Final = (
    "command", "container", "environment", "extensions", "image", "jar", "kind", "lease-header", "mappings",
    "migrations", "needs", "once", "ports", "provider", "roles", "scheme", "server", "settings", "startup-timeout",
    "url", "wait",
)  # fmt: skip
_SERVICE_VARIABLE_KEYS: Final = ("image", "jar", "provider", "startup-timeout", "url")
_NO_SETTINGS: Final = ("ATK_WARM",)  # is over before there are any
#: From this likeness on, two names are taken for one that is misspelt.
_NEARLY: Final = 0.75
_OF_A_SERVICE: Final = re.compile(r"ATK_[A-Z][A-Z0-9_]*_(IMAGE|JAR|PROVIDER|STARTUP_TIMEOUT|URL)")
_MIGRATION_TOOLS: Final = ("alembic", "command", "sql")
_MIGRATION_KEYS: Final = (*_MIGRATION_TOOLS, "downgrade-to", "round-trip", "seeds")
_SETTING: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_OURS_TO_SAY: Final = frozenset({
    "config_file", "data_directory", "external_pid_file", "hba_file", "listen_addresses", "port",
    "unix_socket_directories",
})  # fmt: skip
_MODULE: Final = re.compile(r"[A-Za-z_]\w*")
_SERVICE_NAME: Final = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_NAMES: Final = "Use lower-case letters and digits, parts joined by single - or _, a letter first."
_DURATION: Final = re.compile(
    r"(?=.)"
    r"(?:(?P<h>\d+(?:\.\d+)?)h)?"
    r"(?:(?P<m>\d+(?:\.\d+)?)m(?!s))?"
    r"(?:(?P<s>\d+(?:\.\d+)?)s)?"
    r"(?:(?P<ms>\d+(?:\.\d+)?)ms)?",
    re.ASCII,
)
_DURATIONS: Final = 'seconds as a number, or a time such as "30s", "2m", "1m30s" or "500ms"'
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_TRUTH: Final = {
    "1": True, "true": True, "yes": True, "on": True,
    "0": False, "false": False, "no": False, "off": False,
}  # fmt: skip

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrations:
    """How a PostgreSQL database gets its schema, by one of the first three, and its first rows.

    Attributes:
        alembic: Absolute path of an ``alembic.ini``.
        sql: Absolute path of a folder whose ``*.sql`` files are applied in name order, ``*.down.sql`` left out.
        command: Run in the settings' root with ``DATABASE_URL`` in its environment.
        seeds: Absolute paths of files, and folders of files, that are loaded afterwards: SQL, CSV, JSON, YAML.
        downgrade_to: The revision below which nothing has to be undone.
        round_trip: Absolute path of a folder whose ``REVISION.sql`` put rows in that later revisions must keep.
    """

    alembic: Path | None = None
    sql: Path | None = None
    command: tuple[str, ...] | None = None
    seeds: tuple[Path, ...] = ()
    downgrade_to: str | None = None
    round_trip: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What a PostgreSQL service has before its migrations.

    Attributes:
        extensions: Names of those that are made in its databases.
        roles: What each role of its server is, in the words of CREATE ROLE, by name.
        settings: Of the server if we start it, else of each database that we make there.
    """

    extensions: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def given(self) -> tuple[str, ...]:
        """Which of them there are."""
        every = {"extensions": self.extensions, "roles": self.roles, "settings": self.settings}
        return tuple(key for key, value in every.items() if value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """One service as the settings ask for it.

    Attributes:
        name: What the user calls it.
        kind: One of :data:`KINDS`, or ``container`` for any image; the name where nothing else is said.
        provider: Who should give it, or None for the run's choice. A service with a URL is ``external``.
        image: Container image, or None for the catalogue's default.
        url: Where an external service is, credentials included, or None.
        environment: Extra environment variables of the service.
        command: Extra arguments of the service's command.
        startup_timeout: Seconds from asked, or from when all that it needs is ready, to ready; None for what is usual.
        migrations: What is applied to its database; None unless the kind is ``postgres``.
        preparation: What its server and database have before that; only if the kind is ``postgres``.
        ports: The ports that a container exposes, by name; the first is the one that its URL leads to.
        wait: What a container waits for until it is ready; None for all of its ports.
        needs: Names of services that must be ready before it starts, besides those that its templates name.
        once: Whether a container is run to its end, once, and is ready when it ended with exit code 0.
        container: How its container is made, beyond what its kind says.
        jar: Absolute path of the server's jar, for what Java can run without a container.
        mappings: Absolute path of the file or folder with the stubs that all tests have.
        lease_header: The header by which tests are told apart; None for the usual one.
        server: The service on whose server it is a database, unless it has a URL; None for a server of its own.
    """

    name: str
    kind: str = KIND_OF_IMAGES
    provider: ProviderChoice | None = None
    image: str | None = None
    url: str | None = field(default=None, repr=False)
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    command: tuple[str, ...] = ()
    startup_timeout: float | None = None
    migrations: Migrations | None = None
    preparation: Preparation = field(default_factory=Preparation)
    ports: Mapping[str, Port] = field(default_factory=lambda: MappingProxyType({}))
    wait: Wait | None = None
    needs: tuple[str, ...] = ()
    once: bool = False
    container: ContainerOptions = field(default_factory=ContainerOptions, repr=False)
    jar: Path | None = None
    mappings: Path | None = None
    lease_header: str | None = None
    server: str | None = None

    @property
    def shares(self) -> str | None:
        """The service whose server it uses in this run; None if it has one of its own."""
        return None if self.url else self.server


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """How tests are treated whose node id matches a pattern; None for what is left as it is.

    Attributes:
        tests: A glob over node ids, ``*`` for anything: ``tests/legacy/*``, ``*test_mail.py::*``.
        exclusive: Whether they run alone, whatever their code says.
        group: The group that they belong to.
        isolation: How each is kept apart in PostgreSQL.
        retries: How often one that failed is run again.
        timeout: Seconds that each may take; 0 for no limit.
    """

    tests: str
    exclusive: bool | None = None
    group: str | None = None
    isolation: Isolation | None = None
    retries: int | None = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a run was asked to do.

    Attributes:
        root: Folder of the settings' pyproject.toml, or the working directory.
        budget: Seconds that a run may take.
        budget_strict: Whether a run over its budget fails.
        report: How much a run tells of where its time went.
        report_json: Where the JSON report is written, or None.
        provider: Who should give the services that don't say it themselves.
        concurrency: Most tests at once on the loop.
        timeout: Seconds that one test may take; 0 for no limit.
        retries: How often a test that failed is run again, alone.
        fail_slow: Seconds from which on a test that passed fails; 0 for no limit.
        block_threshold: Seconds for which a test may block the loop unreported; 0 reports none.
        interference: Whether a test that fails beside others and passes alone fails the run.
        repeat: How often each test runs.
        shuffle: The seed of a random order, or None for pytest's own.
        audit_isolation: Whether the state of services is compared: ``suite``, before and after; ``each``, after each
            test; or empty.
        explain_plan: Whether the plan is shown instead of carried out.
        isolation: How tests are kept apart in PostgreSQL that don't say it themselves.
        groups: How many tests of a group run at once; a group that isn't here has 1.
        overrides: The first that matches a test and sets a thing wins.
        images: Where container images come from.
        record: Whether HTTP exchanges that are replayed are made anew, by real calls.
        publish_openly: Whether an engine on another machine may open a service without a password to its network.
        snapshots: Whether services start from prepared data, and prepared data are kept for the next run.
        warm_imports: Packages that are imported before a run, too, by the process that waits for it.
        pact: What the project is called in its pacts, and where they are.
        openapi: What the app has promised over HTTP.
        graphql: What it has promised in GraphQL.
        services: By name; always holds the built-in ones.
        sources: Where each setting was set, by its key (``budget``, ``services.postgres.url``).
        unclaimed: Variables for services that aren't here, and may be declared in Python yet.
    """

    root: Path
    budget: float = 30.0
    budget_strict: bool = False
    report: ReportLength = "full"
    report_json: Path | None = None
    provider: ProviderChoice = "auto"
    concurrency: int = 64
    timeout: float = 60.0
    retries: int = 0
    fail_slow: float = 0.0
    block_threshold: float = 0.5
    interference: Literal["fail", "warn"] = "fail"
    repeat: int = 1
    shuffle: int | None = None
    audit_isolation: AuditIsolation = ""
    explain_plan: bool = False
    isolation: Isolation = "transaction"
    groups: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    overrides: tuple[Override, ...] = ()
    images: ImageSource = field(default_factory=ImageSource)
    record: bool = False
    publish_openly: bool = False
    snapshots: bool = True
    warm_imports: tuple[str, ...] = ()
    pact: PactSettings = field(default_factory=PactSettings)
    openapi: OpenApiSettings = field(default_factory=OpenApiSettings)
    graphql: GraphQLSettings = field(default_factory=GraphQLSettings)
    services: Mapping[str, ServiceSettings] = field(
        default_factory=lambda: MappingProxyType({kind: ServiceSettings(name=kind, kind=kind) for kind in KINDS})
    )
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    unclaimed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    @property
    def usual_services(self) -> tuple[str, ...]:
        """The names of those that are meant where none is named: all that are declared, and a few more.

        A variable that says where one could be had from declares none.
        """
        keys = (key for key, source in self.sources.items() if not source.startswith("environment"))
        said = {key.split(".")[1] for key in keys if key.startswith("services.")}
        return tuple(name for name in self.services if name in _USUAL or name in said or name not in KINDS)

    def on_server(self, name: str) -> tuple[str, ...]:
        """The services whose databases are on the server that a service has for itself: it, and those that share it."""
        return (name, *(other for other, service in self.services.items() if service.shares == name))


def load(
    *,
    paths: Sequence[str],
    directory: Path,
    environ: Mapping[str, str],
    options: Mapping[str, str | None],
    is_complete: bool = True,
) -> Settings:
    """Read the settings of a run.

    Args:
        paths: The run's arguments; what exists, node ids allowed, counts as pytest counts it. The settings file is
            the first pyproject.toml with a ``[tool.asynctest_kit]`` table from their common ancestor upwards.
        directory: The working directory; relative paths of the environment and the command line start here.
        environ: The process's environment; only ``ATK_*`` is read.
        options: What the command line gave, by key (``budget-strict`` or ``budget_strict``); None for not given.
        is_complete: Whether a variable for a service that isn't here is a mistake. Where services may be declared in
            Python, :func:`no_unclaimed` finds that out later.

    Raises:
        SettingsError: A key, variable or flag is unknown, or its value is not allowed.
    """
    directory = Path(os.path.abspath(directory))  # noqa: PTH100  # resolve() would follow links, pytest doesn't
    file, table = _find_table(paths, directory)
    root = file.parent if file else directory
    run: _Givens = {}
    services: dict[str, _Givens] = {kind: {} for kind in KINDS}
    groups: Mapping[str, int] = {}
    overrides: tuple[Override, ...] = ()
    substitutes: dict[str, str] = {}
    pact = PactSettings()
    openapi, graphql = OpenApiSettings(), GraphQLSettings()
    if file:
        _add_table(file, table, run, services)
        pact = pact_settings(table["pact"], f"{file}, [{_TABLE}.pact]") if "pact" in table else pact
        substitutes = _substitutes(file, table.get("images", {}))
        groups = _groups(file, table.get("groups", {}))
        overrides = _overrides(file, table.get("overrides", []))
        openapi = openapi_settings(table.get("openapi", {}), f"{file}, [{_TABLE}.openapi]")
        graphql = graphql_settings(table.get("graphql", {}), f"{file}, [{_TABLE}.graphql]", file.parent)
    unclaimed = _add_environment(environ, directory, run, services)
    _add_options(options, directory, run)
    sources = dict.fromkeys(_RUN_KEYS, "default") | {key: givens[-1].source for key, givens in run.items()}
    for name, givens in services.items():
        sources |= {f"services.{name}.{key}": values[-1].source for key, values in givens.items()}
    found = {name: _service(name, givens) for name, givens in services.items()}
    check(found, lambda name, key: _place(services[name], name, key))
    settings = Settings(
        root=root,
        budget=_last(run, "budget", _positive_duration, 30.0),
        budget_strict=_last(run, "budget-strict", _truth, default=False),
        report=_last(run, "report", _report, "full"),
        report_json=_last(run, "report-json", _path, None),
        provider=_last(run, "provider", _provider, "auto"),
        concurrency=_last(run, "concurrency", _count, 64),
        timeout=_last(run, "timeout", _duration, 60.0),
        retries=_last(run, "retries", _whole_number, 0),
        fail_slow=_last(run, "fail-slow", _duration, 0.0),
        block_threshold=_last(run, "block-threshold", _duration, 0.5),
        interference=_last(run, "interference", _interference, "fail"),
        repeat=_last(run, "repeat", _count, 1),
        shuffle=_last(run, "shuffle", _seed, None),
        audit_isolation=_last(run, "audit-isolation", _audit_isolation, ""),
        explain_plan=_last(run, "explain-plan", _truth, default=False),
        isolation=_last(run, "isolation", _isolation, "transaction"),
        groups=MappingProxyType(dict(groups)),
        overrides=overrides,
        images=ImageSource(
            prefix=_last(run, "image-prefix", _image_name, None),
            substitutes=substitutes,
            pull=_last(run, "pull", _pull, "missing"),
            stall=_last(run, "pull-stall", _positive_duration, 30.0),
        ),
        record=_last(run, "record", _truth, default=False),
        publish_openly=_last(run, "publish-openly", _truth, default=False),
        snapshots=_last(run, "snapshots", _truth, default=True),
        warm_imports=_last(run, "warm-imports", _modules, ()),
        pact=pact,
        openapi=openapi,
        graphql=graphql,
        services=MappingProxyType(found),
        sources=MappingProxyType(sources),
        unclaimed=MappingProxyType(unclaimed),
    )
    if is_complete:
        no_unclaimed(settings)
    return settings


def no_unclaimed(settings: Settings) -> None:
    """Raise SettingsError if a variable is for a service that nobody has declared.

    An image may be exported for another project's service: it counts only if its name is nearly that of one here.
    """
    for variable in settings.unclaimed:
        if _is_of_another_project(variable, settings.services):
            continue

        known = [_service_variable(name, key) for name in settings.services for key in _SERVICE_VARIABLE_KEYS]
        raise _unknown_variable(variable, [*(f"ATK_{_variable(key)}" for key in _RUN_KEYS), *known])


def _is_of_another_project(variable: str, services: Iterable[str]) -> bool:
    from difflib import get_close_matches

    name = variable.removeprefix("ATK_").removesuffix("_IMAGE")
    known = [_variable(service) for service in services]
    return variable.endswith("_IMAGE") and not get_close_matches(name, known, n=1, cutoff=_NEARLY)


def has_services(*, paths: Sequence[str], directory: Path) -> bool:
    """Whether the file that :func:`load` would read has a service in it; raises SettingsError if it is no TOML."""
    _, table = _find_table(paths, Path(os.path.abspath(directory)))  # noqa: PTH100  # as load() has it
    return bool(table.get("services"))


def check_name(name: str, place: str, *, taken: Collection[str] = KINDS) -> None:
    """Raise SettingsError if a service that is declared at ``place`` can't be called ``name``."""
    if name in taken:
        raise SettingsError(f'{place}: the service "{name}" is in the settings already. Rename one.')
    if not _SERVICE_NAME.fullmatch(name):
        raise SettingsError(f'{place}: "{name}" is no name for a service. {_NAMES}')


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
        variables = {key: _service_variable(service.name, key) for key in _SERVICE_VARIABLE_KEYS}
        found = {key: variable for key, variable in variables.items() if variable in settings.unclaimed}
        givens = {key: [_from_variable(variable, settings)] for key, variable in found.items()}
        known[service.name] = _overruled(service, givens, places[service.name], settings.root)
        for variable in found.values():
            unclaimed.pop(variable, None)

    def place_of(name: str, key: str) -> str:
        return f"{places[name]}, {key}" if name in places else settings.sources.get(f"services.{name}.{key}", name)

    check(known, place_of)
    return replace(settings, services=MappingProxyType(known), unclaimed=MappingProxyType(unclaimed))


def _from_variable(variable: str, settings: Settings) -> _Given:
    value = settings.unclaimed[variable]
    return _Given(value, f"environment {variable}", f"environment variable {variable}", settings.root)


def _overruled(service: ServiceSettings, givens: _Givens, place: str, folder: Path) -> ServiceSettings:
    if not givens:
        return service
    for key, value in (("provider", service.provider), ("url", service.url)):
        if value is not None:
            givens.setdefault(key, []).insert(0, _Given(value, place, f"{place}, {key}", folder))
    provider, url = _provider_and_url(givens)
    return replace(
        service,
        provider=provider,
        url=url,
        image=_last(givens, "image", _text, service.image),
        startup_timeout=_last(givens, "startup-timeout", _positive_duration, service.startup_timeout),
        jar=_last(givens, "jar", _path, service.jar),
    )


def parse_duration(text: str) -> float:
    """Return the seconds of ``"30s"``, ``"2m"``, ``"1m30s"``, ``"500ms"`` or a bare number.

    Raises:
        ValueError: The text is no duration; the message says what is allowed.
    """
    text = text.strip()
    match = _DURATION.fullmatch(text)
    seconds = inf
    if match:
        seconds = sum(float(value) * _SECONDS[unit] for unit, value in match.groupdict(default="0").items())
    elif re.fullmatch(r"\d+(\.\d+)?|\.\d+", text, re.ASCII):
        seconds = float(text)
    if seconds < inf:
        return seconds

    raise ValueError(f'"{text}" is not a duration. Allowed: {_DURATIONS}')


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as it was given: ``source`` for people who ask where, ``place`` for errors, ``folder`` for paths."""

    value: object
    source: str
    place: str
    folder: Path


_Givens = dict[str, list[_Given]]
_Parser = Callable[[_Given], _T]


def _find_table(paths: Sequence[str], directory: Path) -> tuple[Path | None, Mapping[str, object]]:
    """Return the settings file and its table; (None, {}) where no pyproject.toml upwards has one."""
    named = [os.path.abspath(directory / path.split("::", 1)[0]) for path in paths if path[:1] != "-"]  # noqa: PTH100
    start = Path(os.path.commonpath([path for path in named if os.path.exists(path)] or [str(directory)]))  # noqa: PTH110
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if not file.is_file():
            continue

        try:
            content = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise SettingsError(f"{file} can't be read as TOML: {error}") from error

        tool = content.get("tool", {})
        _no_misspelt_table(tool, file)
        if isinstance(tool, dict) and "asynctest_kit" in tool:
            return file, _table(tool["asynctest_kit"], f"{file}, [{_TABLE}]")

    return None, {}


def _no_misspelt_table(tool: object, file: Path) -> None:
    """Raise SettingsError if there is a table that would be ours but for its spelling, and would be ignored."""
    for name in tool if isinstance(tool, dict) else ():
        if name != "asynctest_kit" and re.sub(r"[-_.]", "", name).lower() == "asynctestkit":
            raise SettingsError(f"{file}, [tool.{name}]: nobody reads this table. Did you mean [{_TABLE}]?")


def _add_table(file: Path, table: Mapping[str, object], run: _Givens, services: dict[str, _Givens]) -> None:
    _add_keys(file, _TABLE, {key: value for key, value in table.items() if key not in _TABLES}, _RUN_KEYS, run)
    names = _table(table.get("services", {}), f"{file}, [{_TABLE}.services]")
    for name, value in names.items():
        header = f"{_TABLE}.services.{name}"
        place = f"{file}, [{header}]"
        if not _SERVICE_NAME.fullmatch(name):
            raise SettingsError(f'{place}: "{name}" is no name for a service. {_NAMES}')

        twin = next((known for known in services if known != name and _variable(known) == _variable(name)), None)
        if twin:
            raise SettingsError(
                f'{place}: the services "{twin}" and "{name}" would share the variables ATK_{_variable(name)}_*. '
                "Rename one."
            )

        content = _table(value, place)
        is_container = "image" in content and not content.keys().isdisjoint(("once", "ports", "wait"))
        if name not in KINDS and "kind" not in content and "image" in content and not is_container:
            raise SettingsError(
                f"{place}: it isn't said when a container of this image is ready. Add ports = [8080] or wait, or "
                f'once = true for a job that ends; or "kind", for a server that is known.{_suggestion(name, KINDS)}'
            )

        if name not in KINDS and "kind" not in content and not is_container:
            raise SettingsError(
                f'{place}: "{name}" is no kind of service, so the key "kind" is needed; or, for a container of any '
                f'image, "image" and one of "ports", "wait" and "once".{_suggestion(name, KINDS)}'
            )

        _add_keys(file, header, content, _SERVICE_KEYS, services.setdefault(name, {}))


def _add_keys(file: Path, header: str, table: Mapping[str, object], allowed: Collection[str], givens: _Givens) -> None:
    where = f"{file}, [{header}]" if "]" not in header else f"{file}, [[{header}"
    for key, value in table.items():
        if key not in allowed:
            names = (*allowed, *_TABLES) if header == _TABLE else allowed
            raise SettingsError(f'{where}: unknown key "{key}".{_suggestion(key, names)}')

        given = _Given(value, f"{file.name} [{header}]", f"{where}, {key}", file.parent)
        givens.setdefault(key, []).append(given)


def _groups(file: Path, value: object) -> Mapping[str, int]:
    header = f"{_TABLE}.groups"
    table = _table(value, f"{file}, [{header}]")
    return {
        name: _count(_Given(limit, "", f"{file}, [{header}], {name}", file.parent)) for name, limit in table.items()
    }


def _substitutes(file: Path, value: object) -> dict[str, str]:
    place = f"{file}, [{_TABLE}.images]"
    return {
        name: _image_name(_Given(substitute, "", f"{place}, {name}", file.parent))
        for name, substitute in _table(value, place).items()
    }


def _overrides(file: Path, value: object) -> tuple[Override, ...]:
    header = f"{_TABLE}.overrides"
    if not isinstance(value, list):
        raise SettingsError(f"{file}, [[{header}]]: must be an array of tables, each in [[{header}]].")

    return tuple(_override(file, f"{header}]], number {place}", entry) for place, entry in enumerate(value, 1))


def _override(file: Path, header: str, value: object) -> Override:
    givens: _Givens = {}
    _add_keys(file, header, _table(value, f"{file}, [[{header}"), _OVERRIDE_KEYS, givens)
    if "tests" not in givens:
        raise SettingsError(f'{file}, [[{header}: the key "tests" is needed, e.g. tests = "tests/legacy/*".')

    return Override(
        tests=_last(givens, "tests", _text, ""),
        exclusive=_last(givens, "exclusive", _truth, None),
        group=_last(givens, "group", _text, None),
        isolation=_last(givens, "isolation", _isolation, None),
        retries=_last(givens, "retries", _whole_number, None),
        timeout=_last(givens, "timeout", _duration, None),
    )


def _add_environment(
    environ: Mapping[str, str], directory: Path, run: _Givens, services: dict[str, _Givens]
) -> dict[str, str]:
    """Add what variables give; those that may be for services declared elsewhere are the result."""
    unclaimed = {}
    targets = {f"ATK_{_variable(key)}": (run, key) for key in _RUN_KEYS}
    for name, givens in services.items():
        targets |= {_service_variable(name, key): (givens, key) for key in _SERVICE_VARIABLE_KEYS}
    for variable, value in sorted(environ.items()):
        if not variable.startswith("ATK_") or not value or variable in _NO_SETTINGS:
            continue

        if variable not in targets and _OF_A_SERVICE.fullmatch(variable):
            unclaimed[variable] = value
            continue

        if variable not in targets:
            raise _unknown_variable(variable, targets)

        givens, key = targets[variable]
        given = _Given(value, f"environment {variable}", f"environment variable {variable}", directory)
        givens.setdefault(key, []).append(given)
    return unclaimed


def _unknown_variable(variable: str, known: Collection[str]) -> SettingsError:
    return SettingsError(f"unknown environment variable {variable}.{_suggestion(variable, known)}")


def _add_options(options: Mapping[str, str | None], directory: Path, run: _Givens) -> None:
    for option, value in options.items():
        key = option.replace("_", "-")
        flag = f"--{key}"
        if key not in _RUN_KEYS:
            raise SettingsError(f"unknown flag {flag}.{_suggestion(flag, [f'--{key}' for key in _RUN_KEYS])}")

        if value is not None:
            run.setdefault(key, []).append(_Given(value, flag, f"flag {flag}", directory))


def _place(givens: _Givens, name: str, key: str) -> str:
    """Where a service's key was given; if it wasn't, the service."""
    given = givens.get(key) or [given for values in givens.values() for given in values]
    if not given:
        return f'service "{name}"'
    return given[-1].place if key in givens else given[-1].place.rpartition(", ")[0]


def _service(name: str, givens: _Givens) -> ServiceSettings:
    kind = _last(givens, "kind", _kind, name if name in KINDS else KIND_OF_IMAGES)
    provider, url = _provider_and_url(givens)
    for given in givens.get("url", ()):
        _check_scheme(given, kind)
    return ServiceSettings(
        name=name,
        kind=kind,
        provider=provider,
        image=_last(givens, "image", _text, None),
        url=url,
        environment=MappingProxyType(_last(givens, "environment", _environment, {})),
        command=_last(givens, "command", _command, ()),
        startup_timeout=_last(givens, "startup-timeout", _positive_duration, None),
        migrations=_last(givens, "migrations", _migrations, None),
        preparation=Preparation(
            extensions=_last(givens, "extensions", _extensions, ()),
            roles=MappingProxyType(_last(givens, "roles", _roles, {})),
            settings=MappingProxyType(_last(givens, "settings", _server_settings, {})),
        ),
        ports=MappingProxyType(_ports(givens)),
        wait=_last(givens, "wait", _wait, None),
        needs=_last(givens, "needs", _names, ()),
        once=_last(givens, "once", _truth, default=False),
        container=_last(givens, "container", _container, ContainerOptions()),
        jar=_last(givens, "jar", _path, None),
        mappings=_last(givens, "mappings", _existing, None),
        lease_header=_last(givens, "lease-header", _header, None),
        server=_last(givens, "server", _text, None),
    )


def _ports(givens: _Givens) -> dict[str, Port]:
    if not givens.keys() & {"ports", "scheme"}:
        return {}
    if "ports" not in givens:
        raise _error(givens["scheme"][-1], 'is the scheme of ports, so the key "ports" is needed')
    import msgspec

    from asynctest_kit.containers import Port

    given = givens["ports"][-1]
    scheme = _last(givens, "scheme", _text, "tcp")
    value = given.value
    if isinstance(value, list):
        value = {str(number): number for number in value}
    ports = {}
    for name, port in _table(value, given.place).items():
        table = port if isinstance(port, dict) else {"port": port}
        if not re.fullmatch(r"[a-z0-9][\w-]*", name) or not table.keys() <= {"port", "scheme"}:
            raise _error(given, _PORTS)
        number = table.get("port")
        if not isinstance(number, int):
            raise SettingsError(f"{given.place}, {name}: {_shown(number)} is no port, but a number is: 8080.")
        try:
            ports[name] = msgspec.convert({"scheme": scheme} | table, Port)
        except msgspec.ValidationError as error:
            raise SettingsError(f"{given.place}, {name}: {_lower(error)}. Ports {_PORTS}.") from None
    if not ports:
        raise _error(given, _PORTS)
    return ports


def _lower(error: Exception) -> str:
    text = str(error).partition(" - at ")[0]
    return text[:1].lower() + text[1:]


_PORTS: Final = (
    'must be ports such as [8080], { http = 8080, grpc = 9090 } or { admin = { port = 9000, scheme = "https" } }'
)


def _wait(given: _Given) -> Wait:
    from asynctest_kit.containers import parsed_wait

    try:
        return parsed_wait(given.value)
    except ValueError as error:
        raise SettingsError(f"{given.place}: {error}.") from None


def _names(given: _Given) -> tuple[str, ...]:
    value = given.value
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)

    raise _error(given, 'must be a list of names of services, e.g. ["postgres"]')


def _provider_and_url(givens: _Givens) -> tuple[ProviderChoice | None, str | None]:
    """Return both, made consistent: the file's URL gives way to the environment's provider and the other way round."""
    provider = _last(givens, "provider", _provider, None)
    url = _last(givens, "url", _url, None)
    if url is None and provider == "external":
        raise _error(givens["provider"][-1], 'the provider "external" needs the key "url" or its variable')

    if url is None or provider in (None, "auto", "external"):
        return ("external" if url else provider), url

    from_variable = {key: givens[key][-1].source.startswith("environment") for key in ("provider", "url")}
    if from_variable["provider"] == from_variable["url"]:
        raise _error(
            givens["provider"][-1],
            f'"{provider}" contradicts the URL that is set beside it. Remove one: a service with a URL is external',
        )

    return ("external", url) if from_variable["url"] else (provider, None)


def _last(givens: _Givens, key: str, parse: _Parser[_T], default: _T) -> _T:
    """Parse all that was given for ``key``, so that no bad value hides, and return the last."""
    value = default
    for given in givens.get(key, ()):
        value = parse(given)
    return value


def _duration(given: _Given) -> float:
    value = given.value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < inf:
        return float(value)

    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return parse_duration(value)

    raise _error(given, f"is not a duration. Allowed: {_DURATIONS}")


def _positive_duration(given: _Given) -> float:
    seconds = _duration(given)
    if seconds <= 0:
        raise _error(given, "must be longer than 0 s")

    return seconds


def _truth(given: _Given) -> bool:
    value = given.value
    if isinstance(value, str) and value.lower() in _TRUTH:
        return _TRUTH[value.lower()]

    if isinstance(value, bool):
        return value

    raise _error(given, "is neither true nor false. Allowed: true, false")


def _count(given: _Given) -> int:
    value = given.value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value

    raise _error(given, "is not a count. Allowed: a whole number from 1")


def _whole_number(given: _Given) -> int:
    value = given.value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value

    raise _error(given, "is not a number of times. Allowed: a whole number from 0")


def _seed(given: _Given) -> int | None:
    value = given.value
    if value is False:
        return None
    if value is True or (isinstance(value, str) and value.lower() in {"random", "true"}):
        return int.from_bytes(os.urandom(4))
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value):
        value = int(value)
    if isinstance(value, int) and value >= 0:
        return value

    raise _error(given, 'is not a seed. Allowed: a whole number from 0, or "random"')


def _modules(given: _Given) -> tuple[str, ...]:
    value = given.value.replace(",", " ").split() if isinstance(given.value, str) else given.value
    if isinstance(value, list) and all(isinstance(name, str) and _MODULE.fullmatch(name) for name in value):
        return tuple(value)

    raise _error(given, 'must be a list of names that are imported, e.g. ["fastapi", "pydantic"]')


def _audit_isolation(given: _Given) -> AuditIsolation:
    if given.value in {True, "true"}:
        return "suite"
    if given.value in {False, "false", ""}:
        return ""
    return cast("AuditIsolation", _one_of(given, ("suite", "each")))


def _interference(given: _Given) -> Literal["fail", "warn"]:
    return cast('Literal["fail", "warn"]', _one_of(given, _INTERFERENCE))


def _isolation(given: _Given) -> Isolation:
    return cast("Isolation", _one_of(given, get_args(Isolation)))


def _report(given: _Given) -> ReportLength:
    return cast("ReportLength", _one_of(given, get_args(ReportLength)))


def _provider(given: _Given) -> ProviderChoice:
    return cast("ProviderChoice", _one_of(given, get_args(ProviderChoice)))


def _kind(given: _Given) -> str:
    return _one_of(given, (*KINDS, KIND_OF_IMAGES))


def _one_of(given: _Given, allowed: Collection[str]) -> str:
    if isinstance(given.value, str) and given.value in allowed:
        return given.value

    raise _error(given, f"is unknown.{_suggestion(str(given.value), allowed).removesuffix('.')}")


def _text(given: _Given) -> str:
    if isinstance(given.value, str) and given.value.strip():
        return given.value

    raise _error(given, "must be a text that is not empty")


def _path(given: _Given) -> Path:
    return Path(os.path.abspath(given.folder / _text(given)))  # noqa: PTH100  # keeps links, as everywhere here


def _url(given: _Given) -> str:
    if isinstance(given.value, str) and re.match(r"[a-z][a-z0-9+.-]*://[^/]", given.value):
        return given.value

    raise SettingsError(f'{given.place} is not a URL. Allowed: e.g. "postgresql://user:password@host:5432/database"')


def _check_scheme(given: _Given, kind: str) -> None:
    """Raise SettingsError if a URL, which is not shown for it may hold a password, leads to no server of that kind."""
    scheme, schemes = _url(given).partition(":")[0], _SCHEMES.get(kind, ())
    if schemes and scheme not in schemes:
        allowed = _listing([f"{scheme}://" for scheme in schemes])
        raise SettingsError(f'{given.place}: "{scheme}://" leads to no server of kind "{kind}". Allowed: {allowed}.')


def _environment(given: _Given) -> dict[str, str]:
    table = _table(given.value, given.place)
    for name, value in table.items():
        if not isinstance(value, str):
            raise SettingsError(f"{given.place}, {name}: must be a text; put it in quotes")

    return cast("dict[str, str]", dict(table))


def _command(given: _Given) -> tuple[str, ...]:
    value = given.value
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return tuple(value)

    if isinstance(value, str) and value.strip():
        raise _error(given, f"is one text. Allowed: a list of words, e.g. {json.dumps(value.split())}")

    raise _error(given, 'must be a list of words, e.g. ["python", "migrate.py"]')


def _migrations(given: _Given) -> Migrations:
    table = _table(given.value, given.place)
    for key in table:
        if key not in _MIGRATION_KEYS:
            raise SettingsError(f'{given.place}: unknown key "{key}".{_suggestion(key, _MIGRATION_KEYS)}')

    tools = [key for key in _MIGRATION_TOOLS if key in table]
    if len(tools) > 1 or not (tools or "seeds" in table):
        raise SettingsError(
            f"{given.place}: exactly one of {_listing(_MIGRATION_TOOLS)} is needed, {_listing(tools) or 'none'} given. "
            'E.g. migrations = { alembic = "alembic.ini" }'
        )

    def inner(key: str) -> _Given:
        return _Given(table[key], given.source, f"{given.place}.{key}", given.folder)

    return Migrations(
        alembic=_existing_file(inner("alembic")) if "alembic" in table else None,
        sql=_existing_folder(inner("sql")) if "sql" in table else None,
        command=_command(inner("command")) if "command" in table else None,
        seeds=_seeds(inner("seeds")) if "seeds" in table else (),
        downgrade_to=_text(inner("downgrade-to")) if "downgrade-to" in table else None,
        round_trip=_existing_folder(inner("round-trip")) if "round-trip" in table else None,
    )


def _extensions(given: _Given) -> tuple[str, ...]:
    value = given.value
    if isinstance(value, list) and all(isinstance(name, str) and name.strip() for name in value):
        return tuple(value)

    raise _error(given, 'must be a list of names of extensions, e.g. ["pgcrypto", "citext"]')


def _roles(given: _Given) -> dict[str, str]:
    value = given.value
    if isinstance(value, list):
        value = dict.fromkeys(value, "") if all(isinstance(name, str) for name in value) else None
    if isinstance(value, dict) and all(name.strip() and isinstance(words, str) for name, words in value.items()):
        return dict(value)

    raise _error(
        given, 'must be a list of names of roles, or what each is: ["app"] or { app = "LOGIN", reader = "NOLOGIN" }'
    )


def _server_settings(given: _Given) -> dict[str, str]:
    settings = {}
    for name, value in _table(given.value, given.place).items():
        if name in _OURS_TO_SAY:
            raise SettingsError(f"{given.place}, {name}: where the server is, and its data, is not to be set here.")
        if not _SETTING.fullmatch(name) or not isinstance(value, str | int | float):
            raise SettingsError(
                f'{given.place}, {name}: {_shown(value)} is no setting\'s value. Allowed: e.g. {{ work_mem = "8MB", '
                'jit = false, wal_level = "logical" }'
            )
        settings[name] = ("on" if value else "off") if isinstance(value, bool) else str(value)
    return settings


def _header(given: _Given) -> str:
    if isinstance(given.value, str) and re.fullmatch(r"[A-Za-z0-9-]+", given.value):
        return given.value

    raise _error(given, 'is no name of a header, e.g. "X-Request-Id"')


def _existing(given: _Given) -> Path:
    path = _path(given)
    if not path.exists():
        raise _error(given, f"is no file and no folder: {path} was looked for")

    return path


def _existing_file(given: _Given) -> Path:
    path = _path(given)
    if not path.is_file():
        raise _error(given, f"is not a file: {path} was looked for")

    return path


def _existing_folder(given: _Given) -> Path:
    path = _path(given)
    if not path.is_dir():
        raise _error(given, f"is not a folder: {path} was looked for")

    return path


def _seeds(given: _Given) -> tuple[Path, ...]:
    values = given.value if isinstance(given.value, list) else [given.value]
    paths = tuple(_path(_Given(value, given.source, given.place, given.folder)) for value in values)
    for path in paths:
        if not path.is_dir() and not (path.is_file() and path.suffix in SEED_ENDINGS):
            raise _error(given, f"names no folder and no {_listing(SEED_ENDINGS)} file: {path} was looked for")

    if not paths:
        raise _error(given, 'is empty. Allowed: a file or folder, or a list of them, e.g. ["seeds"]')

    return paths


def _container(given: _Given) -> ContainerOptions:
    from asynctest_kit.container_settings import container_options

    def duration(value: object, place: str) -> float:
        return _positive_duration(_Given(value, given.source, place, given.folder))

    return container_options(given.value, place=given.place, folder=given.folder, duration=duration)


def _pull(given: _Given) -> PullPolicy:
    from asynctest_kit.container_settings import pull_policy

    return pull_policy(given.value, given.place)


def _image_name(given: _Given) -> str:
    from asynctest_kit.container_settings import image_name

    return image_name(given.value, given.place)


def _table(value: object, place: str) -> Mapping[str, object]:
    if isinstance(value, dict):
        return value

    raise SettingsError(f"{place}: must be a table of keys, not a value of type {type(value).__name__}.")


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")


def _service_variable(name: str, key: str) -> str:
    return f"ATK_{_variable(name)}_{_variable(key)}"


def _error(given: _Given, what: str) -> SettingsError:
    return SettingsError(f"{given.place}: {_shown(given.value)} {what}.")
