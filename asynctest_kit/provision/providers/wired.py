"""The addresses of the services that a service needs, as it sees them, in its own configuration.

A server on this machine reaches another one where tests do. A container does not: a published port is this machine's
loopback. Where containers reach a service its provider knows (``Running.inside``): a container at the address that the
engine gave it, under its service's name; a server of the user's own at the host in its URL.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from asynctest_kit.errors import ProvisionError
from asynctest_kit.wiring import filled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asynctest_kit.provision.providers import Order
    from asynctest_kit.provision.service import Endpoint, ServiceSpec

__all__ = ["View", "from_containers", "from_here", "wired"]


@dataclass(frozen=True, slots=True)
class View:
    """What a service sees of those that it needs.

    Attributes:
        endpoints: Where it reaches each, by name; who is missing is out of its reach.
        hosts: Names of hosts in them that it must be told the addresses of.
    """

    endpoints: Mapping[str, Endpoint]
    hosts: Mapping[str, str] = field(default_factory=dict)


def from_here(order: Order) -> View:
    """What a process of this machine sees."""
    return View({name: running.endpoint for name, running in order.met.items()})


async def from_containers(order: Order) -> View:
    """What a container sees."""
    found = await asyncio.gather(*(running.inside() for running in order.met.values()))
    endpoints: dict[str, Endpoint] = {}
    hosts: dict[str, str] = {}
    for name, endpoint in zip(order.met, found, strict=True):
        if endpoint is not None:
            alias = name.replace("_", "-")  # a host's name has no underscore in it
            is_container = endpoint.provider == "docker"
            endpoints[name] = msgspec.structs.replace(endpoint, host=alias) if is_container else endpoint
            hosts |= {alias: endpoint.host} if is_container else {}
    return View(endpoints, hosts)


def wired(order: Order, view: View) -> ServiceSpec:
    """The order's spec, its templates filled with what it sees of those that it needs.

    Raises:
        ProvisionError: One of them is out of its reach.
    """

    def value(name: str, field: str) -> str:
        if name not in view.endpoints:
            raise _out_of_reach(order, name)
        return _value(view.endpoints[name], field)

    spec = order.spec
    if not spec.needs:  # then there can be no template in it
        return spec
    return msgspec.structs.replace(
        spec,
        environment={key: filled(text, value) for key, text in spec.environment.items()},
        command=tuple(filled(text, value) for text in spec.command),
    )


def _value(endpoint: Endpoint, field: str) -> str:
    if field.startswith("ports."):
        return str(endpoint.ports[field.removeprefix("ports.")].port)
    value = getattr(endpoint, field)
    return "" if value is None else str(value)


def _out_of_reach(order: Order, name: str) -> ProvisionError:
    endpoint = order.met[name].endpoint
    return ProvisionError(
        f"The service {order.spec.name!r} runs in a container and is wired to {name!r}, which the provider "
        f"{endpoint.provider!r} gives at {endpoint.host}:{endpoint.port}: the loopback of this machine, which no "
        f'container can reach. Have {name!r} in a container too (provider = "docker" in its settings), or give it a '
        "URL whose host containers can reach."
    )
