"""A database on a server that another service has: no server is started for it, and none is ended.

On a server of ours it is a database that is there as long as the server is, for containers and people: tests have
databases of the run's own. On a server of the user's own nothing is made, and it is the one that its URL names.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

import msgspec

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.providers import Order, Running
from asynctest_kit.provision.readiness import Address, RejectedError, wait_ready

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctest_kit.provision.service import Endpoint

__all__ = ["shared"]

#: Bytes of a name that PostgreSQL keeps.
_LONGEST_NAME = 63


@asynccontextmanager
async def shared(order: Order) -> AsyncIterator[Running]:
    """The order's database, on the server that it needs.

    Raises:
        ProvisionError: On entry: there is no server, or the database can't be made on it.
    """
    await order.meet()
    (server,) = order.met.values()
    with order.phase("ready", server.endpoint.provider):
        database = server.endpoint.database
        if server.endpoint.provider != "external":
            database = await _made(order, server.endpoint)

    def on(endpoint: Endpoint) -> Endpoint:
        return msgspec.structs.replace(
            endpoint,
            service=order.spec.name,
            database=database,
            shares=server.endpoint.service,
            detail=f"on the server of {server.endpoint.service}: {endpoint.detail}",
        )

    async def inside() -> Endpoint | None:
        found = await server.inside()
        return None if found is None else on(found)

    yield Running(
        endpoint=on(server.endpoint),
        ended=_for_ever,  # it ends with the server, whose last words are told with that
        log=server.log,
        run=server.run,
        inside=inside,
        preserve=server.preserve,
    )


async def _made(order: Order, server: Endpoint) -> str:
    """Make the database, unless it is there, and give its name: one that tests' comparisons of the server pass over."""
    make = order.kind.make_database
    assert make is not None, order.kind.name  # noqa: S101 (the settings know which kinds can be shared)
    name = f"atk_service_{order.spec.name.replace('-', '_')}"
    if len(name) > _LONGEST_NAME:  # what the server would cut off may be all that tells two
        name = f"atk_service_{hashlib.sha256(order.spec.name.encode()).hexdigest()[:16]}"
    address = Address.of(server)
    seen = ["nothing yet"]
    try:
        async with asyncio.timeout_at(order.deadline):
            await wait_ready(lambda: make(address, name), seen.append, limit=order.spec.startup_timeout)
    except TimeoutError:
        problem = f"not within {order.allowed}; last seen: {seen[-1]}"
    except RejectedError as error:
        problem = str(error)
    else:
        return name
    raise ProvisionError(
        order.redact(
            f"The database of the service {order.spec.name!r} can't be made on the server of {server.service!r} "
            f"({server.detail}): {problem}"
        )
    )


async def _for_ever() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets that event")
