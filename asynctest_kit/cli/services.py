"""``atk up``, ``ps``, ``url``, ``logs``, ``exec``, ``down``, ``gc``: the project's services, outside of a run."""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing, contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from asynctest_kit.budget.wording import duration, several
from asynctest_kit.cli.commands import INTERRUPTED
from asynctest_kit.errors import AtkError, SettingsError
from asynctest_kit.settings import Settings, load, parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asynctest_kit.provision.client import Client
    from asynctest_kit.provision.service import Output, ServiceState
    from asynctest_kit.provision.visit import Visit

__all__ = ["down", "execute", "gc", "logs", "ps", "up", "url"]

#: Seconds after which a snapshot that nobody has used is no use.
_UNUSED = 30 * 86400.0

#: How Docker tells that there is no such program, in its place.
_NOT_RUN = b"OCI runtime exec failed"

_FAILED = 1
_USAGE_ERROR = 4


def up(names: Sequence[str], *, idle: str, provider: str | None) -> None:
    """Start services and leave them up; those that fail are told, the others stay."""
    with _told():
        settings = _settings({"provider": provider})
        seconds = _idle(idle)
        wanted = _known(names, settings) or tuple(sorted(settings.usual_services))
        from asynctest_kit.cli.warm.recipe import leave_a_process
        from asynctest_kit.provision.catalog import spec_for
        from asynctest_kit.provision.client import Client
        from asynctest_kit.report.live import Screen, Watch, terminal_size

        screen, is_kept, starting = Screen(sys.stdout, terminal_size(sys.stdout)), False, ""
        with closing(Client.connect(settings.root)) as client:
            watch = Watch(lambda: client, screen, tells_all=True)
            try:
                for spec in [spec_for(name, settings) for name in wanted]:
                    client.ensure(spec)
                is_starting = True
                while is_starting:
                    is_starting = watch.look_and_wait()
                    is_kept = is_kept or _keep(client, seconds)
            except KeyboardInterrupt:
                screen.show([])
                is_kept = is_kept or _keep(client, seconds)
                starting = ", ".join(one.name for one in client.asked if not one.future.done()) or "nothing"
        if starting:
            _tell_what_is_left(list(client.endpoints) if is_kept else [], starting, settings.root)
        if is_kept:
            leave_a_process(Path.cwd(), settings)
            _say(f"Kept until `atk down`, or until nobody has used them for {_span(seconds)}.")
    if watch.failed:
        sys.exit(_FAILED)


def _keep(client: Client, seconds: float) -> bool:
    """Have the services kept if there is one; whether there is."""
    if client.endpoints:
        client.keep(seconds)
        return True
    return False


def _tell_what_is_left(kept: Sequence[str], starting: str, root: Path) -> NoReturn:
    """Say what a start that was broken off leaves: all of it once something is up, for others may use that already."""
    from asynctest_kit.provision.visit import Visit

    if kept:
        told = f"kept: {', '.join(kept)}; still starting: {starting}. `atk down` removes them."
    elif (others := Visit.at(root)) is None:
        told = "nothing was up yet, and what had begun to start is removed."
    else:
        others.close()
        told = f"others keep the supervisor up, and it goes on with {starting}. `atk ps` shows it."
    print(f"atk: interrupted; {told}", file=sys.stderr)  # noqa: T201  # the command's own message
    sys.exit(INTERRUPTED)


def ps() -> None:
    """Show what is up."""
    with _told(), _visit() as visit:
        survey = None if visit is None else visit.survey()
        if survey is None or not (survey.services or survey.ended):
            _say("Nothing is up for this project. `atk up` starts its services.")
            return
        now = time.monotonic()
        width = max(map(len, (*survey.ended, *(service.name for service in survey.services))))
        for service in survey.services:
            _say(_line(service, now, width))
        for name, how in survey.ended.items():
            _say(f"{name:{width}}  {how}")
        kept = f"kept for {_span(survey.idle)} after the last" if survey.idle else "gone with the last"
        _say(f"{several(survey.clients, 'client')}; {kept}")


def url(name: str) -> None:
    """Print where a service is, password included."""
    with _told(), _visit() as visit:
        states = () if visit is None else visit.survey().services
        ready = [(state.is_own, state.endpoint) for state in states if state.name == name and state.endpoint]
        if not ready:
            _known([name], _settings({}), states)
            raise SettingsError(f"The service {name!r} is not up. {_ups(states)}")
        _, endpoint = max(ready, key=itemgetter(0))
        _say(endpoint.url)


def logs(name: str, *, lines: int, follow: bool) -> None:
    """Print the end of a service's log, its two streams to ours, and if told to what follows."""
    from asynctest_kit.provision.messages import Read

    with _told(), _visit() as visit, suppress(KeyboardInterrupt):
        _there(visit, name).reach(Read(0, name, lines, follow), _write)


