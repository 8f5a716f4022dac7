"""A port takes connections.

What publishes a port may take them before anybody listens behind it (Docker's proxy does, and hangs up when it finds
nobody). So a connection counts if the container's own address takes one, too; where that can't be reached from here
(Docker in a virtual machine), if it isn't closed for a moment.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynctest_kit.provision.readiness import NotReadyError, wait_ready

if TYPE_CHECKING:
    from asynctest_kit.provision.readiness import Address, Note

__all__ = ["OpenPort"]

#: Seconds for which a connection must stay open to count; a proxy that finds nobody hangs up at once.
_MOMENT = 0.25

#: Seconds for the container's own address, one hop away, to answer; if it doesn't, a firewall is between.
_HOP = 0.5

_LONGEST = 0.1


@dataclass(frozen=True, slots=True)
class OpenPort:
    """A port that takes connections; a :class:`~asynctest_kit.provision.readiness.Waiting`.

    Attributes:
        name: What the user calls it.
        published: Where it is reached.
        direct: Where it is; None if that can't be reached from here.
    """

    name: str
    published: Address
    direct: Address | None

    @property
    def expectation(self) -> str:
        """What is waited for."""
        return f"its port {self.name} to take connections on {self.published.host}:{self.published.port}"

    async def wait(self, note: Note) -> None:
        """See :class:`~asynctest_kit.provision.readiness.Waiting`."""
        await wait_ready(self._attempt, note, longest=_LONGEST)

    async def _attempt(self) -> None:
        moment = _MOMENT
        if self.direct is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_HOP):
                    await _connect(self.direct, 0.0)
                moment = 0.0
        if self.direct != self.published or moment:
            await _connect(self.published, moment)


async def _connect(address: Address, moment: float) -> None:
    """Connect, and see that the connection isn't closed for ``moment`` seconds."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(moment):
                if not await reader.read(1):
                    raise NotReadyError("the connection was closed at once: nobody listens behind the port yet")
    finally:
        writer.close()
