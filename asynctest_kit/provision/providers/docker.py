"""Containers on a local Docker engine.

A container is known to us by the name that we drew before it was asked for, never by the answer that says it was
made: so it can be removed whatever happened in between. Creating it is the one request that is not cut short by a
cancellation, since a request that was sent may be carried out after its sender has gone; every other await may be
cancelled, and the removal in the ``finally`` runs to its end. If the supervisor is killed, its containers end with it
(see :mod:`asynctest_kit.provision.providers.lifeline`), and what is left all the same is found by its labels.

Ports are published on 127.0.0.1 alone, on a number that the engine draws.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import msgspec

from asynctest_kit.containers import Port
from asynctest_kit.errors import ProvisionError
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
from asynctest_kit.provision.providers.docker_candidate import Places, StartingContainer, await_end
from asynctest_kit.provision.providers.docker_snapshots import PreparedImage, PreparedImages, remove_unknown
from asynctest_kit.provision.providers.engine import Engine, EngineError, NotFoundError, open_engine
from asynctest_kit.provision.providers.wired import View, from_containers, wired
from asynctest_kit.provision.service import Endpoint, ProviderName
from asynctest_kit.provision.waiting import to_its_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from asynctest_kit.provision.catalog.kind import Login
    from asynctest_kit.provision.providers.lifeline import Lifeline

__all__ = ["Docker"]

_log = logging.getLogger(__name__)

_LABEL = "asynctest_kit"
_SESSION = f"{_LABEL}.session"

_HOST = "127.0.0.1"

#: Bytes of /dev/shm in a container: Docker's 64 MB is less than PostgreSQL's parallel queries may want.
_SHARED_MEMORY = 256 << 20


class Docker:
    """The docker provider; open while the supervisor runs.

    Args:
        session: Which supervisor's run the containers belong to.
        project: Which project's.
        environ: Where DOCKER_HOST and its kin are looked up.
    """

    name: ProviderName = "docker"

    def __init__(self, *, session: str, project: str, environ: Mapping[str, str] = os.environ) -> None:
        self._labels = {_SESSION: session, f"{_LABEL}.project": project} | _identity_labels()
        self._environ = environ
        self._resources = AsyncExitStack()
        self._engine: asyncio.Future[Engine] | None = None
        self._is_decided = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._engine is not None:
            await asyncio.gather(self._engine, return_exceptions=True)
        await self._resources.aclose()

    @asynccontextmanager
    async def give(self, order: Order) -> AsyncIterator[Running]:
        """See :class:`~asynctest_kit.provision.providers.Provider`."""
        engine = await self._open()
        image = order.spec.image or order.kind.image
        await _have_image(engine, image, order)
        await order.meet()
        images = PreparedImages(engine, image, order, self._labels)
        prepared = await images.find()
        async with AsyncExitStack() as stack:
            try:
                up = await stack.enter_async_context(self._ready(engine, image, prepared, order))
            except ProvisionError:
                if prepared.password is None:
                    raise
                fresh = await images.discard()
                up = await stack.enter_async_context(self._ready(engine, image, fresh, order))
            stack.push_async_callback(_to_its_end, images.keep, up.container.name)
            endpoint = _endpoint(order, up, f"{image} in {up.container.name}")
            ended = _never if order.spec.once else up.container.ended

            mutex = asyncio.Lock()  # several who need it may ask at once

            async def inside() -> Endpoint | None:
                async with mutex:
                    return await _inside(order, endpoint, up.container)

            yield Running(endpoint=endpoint, ended=ended, log=up.container.log, inside=inside)

    @asynccontextmanager
    async def _ready(self, engine: Engine, image: str, prepared: PreparedImage, order: Order) -> AsyncIterator[_Up]:
        """A container that is ready, and answers with the order's password if its kind has any; removed at the end."""
        container = _Container(engine, f"asynctest_kit-{order.spec.name}-{secrets.token_hex(6)}")
        async with container.held():
            try:
                places = await self._start(container, image, prepared, order)
                subject = f"The container of the service {order.spec.name!r} ({image})"
                with order.phase("ready", self.name):
                    login = await _await(order, _Up(container, places, order.login), prepared, subject)
                yield _Up(container, places, login)
            finally:
                with order.phase("remove", self.name):
                    await to_its_end(container.remove())

    async def sweep(self, *, now: bool) -> list[str]:
        """Remove containers whose supervisor is proven dead.

        Args:
            now: Whether to open the engine for it; otherwise it waits until an order has, or nobody will.

        Returns:
            The ids of the containers removed.
        """
        if not now:
            await self._is_decided.wait()
            if self._engine is None:
                return []
        try:
            engine = await self._open()
            found = await engine.labelled(_SESSION)
        except (Refusal, EngineError) as reason:
            _log.info("no sweep for containers: %s", reason)
            return []

        orphans = [container for container, labels in found if _is_orphan(labels)]
        await asyncio.gather(*(_Container(engine, orphan).remove() for orphan in orphans))
        return orphans

    def close_doors(self) -> None:
        """Nobody will order any more."""
        self._is_decided.set()

    async def remove_unknown_snapshots(self) -> list[str]:
        """Remove images with prepared data that nobody knows of; give their names."""
        try:
            return await remove_unknown(await self._open())
        except (Refusal, EngineError) as reason:
            _log.info("no look at snapshots: %s", reason)
            return []

    async def _open(self) -> Engine:
        # The first caller opens it, the others wait for the same; after a refusal the next order tries again.
        if self._engine is None or _has_failed(self._engine):
            self._engine = asyncio.ensure_future(self._resources.enter_async_context(open_engine(self._environ)))
        engine = await asyncio.shield(self._engine)
        self._is_decided.set()
        return engine

    async def _start(self, container: _Container, image: str, prepared: PreparedImage, order: Order) -> Places:
        labels = self._labels | {f"{_LABEL}.service": order.spec.name}
        config = _config(prepared, order, labels, await from_containers(order))
        try:
            with order.phase("create", self.name):
                await to_its_end(lifeline.create(container.engine, container.name, config))
            with order.phase("boot", self.name):
                await container.start()
                return await container.places(_exposed(order))
        except EngineError as error:
            raise ProvisionError(
                order.redact(f"Docker could not start the service {order.spec.name!r} ({image}): {error}")
            ) from None


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

    async def places(self, ports: Mapping[str, Port]) -> Places:
        """Where its ports are now that it has started; of one that has ended already they are nowhere: port 0."""
        try:
            network = (await self.engine.inspect(self.name))["NetworkSettings"]
        except NotFoundError:
            network = {"Ports": {}, "IPAddress": "", "Gateway": ""}
        return Places(
            host=_HOST,
            published={name: _published(network["Ports"], port.port) for name, port in ports.items()},
            ports={name: port.port for name, port in ports.items()},
            inside=network["IPAddress"],
            gateway=network["Gateway"],
        )

    async def ended(self) -> str:
        """See :class:`~asynctest_kit.provision.providers.Witness`."""
        return await self._started.ended()

    async def last_words(self) -> str:
        """See :class:`~asynctest_kit.provision.providers.Witness`."""
        return await self._started.tail(TAIL)

    async def log(self, lines: int) -> str:
        """See :class:`~asynctest_kit.provision.providers.Running`."""
        try:
            return await self.engine.log_tail(self.name, lines)
        except EngineError:
            return await self._started.tail(lines)

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
    """A container that has started: itself, where its ports are, and as whom to connect."""

    container: _Container
    places: Places
    login: Login


