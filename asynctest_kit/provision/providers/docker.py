"""Containers on a local Docker engine.

A container is known to us by the name that we drew before it was asked for, never by the answer that says it was
made: so it can be removed whatever happened in between. Creating it is the one request that is not cut short by a
cancellation, since a request that was sent may be carried out after its sender has gone; every other await may be
cancelled, and the removal in the ``finally`` runs to its end. If the supervisor is killed, its containers end with it
(see :mod:`asynctest_kit.provision.providers.lifeline`), and what is left all the same is found by its labels.

How a server in a container is reached is told in :mod:`asynctest_kit.provision.providers.docker_reach`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import time
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import msgspec

from asynctest_kit.containers import Port
from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.catalog import kind_of
from asynctest_kit.provision.identity import Identity, proven_dead, this_process
from asynctest_kit.provision.providers import (
    TAIL,
    Order,
    Refusal,
    Running,
    await_ready,
    greeting,
    lifeline,
    rekeyed,
    start_error,
)
from asynctest_kit.provision.providers.docker_candidate import StartingContainer, await_end
from asynctest_kit.provision.providers.docker_images import Images, remove_old_builds
from asynctest_kit.provision.providers.docker_options import CommonParts, check, with_options
from asynctest_kit.provision.providers.docker_reach import Places, Published, Reach, is_within_reach, obstacle, shared
from asynctest_kit.provision.providers.docker_snapshots import PreparedImage, PreparedImages, remove_unknown
from asynctest_kit.provision.providers.engine import Engine, EngineError, NotFoundError, open_engine
from asynctest_kit.provision.providers.wired import View, from_containers, wired
from asynctest_kit.provision.service import Endpoint, Output, Program, ProviderName, same_container
from asynctest_kit.provision.waiting import to_its_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from asynctest_kit.provision.providers import Take
    from asynctest_kit.provision.providers.engine import Location
    from asynctest_kit.provision.providers.lifeline import Lifeline
    from asynctest_kit.provision.service import ServiceSpec

__all__ = ["Docker", "NoDocker"]

_log = logging.getLogger(__name__)

_LABEL = "asynctest_kit"
_SESSION = f"{_LABEL}.session"

#: Bytes of /dev/shm in a container: Docker's 64 MB is less than PostgreSQL's parallel queries may want.
_SHARED_MEMORY = 256 << 20


class Docker:
    """The docker provider; open while the supervisor runs.

    Args:
        session: Which supervisor's run the containers belong to.
        project: Which project's.
        sockets: A private folder for the sockets that containers share with us; without one they share none.
        environ: Where DOCKER_HOST and its kin are looked up.
        location: Where they lead to, if that has been found out.
    """

    name: ProviderName = "docker"

    def __init__(
        self,
        *,
        session: str,
        project: str,
        sockets: Path | None = None,
        environ: Mapping[str, str] = os.environ,
        location: Location | None = None,
    ) -> None:
        self._labels = {_SESSION: session, f"{_LABEL}.project": project} | _identity_labels()
        self._common = CommonParts(session, self._labels)
        self._images = Images()
        self._being_taken: set[str] = set()
        self._sockets = sockets
        self._environ = environ
        self._location = location
        self._resources = AsyncExitStack()
        self._engine: asyncio.Future[Engine] | None = None
        self._within_reach: asyncio.Future[bool] | None = None
        self._is_decided = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._engine is not None:
            await asyncio.gather(self._engine, return_exceptions=True)
        if self._within_reach is not None:
            await asyncio.gather(self._within_reach, return_exceptions=True)
        await self._resources.aclose()

    def source(self, spec: ServiceSpec) -> str:
        """See :class:`~asynctest_kit.provision.providers.Provider`."""
        container = hashlib.sha256(same_container(spec, kind_of(spec).image)).hexdigest()
        if self._location is None:
            return container
        is_open = spec.publish_openly and not self._location.is_local
        return f"{container} at {self._location.identity}{' openly' * is_open}"

    @asynccontextmanager
    async def give(self, order: Order) -> AsyncIterator[Running]:
        """See :class:`~asynctest_kit.provision.providers.Provider`."""
        engine = await self._open()
        if order.environ is not None:
            engine = engine.on_behalf_of(order.environ)
        check(order, engine)
        image = await self._images.provide(engine, order)
        await order.meet()
        images = PreparedImages(engine, image, order, self._labels, self._being_taken)
        prepared = await images.find()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._common.held(engine, order))
            try:
                up = await stack.enter_async_context(self._ready(engine, image, prepared, order))
            except ProvisionError:
                if prepared.password is None or order.is_late:
                    raise
                _log.warning("%s does not come up on the snapshot's data: it is made afresh", order.kind.title)
                up = await stack.enter_async_context(self._ready(engine, image, PreparedImage(image), order))
                await images.discard()
            stack.push_async_callback(_to_its_end, images.keep)
            await images.take(up.container.name)
            where = "" if engine.location.is_usual else f" at {engine.location}"
            endpoint = _endpoint(order, up, f"{image}{where} in {up.container.name}")
            ended = _never if order.spec.once else up.container.ended

            mutex = asyncio.Lock()  # several who need it may ask at once

            async def inside() -> Endpoint | None:
                async with mutex:
                    return await _inside(order, endpoint, up.container)

            yield Running(
                endpoint=endpoint,
                ended=ended,
                log=up.container.log,
                run=_logged_in(order, up.container.run),
                last_words=up.container.last_words,
                inside=inside,
                preserve=partial(images.preserve, up.container.name),
            )

    @asynccontextmanager
    async def _ready(self, engine: Engine, image: str, prepared: PreparedImage, order: Order) -> AsyncIterator[_Up]:
        """A container that is ready, and answers with the order's password if its kind has any; removed at the end."""
        async with AsyncExitStack() as stack:
            up = await self._start(stack, engine, image, prepared, order)
            subject = f"The container of the service {order.spec.name!r} ({image})"
            with order.phase("ready", self.name):
                await _await(order, up, prepared, subject)
            yield up

    async def sweep(self, *, now: bool) -> list[str]:
        """Remove containers, volumes and networks whose supervisor is proven dead.

        Args:
            now: Whether to open the engine for it; otherwise it waits until an order has, or nobody will.

        Returns:
            The ids of the containers and networks, and the names of the volumes, removed.
        """
        if not now:
            await self._is_decided.wait()
            if self._engine is None:
                return []
        try:
            engine = await self._open()
            orphans = _orphans(await engine.labelled(_SESSION))
            await asyncio.gather(*(_Container(engine, orphan).remove() for orphan in orphans))
            volumes = _orphans(await engine.labelled_volumes(_SESSION))
            networks = _orphans(await engine.labelled_networks(_SESSION))
            await asyncio.gather(*map(engine.remove_volume, volumes), *map(engine.remove_network, networks))
        except (Refusal, EngineError) as reason:
            _log.info("no sweep for containers: %s", reason)
            return []

        return [*orphans, *volumes, *networks]

    def close_doors(self) -> None:
        """Nobody will order any more."""
        self._is_decided.set()

    async def remove_unused_images(self, unused: float) -> list[str]:
        """Remove images with prepared data that nobody knows of, and those built before; give their names.

        Args:
            unused: Seconds since an image was built, after which it is of no use.
        """
        try:
            engine = await self._open()
            return await remove_unknown(engine) + await remove_old_builds(engine, unused)
        except (Refusal, EngineError) as reason:
            _log.info("no look at images: %s", reason)
            return []

    async def _open(self) -> Engine:
        # The first caller opens it, the others wait for the same; after a refusal the next order tries again.
        if self._engine is None or _has_failed(self._engine):
            self._engine = asyncio.ensure_future(
                self._resources.enter_async_context(open_engine(self._environ, self._location))
            )
        engine = await asyncio.shield(self._engine)
        self._is_decided.set()
        return engine

    async def _start(
        self, stack: AsyncExitStack, engine: Engine, image: str, prepared: PreparedImage, order: Order
    ) -> _Up:
        view = await from_containers(order)
        ways = await self._ways(engine, order)
        for way in ways[:-1]:
            try:
                return await stack.enter_async_context(self._started(engine, way, prepared, order, view))
            except EngineError as error:
                _log.warning("%s can't be reached by a socket: %s", order.spec.name, error)
        try:
            return await stack.enter_async_context(self._started(engine, ways[-1], prepared, order, view))
        except EngineError as error:
            raise ProvisionError(
                order.redact(f"Docker could not start the service {order.spec.name!r} ({image}): {error}")
            ) from None

    async def _ways(self, engine: Engine, order: Order) -> list[AbstractAsyncContextManager[Reach]]:
        """How its container may be reached, what is best first; the last one is for every engine."""
        published = nullcontext(Published(_exposed(order), engine.location.host))
        plan, options = order.kind.container(order.spec, order.login), order.spec.container
        has_network = order.spec.needs or options.networks or options.extra_hosts
        if not plan.socket or self._sockets is None or has_network:
            return [published]
        if self._within_reach is None:
            where = is_within_reach(engine, engine.location.url, self._sockets)
            self._within_reach = asyncio.ensure_future(where)
        if not await asyncio.shield(self._within_reach):
            return [published]
        return [shared(plan, self._sockets / secrets.token_hex(6)), published]

    @asynccontextmanager
    async def _started(
        self,
        engine: Engine,
        way: AbstractAsyncContextManager[Reach],
        prepared: PreparedImage,
        order: Order,
        view: View,
    ) -> AsyncIterator[_Up]:
        """A container that was started, removed at the end."""
        container = _Container(engine, f"asynctest_kit-{order.spec.name}-{secrets.token_hex(6)}")
        async with way as reach, container.held():
            labels = self._labels | {f"{_LABEL}.service": order.spec.name}
            options, has_data = order.spec.container, prepared.password is not None
            config = with_options(_config(prepared, reach, order, labels, view), options, self._common.name)
            try:
                with order.phase("create", self.name):
                    await to_its_end(lifeline.create(engine, container.name, config, platform=options.platform))
                    await self._common.fill(engine, container.name, order, has_data=has_data)
                with order.phase("boot", self.name):
                    await container.start()
                    places = await reach.places(engine, container.name)
                yield _Up(container, places)
            finally:
                with order.phase("remove", self.name):
                    await to_its_end(container.remove())


