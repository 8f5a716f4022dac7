"""A container's options in the words of Docker's API, and what they need beside the container.

Named volumes and networks belong to one supervisor's run: made for the first service that wants them, shared by all,
removed with the last. They carry its labels, by which they are found if it is killed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision import copied_files
from asynctest_kit.provision.providers.engine import EngineError
from asynctest_kit.provision.waiting import to_its_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from asynctest_kit.container_options import ContainerOptions
    from asynctest_kit.provision.providers import Order
    from asynctest_kit.provision.providers.engine import Engine

__all__ = ["CommonParts", "check", "is_mounted", "is_under", "with_options"]

_log = logging.getLogger(__name__)

_BILLION = 1_000_000_000


def check(order: Order, engine: Engine) -> None:
    """See that the options make sense for the kind and the engine.

    Raises:
        ProvisionError: One does not.
    """
    options, plan = order.spec.container, order.kind.container(order.spec, order.login)
    problem = ""
    if options.init_scripts and plan.scripts is None:
        problem = f"init-scripts: {order.kind.title} runs none; `files` and `entrypoint` may do instead"
    in_memory = {*options.tmpfs, *plan.memory}
    if hidden := [file.target for file in options.files if is_under(file.target, in_memory)]:
        problem = f"files: {hidden[0]} would be hidden by what is kept in memory there"
    if not engine.location.is_local:
        problem = _problem_elsewhere(order, engine) or problem
    if problem:
        raise ProvisionError(
            f"The container of the service {order.spec.name!r} can't be made as it is asked for, {problem}."
        )


def _problem_elsewhere(order: Order, engine: Engine) -> str:
    """What can't be, or should not, with an engine on another machine."""
    spec = order.spec
    if binds := [volume for volume in spec.container.volumes if volume.is_bind]:
        return f"volumes: {binds[0].source} is on this machine, and the engine at {engine.location} is not: copy files"
    if (spec.ports or order.kind.port) and not order.login.password and not spec.publish_openly:
        return (
            f"ports: the engine at {engine.location} is on another machine and would open them to its whole network, "
            "and no password is known to guard them. If that network may reach the service, "
            "set publish-openly = true (ATK_PUBLISH_OPENLY=1)"
        )
    return ""


def is_under(path: str, places: Iterable[str]) -> bool:
    """Whether a path is one of these places, or inside of one."""
    here = PurePosixPath(path)
    return any(here == PurePosixPath(place) or PurePosixPath(place) in here.parents for place in places)


def is_mounted(options: ContainerOptions, path: str) -> bool:
    """Whether what is at ``path`` is none of the image's, for the user has mounted something there."""
    return is_under(path, (*(volume.target for volume in options.volumes), *options.tmpfs))


def with_options(
    config: Mapping[str, Any], options: ContainerOptions, volume_name: Callable[[str], str]
) -> dict[str, Any]:
    """The container's configuration with the options in it; what is not set is left as it is."""
    own = {"User": options.user, "WorkingDir": options.working_dir, "Entrypoint": options.entrypoint}
    host = dict(config["HostConfig"])
    limits = {
        "Memory": options.memory,
        "NanoCpus": None if options.cpus is None else round(options.cpus * _BILLION),
        "PidsLimit": options.pids,
        "ShmSize": options.shm_size,
        "Ulimits": [{"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard} for limit in options.ulimits],
        "ExtraHosts": [
            *host.get("ExtraHosts", ()),
            *(f"{name}:{address}" for name, address in options.extra_hosts.items()),
        ],
        "Mounts": [
            *host.get("Mounts", ()),
            *(
                {
                    "Type": "bind" if volume.is_bind else "volume",
                    "Source": volume.source if volume.is_bind else volume_name(volume.source),
                    "Target": volume.target,
                    "ReadOnly": volume.is_read_only,
                }
                for volume in options.volumes
            ),
        ],
    }
    host |= {name: value for name, value in limits.items() if value}
    kept = {path: how for path, how in host.get("Tmpfs", {}).items() if not is_mounted(options, path)}
    host["Tmpfs"] = kept | {path: how or "rw" for path, how in options.tmpfs.items()}
    return {**config, "HostConfig": host} | {name: value for name, value in own.items() if value}


class _Parts(NamedTuple):
    """One sort of what is shared, and the engine's requests for it."""

    kind: Literal["volume", "network"]
    create: Callable[[str, Mapping[str, str]], Awaitable[None]]
    remove: Callable[[str], Awaitable[None]]


class CommonParts:
    """The named volumes and the networks of one supervisor's run.

    Args:
        session: Which run.
        labels: What they are labelled with.
    """

    def __init__(self, session: str, labels: Mapping[str, str]) -> None:
        self._session = session
        self._labels = labels
        self._users: Counter[tuple[str, str]] = Counter()
        self._there: set[tuple[str, str]] = set()
        self._mutex = asyncio.Lock()

    def name(self, name: str) -> str:
        """What the engine calls that volume or network."""
        return f"asynctest_kit-{self._session}-{name}"

    @asynccontextmanager
    async def held(self, engine: Engine, order: Order) -> AsyncIterator[None]:
        """Have those there that an order wants, while the block runs.

        Raises:
            ProvisionError: On entry: the engine refuses.
        """
        options = order.spec.container
        async with AsyncExitStack() as stack:
            try:
                volumes = _Parts("volume", engine.create_volume, engine.remove_volume)
                for name in dict.fromkeys(volume.source for volume in options.volumes if not volume.is_bind):
                    await stack.enter_async_context(self._part(name, volumes))
                networks = _Parts("network", engine.create_network, engine.remove_network)
                for name in dict.fromkeys(options.networks):
                    await stack.enter_async_context(self._part(name, networks))
            except EngineError as error:
                raise ProvisionError(
                    f"Docker could not make a volume or network for the service {order.spec.name!r}: {error}"
                ) from None
            yield

    async def fill(self, engine: Engine, container: str, order: Order, *, has_data: bool) -> None:
        """Before the container starts: copy files in, and have it join its networks."""
        options, plan = order.spec.container, order.kind.container(order.spec, order.login)
        files = list(options.files)
        if plan.scripts is not None and not has_data:
            files += copied_files.placed(options.init_scripts, plan.scripts)
        if files:
            try:
                archive = await asyncio.to_thread(copied_files.archive, files)
            except OSError as error:
                raise EngineError(f"a file for it can't be read: {error}") from None
            await engine.unpack(container, archive)
        for network in options.networks:
            await engine.connect(self.name(network), container, (order.spec.name, *options.aliases))

    @asynccontextmanager
    async def _part(self, name: str, parts: _Parts) -> AsyncIterator[None]:
        full = self.name(name)
        self._users[parts.kind, full] += 1
        try:
            async with self._mutex:
                if (parts.kind, full) not in self._there:
                    self._there.add((parts.kind, full))
                    await to_its_end(parts.create(full, self._labels))
            yield
        finally:
            self._users[parts.kind, full] -= 1
            await to_its_end(self._leave(full, parts))

    async def _leave(self, full: str, parts: _Parts) -> None:
        async with self._mutex:
            if self._users[parts.kind, full] or (parts.kind, full) not in self._there:
                return
            self._there.discard((parts.kind, full))
            try:
                await parts.remove(full)
            except EngineError as error:
                _log.error("the %s %s could not be removed: %s", parts.kind, full, error)