async def _never() -> str:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets that event")


async def _await(order: Order, up: _Up, prepared: PreparedImage, subject: str) -> Login:
    """Wait until it is ready; as whom to connect from then on.

    Raises:
        ProvisionError: It won't be, or isn't in time.
    """
    if order.spec.once:
        await await_end(order, up.container, subject)
        return up.login
    if order.kind.handshake is None:
        candidate = StartingContainer(up.container.engine, up.container.name, up.places)
        await await_ready(order, candidate.waiting(order.spec.wait), up.container, subject=subject)
        if not await candidate.is_running():  # what was waited for may have been its last word
            raise await start_error(order, up.container, f"{subject} {await up.container.ended()}")
        return up.login
    address = up.places.address(None, up.login)
    if prepared.password is not None:
        address = replace(address, password=prepared.password)
    await await_ready(order, greeting(order, address), up.container, subject=subject)
    await rekeyed(order, address)
    return up.login


def _exposed(order: Order) -> Mapping[str, Port]:
    """The ports of an order's container."""
    kind = order.kind
    return {kind.name: Port(kind.port, kind.schemes[0])} if kind.port else order.spec.ports


def _published(bindings: Mapping[str, list[dict[str, str]] | None], port: int) -> int:
    found = bindings.get(f"{port}/tcp")
    if not found:
        return 0

    # Docker 20.10 publishes on every address if it can't make sense of the one that it was given.
    if strangers := {binding["HostIp"] for binding in found} - {_HOST}:
        raise EngineError(f"it published port {port} on {', '.join(strangers)} instead of {_HOST} alone")

    return int(found[0]["HostPort"])


