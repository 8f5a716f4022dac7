"""The commands and their options. What each does is in the module of its name."""

from __future__ import annotations

import os
import sys
from typing import Any

import click
from click import UsageError

from asynctest_kit import __version__

__all__ = ["INTERRUPTED", "USAGE_ERROR", "UsageError", "atk"]

#: As pytest's.
USAGE_ERROR = 4

#: As a shell tells of a program that Ctrl-C has ended; `atk run` has pytest's own.
INTERRUPTED = 130


class _Commands(click.Group):
    """Tells of Ctrl-C as all of it is told, and not in click's word."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("atk: interrupted", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="atk")
def atk() -> None:
    """Run asyncio integration tests: at once, isolated, on real services, within a time budget."""


class _RunCommand(click.Command):
    """Takes ``-h`` for help only where it stands alone: in ``-kwith`` it is a letter of pytest's option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--help" if argument == "-h" else argument for argument in args])


@atk.command(
    cls=_RunCommand,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["--help"]},
    epilog="Every other option and argument is pytest's: -k, -m, -x, -v, --junitxml, node ids, ...",
)
@click.option("--provider", metavar="NAME", help="Who gives services: auto (default), docker, embedded or external.")
@click.option("--concurrency", metavar="N", help="Tests at once at most (default 64).")
@click.option(
    "--timeout", metavar="TIME", help="Time that one test may take, as 60s, 2m or 500ms (default 60s; 0: no limit)."
)
@click.option("--retries", metavar="N", help="Run a test that failed up to N times more, alone (default 0).")
@click.option("--repeat", metavar="N", help="Run every test N times.")
@click.option(
    "--shuffle", metavar="[SEED]", is_flag=False, flag_value="random", help="Run in a random order, or in that of SEED."
)
@click.option("--fail-slow", metavar="TIME", help="Fail a test that passes but takes longer.")
@click.option("--block-threshold", metavar="TIME", help="Report a test that blocks the event loop for longer (0.5s).")
@click.option("--interference", metavar="fail|warn", help="What a test does that fails beside others only.")
@click.option(
    "--isolation",
    metavar="transaction|database|server",
    help="What of PostgreSQL (server: of Redis, too) a test has for itself, where no mark says it (transaction).",
)
@click.option(
    "--audit-isolation",
    metavar="[each]",
    is_flag=False,
    flag_value="suite",
    help="Prove that services are as they were before; each: run the tests one by one and tell which changed what.",
)
@click.option("--explain-plan", is_flag=True, default=None, help="Show what would run beside what, and run nothing.")
@click.option("--budget", metavar="TIME", help="Time that the whole run should take (default 30s).")
@click.option(
    "--budget-strict", is_flag=True, default=None, help="Exit with 6 if all passed but the budget did not hold."
)
@click.option("--report", metavar="full|short|none", help="How much to tell of where the time went (full).")
@click.option("--report-json", metavar="FILE", help="Write the whole run as JSON.")
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED, metavar="[PATH]... [PYTEST OPTION]...")
def run(pytest_arguments: tuple[str, ...], **options: str | bool | None) -> None:
    """Run the tests under PATH concurrently and say where the time went.

    \b
    Exit codes: pytest's, and
      4  a setting or an option is wrong
      6  all passed, but the budget did not hold (with --budget-strict)
      7  all passed, but a service is not as it was before (with --audit-isolation)
    """  # noqa: D301  # the escape itself, by which click keeps lines
    from asynctest_kit.cli.run import run as run_tests

    pytest_arguments = (*_taken_for_a_seed(options), *_taken_for_a_way(options), *pytest_arguments)
    given = {name: _text(value) for name, value in options.items() if value is not None}
    run_tests(pytest_arguments, given)
    sys.exit(0)


def _taken_for_a_seed(options: dict[str, str | bool | None]) -> tuple[str, ...]:
    """Give back the path in ``--shuffle tests/``, where the seed was left out."""
    seed = options["shuffle"]
    if not isinstance(seed, str) or seed == "random" or seed.isdigit():
        return ()
    options["shuffle"] = "random"
    return (seed,)


def _taken_for_a_way(options: dict[str, str | bool | None]) -> tuple[str, ...]:
    """The same of ``--audit-isolation tests/``."""
    way = options["audit_isolation"]
    if not isinstance(way, str) or not os.path.exists(way.partition("::")[0]):  # noqa: PTH110  # pathlib loads slowly
        return ()
    options["audit_isolation"] = "suite"
    return (way,)


