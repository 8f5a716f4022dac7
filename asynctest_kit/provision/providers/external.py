"""A server that the user runs: its URL is checked and used as it is; nothing is started, stopped or removed."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import SplitResult, quote, unquote, urlsplit

from asynctest_kit.containers import Port
from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.providers import Order, Refusal, Running, await_ready, greeting
from asynctest_kit.provision.readiness import Address
from asynctest_kit.provision.readiness.listening import OpenPort
from asynctest_kit.provision.service import TLS_SCHEMES, Endpoint, ProviderName

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctest_kit.provision.catalog.kind import Kind
    from asynctest_kit.provision.readiness import Waiting
    from asynctest_kit.provision.service import ServiceSpec

__all__ = ["External", "address_of", "is_loopback"]

_USUAL_PORTS = {"http": 80, "https": 443}


class External:
    """The external provider."""

    name: ProviderName = "external"

    def source(self, spec: ServiceSpec) -> str:
        """See :class:`~asynctest_kit.provision.providers.Provider`."""
        return spec.url or ""

    @asynccontextmanager
    async def give(self, order: Order) -> AsyncIterator[Running]:
        """See :class:`~asynctest_kit.provision.providers.Provider`."""
        if not order.spec.url:
            raise Refusal("no URL is set")

        url = _with_credentials(order.kind, _parsed(order))
        endpoint = _endpoint(order, url)
        address = Address.of(endpoint)
        order.resolved(self.name)
        order.begin()
        with order.phase("ready", self.name):
            await await_ready(
                order, _waiting(order, address), _Stranger(), subject=f"The server at {endpoint.safe_url}"
            )

        async def inside() -> Endpoint | None:
            return None if is_loopback(address.host) else endpoint

        yield Running(endpoint=endpoint, ended=_Stranger().ended, inside=inside)


def address_of(order: Order) -> Address:
    """Where the order's URL leads.

    Raises:
        ProvisionError: It can't be used.
    """
    return Address.of(_endpoint(order, _with_credentials(order.kind, _parsed(order))))


class _Stranger:
    """A server whose process and log we don't have."""

    async def ended(self) -> NoReturn:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets that event")

    async def last_words(self) -> None:
        return None


def _parsed(order: Order) -> SplitResult:
    kind = order.kind
    try:
        url = urlsplit(order.spec.url or "")
        is_usable = (url.scheme in kind.schemes or not kind.schemes) and url.hostname and _port(kind, url)
    except ValueError:  # of a port that is none; its text is not repeated, for it may be a part of the password
        is_usable = False
    if is_usable:
        return url

    scheme, port = (kind.schemes[0], kind.port) if kind.schemes else ("http", 8080)
    raise ProvisionError(
        f"The URL of the service {order.spec.name!r} can't be used: it should look like "
        f"{scheme}://user:password@host:{port}/database (a password with one of /?#@: in it must be percent-encoded)."
    )


def _with_credentials(kind: Kind, url: SplitResult) -> SplitResult:
    """The URL with the user and the password before its host, where drivers of this kind take them from its query."""
    if kind.handshake is None:
        return url
    given = {"user": url.username, "password": url.password}
    rest = []
    for parameter in url.query.split("&"):
        key, _, value = parameter.partition("=")
        name = "user" if key == "username" else key
        if name in given and not given[name]:
            given[name] = quote(unquote(value), safe="")
        else:
            rest.append(parameter)
    user, password = given["user"] or "", given["password"]
    credentials = f"{user}:{password}@" if password else f"{user}@" if user else ""
    return url._replace(netloc=f"{credentials}{url.netloc.rpartition('@')[2]}", query="&".join(rest))


def _port(kind: Kind, url: SplitResult) -> int:
    """Its port, or the one that is usual; 0 if none is."""
    return kind.port or _USUAL_PORTS.get(url.scheme, 0) if url.port is None else url.port


def _waiting(order: Order, address: Address) -> Waiting:
    if order.kind.handshake is not None:
        return greeting(order, address)
    return OpenPort(str(address.port), address, direct=address)


def is_loopback(host: str) -> bool:
    """Whether it is this machine's own, which containers don't reach."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _endpoint(order: Order, url: SplitResult) -> Endpoint:
    port = _port(order.kind, url)
    return Endpoint(
        service=order.spec.name,
        kind=order.kind.name,
        provider="external",
        scheme=url.scheme if url.scheme in TLS_SCHEMES or not order.kind.schemes else order.kind.schemes[0],
        host=url.hostname or "",
        port=port,
        username=unquote(url.username) if url.username else None,
        password=unquote(url.password) if url.password else None,
        database=unquote(url.path[1:]) or None,
        query=url.query,
        detail="as given by its URL",
        # A URL leads to one port. The others, if it has any, are asked for in vain, and told so.
        ports={name: Port(port, url.scheme) for name in tuple(order.spec.ports)[:1]},
    )
