"""``atk pact ...``: the program ``pact``, told what the settings know.

What it prints is passed on, the login starred out, and its exit code is the command's. Where a command takes paths,
they come before its options; every option is the program's own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from asynctest_kit.contracts.errors import PactError
from asynctest_kit.contracts.pact_files import pact_of, pair_of
from asynctest_kit.contracts.pact_program import BROKER, broker_url, pact_program, program_environment, secrets
from asynctest_kit.errors import AtkError
from asynctest_kit.settings import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from asynctest_kit.settings.pacts import PactSettings

__all__ = ["can_i_deploy", "publish", "verify"]

_USAGE_ERROR = 4

_OF_SERVICES = (
    "What is served here has the command's own environment, and no service: `atk up`, then for instance "
    "`DATABASE_URL=$(atk url postgres) atk pact verify --app ...`. In a test the fixture pact_verifier has all of them."
)

_BROKERS = ("-b", "--broker-base-url", "--broker-url")
_VERSIONS = ("-a", "--consumer-app-version", "-r", "--auto-detect-version-properties")
_PARTICIPANTS = ("-a", "--pacticipant")
_PROVIDERS = ("-n", "--provider-name")
_PORTS = ("-p", "--port")
_REPORTS = ("-j", "--json")
_SOURCES = ("-f", "--file", "-d", "--dir", "-u", "--url", *_BROKERS)


def publish(arguments: Sequence[str]) -> NoReturn:
    """Publish this project's pacts to the broker; exits with the program's code."""
    paths, options = _paths_first(arguments)
    try:
        settings = _settings()
        files = _own_pacts(paths or [settings.folder], settings.name)
        environment = _with_broker(settings, options)
        version = [] if _has(options, _VERSIONS) else ["--auto-detect-version-properties"]
        program = pact_program(os.environ)
    except AtkError as error:
        _fail(error)
    _exit([program, "broker", "publish", *map(str, files), *version, *options], environment)


def can_i_deploy(arguments: Sequence[str]) -> NoReturn:
    """Ask the broker whether a version may be deployed; exits with the program's code."""
    try:
        settings = _settings()
        environment = _with_broker(settings, arguments)
        who = []
        if not _has(arguments, _PARTICIPANTS):
            who = ["--pacticipant", _name(settings, "--pacticipant NAME")]
        program = pact_program(os.environ)
    except AtkError as error:
        _fail(error)
    _exit([program, "broker", "can-i-deploy", *who, *arguments], environment)


def verify(arguments: Sequence[str], app: str | None) -> NoReturn:
    """Verify a provider that runs at ``app``, or is served for it; exits with the program's code."""
    sources, options = _paths_first(arguments)
    try:
        settings = _settings()
        name = _value(options, _PROVIDERS) or _name(settings, "--provider-name NAME")
        if app is None and not _has(options, _PORTS):
            raise PactError(
                "Nobody says where the provider is: --app http://127.0.0.1:8000 where it runs, or --app shop.main:app "
                "to have it served. What needs states of the provider is a test with the fixture pact_verifier."
            )
        environment = program_environment(os.environ)
        where = _pacts(name, sources, options, settings, environment)
        program = pact_program(os.environ)
    except AtkError as error:
        _fail(error)
    named = [] if _has(options, _PROVIDERS) else [f"--provider-name={name}"]
    colour = [] if sys.stdout.isatty() else ["--no-colour"]
    command = [program, "verifier", *colour, *named, *where, *options]
    try:
        code = asyncio.run(_verify(command, environment, app))
    except AtkError as error:
        _fail(error)
    sys.exit(code)


async def _verify(command: Sequence[str], environment: Mapping[str, str], app: str | None) -> int:
    """The program's exit code; to it an empty folder, or a filter that nothing passes, is a success."""
    with tempfile.TemporaryDirectory(prefix="asynctest_kit-pact-") as folder:
        report = Path(_value(command, _REPORTS) or Path(folder, "report.json"))
        reported = [] if _has(command, _REPORTS) else [f"--json={report}"]
        async with _located(app) as location:
            code = await _run([*command, *reported, *location], environment)
        if code == 0 and not _has_played(report):
            raise PactError("Nothing was verified: no interaction was found. Look at the pacts and the filters.")
        return code


def _has_played(report: Path) -> bool:
    from asynctest_kit.contracts.verification import played

    return bool(played(json.loads(report.read_text(encoding="utf-8"))))