def _has_failed(engine: asyncio.Future[Engine]) -> bool:
    return engine.done() and engine.exception() is not None


async def _have_image(engine: Engine, image: str, order: Order) -> None:
    order.resolved("docker")
    try:
        if await engine.has_image(image):
            return

        with order.phase("pull", "docker"):
            async with asyncio.timeout_at(order.deadline):
                await engine.pull(image)
    except EngineError as error:
        raise Refusal(f"the image {image} is not there and can't be pulled: {error}") from None
    except TimeoutError:
        raise Refusal(f"the image {image} could not be pulled within {order.allowed}") from None


async def _to_its_end(action: Callable[[str], Awaitable[None]], name: str) -> None:
    await to_its_end(action(name))


def _config(prepared: PreparedImage, order: Order, labels: Mapping[str, str], view: View) -> dict[str, Any]:
    plan = order.kind.container(wired(order, view), order.login)
    ports = [f"{port.port}/tcp" for port in _exposed(order).values()]
    return {
        "Image": prepared.name,
        "Env": [f"{name}={value}" for name, value in plan.environment.items()],
        "Cmd": list(plan.command) or None,
        "Labels": dict(labels),
        "ExposedPorts": {port: {} for port in ports},
        "HostConfig": {
            "PortBindings": {port: [{"HostIp": _HOST, "HostPort": ""}] for port in ports},
            "ExtraHosts": [f"{name}:{address}" for name, address in view.hosts.items()],
            "Tmpfs": dict.fromkeys(plan.memory if prepared.password is None else (), "rw"),
            "ShmSize": _SHARED_MEMORY,
            "SecurityOpt": ["no-new-privileges"],
        },
    }


def _endpoint(order: Order, up: _Up, detail: str) -> Endpoint:
    exposed = _exposed(order)
    login, published = up.login, up.places.published
    return Endpoint(
        service=order.spec.name,
        kind=order.kind.name,
        provider="docker",
        scheme=next((port.scheme for port in exposed.values()), ""),
        host=_HOST,
        port=next(iter(published.values()), 0),
        username=login.username,
        password=login.password or None,
        database=login.database,
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
    return msgspec.structs.replace(endpoint, host=address, port=port, ports=order.spec.ports) if address else None


def _identity_labels() -> dict[str, str]:
    return {f"{_LABEL}.{field}": str(value) for field, value in msgspec.structs.asdict(this_process()).items()}


def _is_orphan(labels: Mapping[str, str]) -> bool:
    fields = {field: labels.get(f"{_LABEL}.{field}", "") for field in Identity.__struct_fields__}
    try:
        owner = msgspec.convert(fields, Identity, strict=False)
    except msgspec.ValidationError:
        return False

    return proven_dead(owner)
