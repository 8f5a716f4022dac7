"""The addresses of the services that a service needs, as it sees them, in its own configuration.

A server on this machine reaches another one where tests do. A container does not: a published port is this machine's
loopback. Where it reaches the other one, its provider knows (``Running.inside``): a container by the address that the
engine gave it, under its service's name; a server of the user's own by the host in its URL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from asynctest_kit.errors import ProvisionError
from asynctest_kit.wiring import filled

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctest_kit.provision.providers import Order, Running
    from asynctest_kit.provision.service import Endpoint, ServiceSpec

    View: TypeAlias = Callable[[Order, str, Running], Endpoint]

__all__ = ["hosts", "inside", "outside", "wired"]


def wired(order: Order, view: View) -> ServiceSpec:
    """The order's spec, its templates filled with what ``view`` sees of those that it needs.

    Raises:
        ProvisionError: One of them can't be reached from where the service runs.
    """
    seen: dict[str, Endpoint] = {}

    def value(name: str, field: str) -> str:
        if name not in seen:
            seen[name] = view(order, name, order.met[name])
        return _value(seen[name], field)

    spec = order.spec
    if not spec.needs:  # then there can be no template in it
        return spec
    return msgspec.structs.replace(
        spec,
        environment={key: filled(text, value) for key, text in spec.environment.items()},
        command=tuple(filled(text, value) for text in spec.command),
    )


def outside(_order: Order, _name: str, running: Running) -> Endpoint:
    """What a process of this machine sees."""
    return running.endpoint


def inside(order: Order, name: str, running: Running) -> Endpoint:
    """What a container sees.

    Raises:
        ProvisionError: Nothing.
    """
    endpoint = running.inside
    if endpoint is not None:
        return msgspec.structs.replace(endpoint, host=_alias(name)) if endpoint.provider == "docker" else endpoint

    where = f"{running.endpoint.host}:{running.endpoint.port}"
    raise ProvisionError(
        f"The service {order.spec.name!r} runs in a container and is wired to {name!r}, which the provider "
        f"{running.endpoint.provider!r} gives at {where}: the loopback of this machine, which no container can reach. "
        f'Have {name!r} in a container too (provider = "docker" in its settings), or give it a URL whose host '
        "containers can reach."
    )


def hosts(order: Order) -> dict[str, str]:
    """Names by which a container finds the others that it needs: each service's, with its address."""
    seen = {name: running.inside for name, running in order.met.items() if running.inside is not None}
    return {_alias(name): endpoint.host for name, endpoint in seen.items() if endpoint.provider == "docker"}


def _alias(name: str) -> str:
    """A service's name as that of a host, which may have no underscore in it."""
    return name.replace("_", "-")


def _value(endpoint: Endpoint, field: str) -> str:
    if field.startswith("ports."):
        return str(endpoint.ports[field.removeprefix("ports.")].port)
    value = getattr(endpoint, field)
    return "" if value is None else str(value)