@asynccontextmanager
async def _located(app: str | None) -> AsyncIterator[list[str]]:
    if app is None:
        yield []
        return
    from asynctest_kit.contracts.verification import location
    from asynctest_kit.http.apps import opened_app, serve
    from asynctest_kit.http.lifespan import AppError

    if "://" not in app:
        sys.path.insert(0, str(Path.cwd()))
    async with AsyncExitStack() as stack:
        try:
            opened = await stack.enter_async_context(opened_app(app if "://" in app else serve(app)))
        except AppError as error:
            raise AppError(f"{error}\n{_OF_SERVICES}") from None
        yield location(opened.base_url)


def _settings() -> PactSettings:
    settings = load(paths=(), directory=Path.cwd(), environ=os.environ, options={}, is_complete=False)
    return replace(settings.pact, folder=settings.root / settings.pact.folder)


def _paths_first(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    for place, argument in enumerate(arguments):
        if argument.startswith("-"):
            return list(arguments[:place]), list(arguments[place:])
    return list(arguments), []


def _has(options: Sequence[str], names: Sequence[str]) -> bool:
    return any(option.partition("=")[0] in names for option in options)


def _value(options: Sequence[str], names: Sequence[str]) -> str:
    for place, option in enumerate(options):
        name, equals, value = option.partition("=")
        if name in names:
            return value if equals else "".join(options[place + 1 : place + 2])
    return ""


def _name(settings: PactSettings, option: str) -> str:
    if not settings.name:
        raise PactError(
            f"Nobody says what this project is called in its pacts: give {option}, or set name in "
            "[tool.asynctest_kit.pact]."
        )
    return settings.name


def _own_pacts(paths: Sequence[str | Path], consumer: str) -> list[Path]:
    """The pact files of this consumer: a folder may hold those of others, too."""
    found = []
    for path in map(Path, paths):
        if not path.exists():
            raise PactError(f"There is no pact file, and no folder of them, {path.absolute()}. The tests write them.")
        for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
            document = pact_of(file)
            if document is not None and (not path.is_dir() or not consumer or pair_of(document)[0] == consumer):
                found.append(file)
    if not found:
        whose = f" of {consumer}" if consumer else ""
        raise PactError(f"There is no pact{whose} in {', '.join(map(str, paths))}. Run the consumer's tests first.")
    return found


def _with_broker(settings: PactSettings, options: Sequence[str]) -> dict[str, str]:
    url = _value(options, _BROKERS) or broker_url(os.environ, settings.broker)
    if not url:
        raise PactError(
            f"Nobody says where the Pact Broker is: set {BROKER} in the environment, or broker in "
            "[tool.asynctest_kit.pact]. The login is told by PACT_BROKER_TOKEN, or PACT_BROKER_USERNAME and "
            "PACT_BROKER_PASSWORD."
        )
    return program_environment(os.environ, url)


def _pacts(
    provider: str,
    sources: Sequence[str],
    options: Sequence[str],
    settings: PactSettings,
    environment: dict[str, str],
) -> list[str]:
    """The options that say where the pacts are; with a broker its URL is in the environment."""
    if _has(options, _SOURCES) and not sources:
        return []
    url = broker_url(os.environ, settings.broker)
    if url and not sources:
        environment[BROKER] = url
        return []
    from asynctest_kit.contracts.verification import pact_options

    environment.pop(BROKER, None)
    return pact_options(provider, sources or [settings.folder])


def _exit(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    sys.exit(asyncio.run(_run(command, environment)))


async def _run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None  # noqa: S101  # they are pipes
    assert process.stderr is not None  # noqa: S101
    hidden = [secret.encode() for secret in secrets(environment)]
    try:
        said = await asyncio.gather(
            _pass_on(process.stdout, sys.stdout.buffer, hidden), _pass_on(process.stderr, sys.stderr.buffer, hidden)
        )
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code and any(said):
        print(  # noqa: T201  # the command's own message
            "atk: the broker refused the login: set PACT_BROKER_TOKEN, or PACT_BROKER_USERNAME and "
            "PACT_BROKER_PASSWORD, in the environment.",
            file=sys.stderr,
        )
    return code if code >= 0 else 128 - code


async def _pass_on(source: asyncio.StreamReader, target: BinaryIO, hidden: Sequence[bytes]) -> bool:
    """Pass on what comes, line by line; whether it tells of a login that was refused."""
    is_refused = False
    while line := await _line(source):
        is_refused = is_refused or b"401 Unauthorized" in line or b"403 Forbidden" in line
        for secret in hidden:
            line = line.replace(secret, b"***")
        target.write(line)
        target.flush()
    return is_refused


async def _line(source: asyncio.StreamReader) -> bytes:
    try:
        return await source.readuntil()
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError as long:
        return await source.readexactly(long.consumed)


def _fail(error: Exception) -> NoReturn:
    print(f"atk: {error}", file=sys.stderr)  # noqa: T201  # the command's own message
    sys.exit(_USAGE_ERROR)