@dataclass(frozen=True, slots=True)
class NoDocker:
    """The docker provider of a client for whom no engine is found.

    Attributes:
        reason: Why.
    """

    reason: str
    name: ProviderName = "docker"

    def source(self, spec: ServiceSpec) -> str:  # noqa: ARG002 (as every provider's)
        """See :class:`~asynctest_kit.provision.providers.Provider`."""
        return f"none: {self.reason}"

    @asynccontextmanager
    async def give(self, order: Order) -> AsyncIterator[Running]:  # noqa: ARG002
        """See :class:`~asynctest_kit.provision.providers.Provider`."""
        raise Refusal(self.reason)
        yield  # a generator all the same


class _Container:
    """One container by its name, as a :class:`~asynctest_kit.provision.providers.Witness`."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self._holds = AsyncExitStack()
        self._lifeline: Lifeline | None = None

    def held(self) -> AsyncExitStack:
        """A context outside of which it does not live once it is started."""
        return self._holds

    async def start(self) -> None:
        """Start it, created as it is."""
        self._lifeline = await self._holds.enter_async_context(lifeline.hold(self.engine, self.name))
        await self.engine.start(self.name)

    async def ended(self) -> str:
        """See :class:`~asynctest_kit.provision.providers.Witness`."""
        return await self._started.ended()

    async def last_words(self) -> str:
        """See :class:`~asynctest_kit.provision.providers.Witness`."""
        return await self._started.tail(TAIL)

    async def log(self, lines: int, follow: bool, take: Take) -> None:
        """See :class:`~asynctest_kit.provision.providers.Running`."""
        since = time.time()
        await take(Output("stdout", b""))
        try:
            await self.engine.log(self.name, lines, take, follow=follow, since=0.0 if lines else since)
        except NotFoundError:  # run to its end, and removed by the engine
            await take(Output("stdout", f"{await self._started.tail(lines)}\n".encode()))
        except EngineError as error:
            raise ProvisionError(str(error)) from None

    async def run(self, program: Program, take: Take) -> int:
        """See :class:`~asynctest_kit.provision.providers.Running`."""
        try:
            return await self.engine.stream(self.name, program, take)
        except EngineError as error:
            raise ProvisionError(str(error)) from None

    @property
    def _started(self) -> Lifeline:
        assert self._lifeline is not None  # noqa: S101 (who asks has started it)
        return self._lifeline

    async def remove(self) -> None:
        """Remove it; an engine that refuses is logged, for there is nobody to tell."""
        try:
            await self.engine.remove(self.name)
        except EngineError as error:
            _log.error("container %s could not be removed: %s", self.name, error)


@dataclass(frozen=True, slots=True)
class _Up:
    """A container that has started, and where its ports are."""

    container: _Container
    places: Places


async def _never() -> str:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets that event")


async def _await(order: Order, up: _Up, prepared: PreparedImage, subject: str) -> None:
    """Wait until it is ready.

    Raises:
        ProvisionError: It won't be, or isn't in time.
    """
    way = partial(obstacle, up.container.engine, up.places, order.spec.name)
    if order.spec.once:
        await await_end(order, up.container, subject)
    elif order.kind.handshake is None:
        candidate = StartingContainer(up.container.engine, up.container.name, up.places)
        await await_ready(order, candidate.waiting(order.spec.wait), up.container, subject=subject, way=way)
        if not await candidate.is_running():  # what was waited for may have been its last word
            raise await start_error(order, up.container, f"{subject} {await up.container.ended()}")
    else:
        address = up.places.address(None, order.login)
        if prepared.password is not None:
            address = replace(address, password=prepared.password)
        await await_ready(order, greeting(order, address), up.container, subject=subject, way=way)
        await rekeyed(order, address)


def _exposed(order: Order) -> Mapping[str, Port]:
    """The ports of an order's container."""
    kind = order.kind
    return {kind.name: Port(kind.port, kind.schemes[0])} if kind.port else order.spec.ports


