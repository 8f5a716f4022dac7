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
import logging
import os
import secrets
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Self

import msgspec

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.identity import Identity, proven_dead, this_process
from asynctest_kit.provision.providers import TAIL, Order, Refusal, Running, await_ready, lifeline, rekeyed
from asynctest_kit.provision.providers.docker_reach import HOST, Place, Published, Reach, is_within_reach, shared
from asynctest_kit.provision.providers.docker_snapshots import PreparedImage, PreparedImages, remove_unknown
from asynctest_kit.provision.providers.engine import Engine, EngineError, address, open_engine
from asynctest_kit.provision.readiness import Address
from asynctest_kit.provision.service import Endpoint, ProviderName
from asynctest_kit.provision.waiting import to_its_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from asynctest_kit.provision.providers.lifeline import Lifeline

__all__ = ["Docker"]

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
    """

    name: ProviderName = "docker"

    def __init__(
        self, *, session: str, project: str, sockets: Path | None = None, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._labels = {_SESSION: session, f"{_LABEL}.project": project} | _identity_labels()
        self._sockets = sockets
        self._environ = environ
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

    @asynccontextmanager
    async def give(self, order: Order) -> AsyncIterator[Running]:
        """See :class:`~asynctest_kit.provision.providers.Provider`."""
        engine = await self._open()
        image = order.spec.image or order.kind.image
        await _have_image(engine, image, order)
        images = PreparedImages(engine, image, order, self._labels)
        prepared = await images.find()
        async with AsyncExitStack() as stack:
            try:
                container, address = await stack.enter_async_context(self._ready(engine, image, prepared, order))
            except ProvisionError:
                if prepared.password is None:
                    raise
                fresh = await images.discard()
                container, address = await stack.enter_async_context(self._ready(engine, image, fresh, order))
            stack.push_async_callback(_to_its_end, images.keep, container.name)
            endpoint = _endpoint(order, address, f"{image} in {container.name}")
            yield Running(endpoint=endpoint, ended=container.ended, log=container.log)

    @asynccontextmanager
    async def _ready(
        self, engine: Engine, image: str, prepared: PreparedImage, order: Order
    ) -> AsyncIterator[tuple[_Container, Address]]:
        """A container that answers with the order's password, removed at the end."""
        async with AsyncExitStack() as stack:
            container, place = await self._start(stack, engine, image, prepared, order)
            login = order.login
            address = Address(
                host=HOST,
                port=place.port,
                username=login.username,
                password=login.password if prepared.password is None else prepared.password,
                database=login.database,
                socket=place.socket,
            )
            subject = f"The container of the service {order.spec.name!r} ({image})"
            with order.phase("ready", self.name):
                await await_ready(order, address, container, subject=subject)
                address = await rekeyed(order, address)
            yield container, address

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

    async def _start(
        self, stack: AsyncExitStack, engine: Engine, image: str, prepared: PreparedImage, order: Order
    ) -> tuple[_Container, Place]:
        ways = await self._ways(engine, order)
        for way in ways[:-1]:
            try:
                return await stack.enter_async_context(self._started(engine, way, prepared, order))
            except EngineError as error:
                _log.warning("%s can't be reached by a socket: %s", order.spec.name, error)
        try:
            return await stack.enter_async_context(self._started(engine, ways[-1], prepared, order))
        except EngineError as error:
            raise ProvisionError(
                order.redact(f"Docker could not start the service {order.spec.name!r} ({image}): {error}")
            ) from None

    async def _ways(self, engine: Engine, order: Order) -> list[AbstractAsyncContextManager[Reach]]:
        """How its container may be reached, what is best first; the last one is for every engine."""
        published = nullcontext(Published(order.kind.port))
        plan = order.kind.container(order.spec, order.login)
        if not plan.socket or self._sockets is None:
            return [published]
        if self._within_reach is None:
            where = is_within_reach(engine, address(self._environ), self._sockets)
            self._within_reach = asyncio.ensure_future(where)
        if not await asyncio.shield(self._within_reach):
            return [published]
        return [shared(plan, self._sockets / secrets.token_hex(6)), published]

    @asynccontextmanager
    async def _started(
        self, engine: Engine, way: AbstractAsyncContextManager[Reach], prepared: PreparedImage, order: Order
    ) -> AsyncIterator[tuple[_Container, Place]]:
        """A container that was started, removed at the end."""
        container = _Container(engine, f"asynctest_kit-{order.spec.name}-{secrets.token_hex(6)}")
        async with way as reach, container.held():
            config = _config(prepared, reach, order, self._labels | {f"{_LABEL}.service": order.spec.name})
            try:
                with order.phase("create", self.name):
                    await to_its_end(lifeline.create(engine, container.name, config))
                with order.phase("boot", self.name):
                    await container.start()
                    place = await reach.place(engine, container.name)
                yield container, place
            finally:
                with order.phase("remove", self.name):
                    await to_its_end(container.remove())


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


def _config(prepared: PreparedImage, reach: Reach, order: Order, labels: Mapping[str, str]) -> dict[str, Any]:
    plan = order.kind.container(order.spec, order.login)
    return {
        "Image": prepared.name,
        "Env": [f"{name}={value}" for name, value in plan.environment.items()],
        "Cmd": [*plan.command, *reach.arguments],
        "Labels": dict(labels),
        "HostConfig": {
            "Tmpfs": dict.fromkeys(plan.memory if prepared.password is None else (), "rw"),
            "ShmSize": _SHARED_MEMORY,
            "SecurityOpt": ["no-new-privileges"],
            **reach.host_settings,
        },
        **reach.settings,
    }


def _endpoint(order: Order, address: Address, detail: str) -> Endpoint:
    return Endpoint(
        service=order.spec.name,
        kind=order.kind.name,
        provider="docker",
        scheme=order.kind.schemes[0],
        host=address.host,
        port=address.port,
        username=address.username,
        password=address.password,
        database=address.database,
        socket=address.socket,
        detail=detail,
    )


def _identity_labels() -> dict[str, str]:
    return {f"{_LABEL}.{field}": str(value) for field, value in msgspec.structs.asdict(this_process()).items()}


def _is_orphan(labels: Mapping[str, str]) -> bool:
    fields = {field: labels.get(f"{_LABEL}.{field}", "") for field in Identity.__struct_fields__}
    try:
        owner = msgspec.convert(fields, Identity, strict=False)
    except msgspec.ValidationError:
        return False

    return proven_dead(owner)