def execute(name: str, argv: Sequence[str], *, user: str | None, directory: str | None, environ: Sequence[str]) -> None:
    """Run a program in a service; exit with its code."""
    from asynctest_kit.provision.messages import Run
    from asynctest_kit.provision.service import Program

    with _told(), _visit() as visit:
        environment = dict(map(_variable, environ))
        program = Program(argv=tuple(argv), environment=environment, user=user, directory=directory)
        complaints: list[Output] = []

        def take(output: Output) -> None:
            if output.data.startswith(_NOT_RUN) and f'exec: "{argv[0]}"'.encode() in output.data:
                complaints.append(output)
            else:
                _write(output)

        code = _there(visit, name).reach(Run(0, name, program), take)
        if complaints and code:
            print(f"atk: There is no program {argv[0]!r} in the service {name!r}.", file=sys.stderr)  # noqa: T201
    sys.exit(code)


def down() -> None:
    """Remove what is up, whoever uses it."""
    with _told(), _visit() as visit:
        if visit is None:
            _say("Nothing is up for this project.")
            return
        survey = visit.survey()
        visit.end()
        yours = [service.name for service in survey.services if _is_the_users(service)]
        names = ", ".join(service.name for service in survey.services if not _is_the_users(service)) or "no service"
        others = f", though {several(survey.clients, 'client')} used it" if survey.clients else ""
        _say(f"Removed: {names}{others}." + (f" Yours, and left as they are: {', '.join(yours)}." if yours else ""))


def gc(*, snapshots: bool) -> None:
    """Remove what dead supervisors left: processes, directories, containers; and snapshots that are old, or all."""
    import asyncio

    from asynctest_kit.provision.providers.docker import Docker
    from asynctest_kit.provision.snapshots import prune
    from asynctest_kit.provision.sweep import Swept, sweep

    async def all_that_is_left() -> tuple[Swept, list[str], list[str]]:
        async with Docker(session="gc", project="gc") as docker:
            swept = await sweep(docker, always=True)
            pruned = await asyncio.to_thread(prune, unused)
            return swept, pruned, await docker.remove_unused_images(unused)

    unused = 0.0 if snapshots else _UNUSED
    with _told():
        swept, pruned, images = asyncio.run(all_that_is_left())
        for directory in swept.directories:
            _say(f"removed the directory {directory}, and the server in it")
        for thing in swept.containers:
            _say(f"removed from Docker: {thing[:12] if thing.isalnum() else thing}")
        for snapshot in pruned:
            _say(f"removed the snapshot {snapshot}")
        for image in images:
            _say(f"removed the image {image}")
        if not any((swept.directories, swept.containers, pruned, images)):
            _say("Nothing was left behind by any run that has ended.")


def _is_the_users(service: ServiceState) -> bool:
    return service.endpoint is not None and service.endpoint.provider == "external"


def _line(service: ServiceState, now: float, width: int) -> str:
    endpoint, name = service.endpoint, f"{service.name:{width}}"
    if endpoint is None:
        return f"{name}  starting for {duration(now - service.asked)}"
    users = several(service.users, "user")
    return f"{name}  {endpoint.provider:8}  {endpoint.safe_url}  {users}\n{'':{width}}  {endpoint.detail}"


def _there(visit: Visit | None, name: str) -> Visit:
    """Who holds the services, ``name`` among those that may be up."""
    _known([name], _settings({}), () if visit is None else visit.survey().services)
    if visit is None:
        raise SettingsError(f"The service {name!r} is not up. {_ups(())}")
    return visit


def _write(output: Output) -> None:
    target = sys.stdout if output.stream == "stdout" else sys.stderr
    target.buffer.write(output.data)
    target.buffer.flush()


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise SettingsError(f"--env: {text!r} is no variable. Allowed: NAME=VALUE.")
    return name, value


def _ups(states: Sequence[ServiceState]) -> str:
    names = ", ".join(state.name for state in states if state.endpoint is not None)
    return f"Up: {names}." if names else "Nothing is up for this project; `atk up` starts its services."


def _settings(options: dict[str, str | None]) -> Settings:
    return load(paths=(), directory=Path.cwd(), environ=os.environ, options=options)


def _known(names: Sequence[str], settings: Settings, up: Sequence[ServiceState] = ()) -> tuple[str, ...]:
    """The names, each once, of services in the settings or among those that are ``up``."""
    known = {*settings.services, *(state.name for state in up)}
    for name in names:
        if name not in known:
            raise SettingsError(f"No service is called {name!r}. There are: {', '.join(sorted(known))}.")
    return tuple(dict.fromkeys(names))


def _idle(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise SettingsError(f"--idle: {error}.") from None
    if not seconds:
        raise SettingsError("--idle: services that are kept for no time are not kept. Allowed: more than 0 s.")
    return seconds


@contextmanager
def _visit() -> Iterator[Visit | None]:
    from asynctest_kit.provision.visit import Visit

    visit = Visit.at(_settings({}).root)
    if visit is None:
        yield None
        return
    with closing(visit):
        yield visit


@contextmanager
def _told() -> Iterator[None]:
    """Fail with an error's own words."""
    try:
        yield
    except SettingsError as error:
        _fail(_USAGE_ERROR, error)
    except AtkError as error:
        _fail(_FAILED, error)


def _fail(code: int, error: AtkError) -> NoReturn:
    print(f"atk: {error}", file=sys.stderr)  # noqa: T201  # the command's own message
    sys.exit(code)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  # the command's own answer


def _span(seconds: float) -> str:
    return duration(seconds).removesuffix(" 00 s")