def _text(value: str | bool) -> str:
    return value if isinstance(value, str) else str(value).lower()


@atk.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--idle", metavar="TIME", default="30m", help="Remove them when nobody has used them for so long (30m).")
@click.option("--provider", metavar="NAME", help="Who gives them: auto (default), docker, embedded or external.")
def up(services: tuple[str, ...], idle: str, provider: str | None) -> None:
    """Start services (all that the settings know, if none is named) and keep them up for the runs that follow."""
    from asynctest_kit.cli import services as commands

    commands.up(services, idle=idle, provider=provider)


@atk.command()
def ps() -> None:
    """Show the services that are up for this project, and who uses them."""
    from asynctest_kit.cli import services

    services.ps()


@atk.command()
@click.argument("service")
def url(service: str) -> None:
    """Print the URL of a service that is up, password included: psql "$(atk url postgres)"."""
    from asynctest_kit.cli import services

    services.url(service)


@atk.command()
@click.argument("service")
@click.option("-n", "--lines", metavar="N", type=click.IntRange(1), default=100, help="So many at most (100).")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
def logs(service: str, lines: int, *, follow: bool) -> None:
    """Print the end of the log of a service that is up: what it wrote to stdout there, and to stderr there."""
    from asynctest_kit.cli import services

    services.logs(service, lines=lines, follow=follow)


@atk.command("exec", context_settings={"ignore_unknown_options": True})
@click.option("-u", "--user", metavar="NAME", help="As whom, instead of the service's user.")
@click.option("-w", "--directory", metavar="PATH", help="Where, instead of its working directory.")
@click.option("-e", "--env", "environ", metavar="NAME=VALUE", multiple=True, help="A variable beside its own.")
@click.argument("service")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- PROGRAM [ARGUMENT]...")
def execute(
    service: str, argv: tuple[str, ...], user: str | None, directory: str | None, environ: tuple[str, ...]
) -> None:
    """Run a program in the container of a service that is up; exits with its code."""
    from asynctest_kit.cli import services

    services.execute(service, argv, user=user, directory=directory, environ=environ)


@atk.command()
def down() -> None:
    """Remove this project's services, whoever uses them."""
    from asynctest_kit.cli import services

    services.down()


@atk.command()
@click.option("--snapshots", is_flag=True, help="Remove all snapshots too, not only those unused for 30 days.")
def gc(*, snapshots: bool) -> None:
    """Remove what runs left that were killed: containers, servers, directories. Nothing of a living run is touched."""
    from asynctest_kit.cli import services

    services.gc(snapshots=snapshots)


@atk.group()
def migrations() -> None:
    """Look after the migrations of this project's databases."""


@migrations.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--provider", metavar="NAME", help="Who gives them: auto (default), docker, embedded or external.")
def check(services: tuple[str, ...], provider: str | None) -> None:
    """Try migrations on empty databases: one head, up, down, models, data. Exits with 1 if one has a fault."""
    from asynctest_kit.cli.migrations import check as try_out

    try_out(services, provider)


_OF_THE_PROGRAM = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["--help"]}


@atk.group()
def pact() -> None:
    """Publish this project's pacts, verify those of its consumers, ask the broker: the program `pact`, with what the
    settings know. Its output is passed on, and so is its exit code.
    """  # noqa: D205  # as help


@pact.command(context_settings=_OF_THE_PROGRAM, epilog="Every option is that of `pact broker publish`.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[PATH]... [OPTION]...")
def publish(arguments: tuple[str, ...]) -> None:
    """Publish pact files, or those in folders (by default, in the settings' folder), as the version that git knows."""
    from asynctest_kit.cli.pact import publish as publish_pacts

    publish_pacts(arguments)


@pact.command("can-i-deploy", context_settings=_OF_THE_PROGRAM, epilog="As options of `pact broker can-i-deploy`.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTION]...")
def can_i_deploy(arguments: tuple[str, ...]) -> None:
    """Exit with 0 if a version gets on with what is deployed: --version 1.2 --to-environment production."""
    from asynctest_kit.cli.pact import can_i_deploy as ask

    ask(arguments)