def _logged_in(
    order: Order, run: Callable[[Program, Take], Awaitable[int]]
) -> Callable[[Program, Take], Awaitable[int]]:
    """Have programs run with the variables by which the kind's clients know the password."""
    known = order.kind.container(order.spec, order.login).client_environment

    async def run_logged_in(program: Program, take: Take) -> int:
        return await run(msgspec.structs.replace(program, environment=known | program.environment), take)

    return run_logged_in


def _has_failed(engine: asyncio.Future[Engine]) -> bool:
    return engine.done() and engine.exception() is not None


async def _to_its_end(action: Callable[[], Awaitable[None]]) -> None:
    await to_its_end(action())


def _config(
    prepared: PreparedImage, reach: Reach, order: Order, labels: Mapping[str, str], view: View
) -> dict[str, Any]:
    plan = order.kind.container(wired(order, view), order.login)
    return {
        "Image": prepared.name,
        "Env": [f"{name}={value}" for name, value in plan.environment.items()],
        "Cmd": [*plan.command, *reach.arguments] or None,
        "Labels": dict(labels),
        "HostConfig": {
            "ExtraHosts": [f"{name}:{address}" for name, address in view.hosts.items()],
            "Tmpfs": dict.fromkeys(plan.memory if prepared.password is None else (), "rw"),
            "ShmSize": _SHARED_MEMORY,
            "SecurityOpt": ["no-new-privileges"],
            **reach.host_settings,
        },
        **reach.settings,
    }


