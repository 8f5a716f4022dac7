"""What a run can be asked to do, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from asynctest_kit.container_options import ContainerOptions, ImageSource
from asynctest_kit.settings.contracts import GraphQLSettings, OpenApiSettings
from asynctest_kit.settings.pacts import PactSettings
from asynctest_kit.wiring import KIND_OF_IMAGES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from asynctest_kit.containers import Port, Wait

__all__ = [
    "KINDS",
    "SEED_ENDINGS",
    "AuditIsolation",
    "Interference",
    "Isolation",
    "Migrations",
    "Override",
    "Preparation",
    "ProviderChoice",
    "ReportLength",
    "ServiceSettings",
    "Settings",
]

ProviderChoice = Literal["auto", "docker", "embedded", "external"]
AuditIsolation = Literal["", "suite", "each"]
ReportLength = Literal["full", "short", "none"]
Isolation = Literal["transaction", "database", "server"]
Interference = Literal["fail", "warn"]

#: The kinds of service that the catalogue can start. Each is also a service that needs no table in the settings.
KINDS: Final = ("mockserver", "postgres", "redis", "wiremock")

#: Those of them that every project has, unless it says otherwise.
_USUAL: Final = ("postgres", "redis")

#: How the files are called that can be loaded into a database.
SEED_ENDINGS: Final = (".csv", ".json", ".sql", ".yaml", ".yml")


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
    interference: Interference = "fail"
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