@pact.command(context_settings=_OF_THE_PROGRAM, epilog="Every other option is that of `pact verifier`.")
@click.option("--app", metavar="URL|MODULE:NAME", help="Where the provider runs, or what is to be served.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[SOURCE]... [OPTION]...")
def verify(arguments: tuple[str, ...], app: str | None) -> None:
    """Verify a provider against pact files, folders of them, URLs; by default the broker's, or the settings' folder."""
    from asynctest_kit.cli.pact import verify as verify_provider

    verify_provider(arguments, app)


@atk.command(context_settings={"ignore_unknown_options": True})
@click.option("--schema", metavar="WHERE", help="The document: a file, a path in the app, or module:attribute.")
@click.option("--examples", metavar="N", type=click.IntRange(0), help="Random cases of each operation (50).")
@click.option("--seed", metavar="N|random", help="From which they are made (0).")
@click.option("--include", metavar="GLOB", multiple=True, help="Operations to try, such as 'GET /users*' (all).")
@click.option("--exclude", metavar="GLOB", multiple=True, help="Operations not to try.")
@click.option(
    "--phase",
    "phases",
    metavar="PHASE",
    type=click.Choice(["examples", "coverage", "fuzzing"]),
    multiple=True,
    help="The document's own examples, each bound once, or random cases (all three).",
)
@click.option("--without-check", "without", metavar="NAME", multiple=True, help="A check of schemathesis to leave out.")
@click.option("--concurrency", metavar="N", type=click.IntRange(1), help="Requests under way at once (16).")
@click.option("-H", "--header", "headers", metavar="'NAME: VALUE'", multiple=True, help="Sent with each request.")
@click.option("--provider", metavar="NAME", help="Who gives services: auto (default), docker, embedded or external.")
@click.argument("target", required=False, metavar="[URL | MODULE:APP | TESTS]")
def openapi(
    target: str | None,
    seed: str | None,
    headers: tuple[str, ...],
    provider: str | None,
    without: tuple[str, ...],
    **given: Any,
) -> None:
    """Send an app cases made from its OpenAPI document, all at once; tell which answers are not as documented.

    The app is at URL, is MODULE:APP, or is what the fixture app of the conftest in the folder TESTS (tests) gives, with
    its services. Exits with 1 if there is a fault, with 4 if an option is wrong.
    """
    from asynctest_kit.cli.imported_tests import run_ours, seed_of

    try:
        number = seed_of(seed)
    except ValueError:
        raise UsageError(f'--seed: "{seed}" is no number, and not "random".') from None
    chosen = {name: value for name, value in given.items() if value not in ((), None)}
    chosen |= {"without_checks": without} if without else {}
    chosen |= {} if number is None else {"seed": number}
    run_ours("asynctest_kit.openapi", target, headers, chosen, provider)


@atk.group()
def graphql() -> None:
    """Look after the GraphQL schema of this project's app."""


@graphql.command("check")
@click.option("--against", metavar="FILE|COMMIT", help="What is to be kept to, instead of the settings' snapshot.")
@click.option("--update", is_flag=True, help="Write the snapshot anew first, and so take what it says now for good.")
@click.option("--path", metavar="PATH", help="Where the app answers GraphQL (/graphql).")
@click.option("-H", "--header", "headers", metavar="'NAME: VALUE'", multiple=True, help="Sent with the request.")
@click.option("--provider", metavar="NAME", help="Who gives services: auto (default), docker, embedded or external.")
@click.argument("target", required=False, metavar="[URL | MODULE:APP | TESTS]")
def check_graphql(target: str | None, headers: tuple[str, ...], provider: str | None, **given: Any) -> None:
    """Name each change of the app's schema that breaks clients, or may surprise them; exits with 1 if one breaks.

    The app is at URL, is MODULE:APP, or is what the fixture app of the conftest in the folder TESTS (tests) gives, with
    its services.
    """
    from asynctest_kit.cli.imported_tests import run_ours

    run_ours("asynctest_kit.graphql", target, headers, given, provider)


@atk.command()
@click.option("--provider", metavar="NAME", help="Who is to give services: auto (default), docker, embedded, external.")
def doctor(provider: str | None) -> None:
    """Tell what would run here, what would not, and what mends it. Exits with 1 if a service can't be had."""
    from asynctest_kit.cli.doctor import doctor as examine

    examine(provider)
