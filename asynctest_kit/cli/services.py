"""``atk up``, ``ps``, ``url``, ``logs``, ``down``, ``gc``: the project's services, outside of a run."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from asynctest_kit.budget.wording import duration, several
from asynctest_kit.errors import AtkError, SettingsError
from asynctest_kit.settings import Settings, load, parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from asynctest_kit.provision.client import Client, Visit
    from asynctest_kit.provision.service import Endpoint, ServiceState

__all__ = ["down", "gc", "logs", "ps", "up", "url"]

#: Seconds after which a snapshot that nobody has used is no use.
_UNUSED = 30 * 86400.0

#: Seconds between two looks at services that start.
_LOOK = 0.1

_FAILED = 1
_USAGE_ERROR = 4


def up(names: Sequence[str], *, idle: str, provider: str | None) -> None:
    """Start services and leave them up; those that fail are told, the others stay."""
    with _told():
        settings = _settings({"provider": provider})
        seconds = _idle(idle)
        wanted = _known(names, settings) or tuple(sorted(settings.services))
        from asynctest_kit.provision.catalog import spec_for
        from asynctest_kit.provision.client import Client

        with closing(Client.connect(settings.root)) as client:
            client.keep(seconds)
            specs = [spec_for(name, settings) for name in wanted]
            starts = {spec.name: client.ensure(spec) for spec in specs}
            failed = _watch(client, starts)
        if failed < len(starts):
            _say(f"Kept until `atk down`, or until nobody has used them for {_span(seconds)}.")
    if failed:
        sys.exit(_FAILED)


def ps() -> None:
    """Show what is up."""
    with _told(), _visit() as visit:
        survey = None if visit is None else visit.survey()
        if survey is None or not survey.services:
            _say("Nothing is up for this project. `atk up` starts its services.")
            return
        now = time.monotonic()
        for service in survey.services:
            _say(_line(service, now))
        kept = f"kept for {_span(survey.idle)} after the last" if survey.idle else "gone with the last"
        _say(f"{several(survey.clients, 'client')}; {kept}")


def url(name: str) -> None:
    """Print where a service is, password included."""
    with _told(), _visit() as visit:
        states = () if visit is None else visit.survey().services
        ready = [state.endpoint for state in states if state.name == name and state.endpoint is not None]
        if not ready:
            raise SettingsError(f"The service {name!r} is not up. {_ups(states)}")
        _say(ready[-1].url)


def logs(name: str, *, lines: int) -> None:
    """Print the end of a service's log."""
    with _told(), _visit() as visit:
        if visit is None:
            raise SettingsError(f"The service {name!r} is not up. {_ups(())}")
        text = visit.quote(name, lines)
        if text:
            _say(text.rstrip("\n"))


def down() -> None:
    """Remove what is up, whoever uses it."""
    with _told(), _visit() as visit:
        if visit is None:
            _say("Nothing is up for this project.")
            return
        survey = visit.survey()
        visit.end()
        names = ", ".join(service.name for service in survey.services) or "no service"
        others = f", though {several(survey.clients, 'client')} used it" if survey.clients else ""
        _say(f"Removed: {names}{others}.")


def gc(*, snapshots: bool) -> None:
    """Remove what dead supervisors left: processes, directories, containers; and snapshots that are old, or all."""
    import asyncio

    from asynctest_kit.provision.providers.docker import Docker
    from asynctest_kit.provision.snapshots import prune
    from asynctest_kit.provision.sweep import Swept, sweep

    async def all_that_is_left() -> tuple[Swept, list[str], list[str]]:
        async with Docker(session="gc", project="gc") as docker:
            swept = await sweep(docker, always=True)
            pruned = await asyncio.to_thread(prune, 0.0 if snapshots else _UNUSED)
            return swept, pruned, await docker.remove_unknown_snapshots()

    with _told():
        swept, pruned, images = asyncio.run(all_that_is_left())
        for directory in swept.directories:
            _say(f"removed the directory {directory}, and the server in it")
        for container in swept.containers:
            _say(f"removed the container {container[:12]}")
        for snapshot in pruned:
            _say(f"removed the snapshot {snapshot}")
        for image in images:
            _say(f"removed the image {image}")
        if not any((swept.directories, swept.containers, pruned, images)):
            _say("Nothing was left behind by any run that has ended.")


def _watch(client: Client, starts: dict[str, Future[Endpoint]]) -> int:
    """Tell of each service when it is up or has failed; meanwhile, on a terminal, what the others do.

    Returns:
        How many have failed.
    """
    begun, told, failed = time.monotonic(), set[str](), 0
    is_terminal = sys.stdout.isatty()
    width = max(map(len, starts))
    while len(told) < len(starts):
        for name in [name for name, start in starts.items() if name not in told and start.done()]:
            told.add(name)
            if is_terminal:
                sys.stdout.write("\r\x1b[K")
            error = starts[name].exception()
            took = duration(time.monotonic() - begun)
            if error is None:
                endpoint = starts[name].result()
                _say(f"{name:{width}}  ready in {took}  {endpoint.safe_url}\n{'':{width}}  {endpoint.detail}")
            else:
                failed += 1
                _say(f"{name:{width}}  FAILED after {took}\n{error}")
        waiting = [name for name in starts if name not in told]
        if waiting:
            if is_terminal:
                doing = "; ".join(f"{name}: {_doing(client, name)}" for name in waiting)
                sys.stdout.write(f"\r\x1b[K{duration(time.monotonic() - begun)}  {doing}"[:100])
                sys.stdout.flush()
            wait([starts[name] for name in waiting], timeout=_LOOK, return_when=FIRST_COMPLETED)
    return failed


#: What a service does once a phase of its start is over.
_NEXT = {"resolve": "creating", "pull": "creating", "create": "booting", "boot": "waiting for its answer"}


def _doing(client: Client, name: str) -> str:
    done = [phase.phase for phase in client.phases if phase.service == name]
    return _NEXT.get(done[-1], done[-1]) if done else "looking for who can give it"


def _line(service: ServiceState, now: float) -> str:
    endpoint = service.endpoint
    if endpoint is None:
        return f"{service.name}  starting for {duration(now - service.asked)}"
    users = several(service.users, "user")
    return f"{service.name}  {endpoint.provider}  {endpoint.safe_url}  {users}\n  {endpoint.detail}"


def _ups(states: Sequence[ServiceState]) -> str:
    names = ", ".join(state.name for state in states if state.endpoint is not None)
    return f"Up: {names}." if names else "Nothing is up for this project; `atk up` starts its services."


def _settings(options: dict[str, str | None]) -> Settings:
    return load(paths=(), directory=Path.cwd(), environ=os.environ, options=options)


def _known(names: Sequence[str], settings: Settings) -> tuple[str, ...]:
    for name in names:
        if name not in settings.services:
            known = ", ".join(sorted(settings.services))
            raise SettingsError(f"No service is called {name!r}. There are: {known}.")
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
    from asynctest_kit.provision.client import Visit

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
