"""The services that benchmarks start, and whether this machine can give them. Loads light: starting is timed."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from asynctest_kit.provision.catalog.kind import Kind
    from asynctest_kit.provision.service import Endpoint, ProviderChoice, ServiceSpec

__all__ = ["NAMES", "docker_problem", "embedded_problem", "image", "kind", "published", "spec"]

NAMES = ("postgres", "redis")


def spec(name: str, provider: ProviderChoice, number: int = 0) -> ServiceSpec:
    """One of them, with the environment's image; another number is another service."""
    from asynctest_kit.provision.service import ServiceSpec

    image = os.environ.get(f"ATK_{name.upper()}_IMAGE")
    return ServiceSpec(name=f"{name}-{number}" if number else name, kind=name, provider=provider, image=image)


def image(name: str) -> str:
    """Its image: the environment's, or the catalogue's default."""
    return spec(name, "docker").image or kind(name).image


def kind(name: str) -> Kind:
    """Its entry in the catalogue."""
    from asynctest_kit.provision.catalog import kind_of

    return kind_of(spec(name, "auto"))


async def published(stack: AsyncExitStack, name: str) -> Endpoint:
    """One in a container of its own whose port Docker publishes, as everyone else's is."""
    from asynctest_kit.provision.providers import Order
    from asynctest_kit.provision.providers.docker import Docker

    docker = await stack.enter_async_context(Docker(session="benchmark", project="benchmark"))
    order = Order(
        spec=spec(name, "docker"),
        kind=kind(name),
        asked=time.monotonic(),
        record=lambda _: None,
        may_keep=False,
    )
    return (await stack.enter_async_context(docker.give(order))).endpoint


async def docker_problem() -> str:
    """Why no containers can be had here; empty if they can. Nothing is pulled: it would be timed."""
    from asynctest_kit.provision.providers import Refusal
    from asynctest_kit.provision.providers.engine import EngineError, open_engine

    try:
        async with open_engine(os.environ) as engine:
            missing = [name for name in map(image, NAMES) if not await engine.has_image(name)]
    except (Refusal, EngineError) as error:
        return str(error)
    return f"no image {', '.join(missing)} here" if missing else ""


def embedded_problem() -> str:
    """Why no servers can be had here without Docker; empty if they can."""
    from asynctest_kit.provision.providers import Refusal
    from asynctest_kit.provision.providers.embedded import Search

    try:
        for name in NAMES:
            Search().server(kind(name).embedded)
    except Refusal as refusal:
        return str(refusal)
    return ""