def _endpoint(order: Order, up: _Up, detail: str) -> Endpoint:
    exposed = _exposed(order)
    login, published = order.login, up.places.published
    return Endpoint(
        service=order.spec.name,
        kind=order.kind.name,
        provider="docker",
        scheme=next((port.scheme for port in exposed.values()), ""),
        host=up.places.host,
        port=next(iter(published.values()), 0),
        username=login.username,
        password=login.password or None,
        database=login.database,
        socket=up.places.socket,
        detail=detail,
        ports={name: Port(published[name], port.scheme) for name, port in order.spec.ports.items()},
    )


async def _inside(order: Order, endpoint: Endpoint, container: _Container) -> Endpoint | None:
    """The address of a container as another one sees it: its own, on the engine's default network."""
    try:
        address = await container.engine.address_of(container.name)
    except EngineError as error:
        _log.warning("other containers can't reach %s: %s", order.spec.name, error)
        return None
    port = next((port.port for port in _exposed(order).values()), 0)
    if not address:
        return None
    return msgspec.structs.replace(endpoint, host=address, port=port, ports=order.spec.ports, socket="")


def _identity_labels() -> dict[str, str]:
    return {f"{_LABEL}.{field}": str(value) for field, value in msgspec.structs.asdict(this_process()).items()}


def _orphans(found: Iterable[tuple[str, Mapping[str, str]]]) -> list[str]:
    return [name for name, labels in found if _is_orphan(labels)]


def _is_orphan(labels: Mapping[str, str]) -> bool:
    fields = {field: labels.get(f"{_LABEL}.{field}", "") for field in Identity.__struct_fields__}
    try:
        owner = msgspec.convert(fields, Identity, strict=False)
    except msgspec.ValidationError:
        return False

    return proven_dead(owner)
