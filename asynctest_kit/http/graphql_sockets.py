"""Subscriptions over a WebSocket that is open: gql speaks the protocol."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from gql.transport.common.adapters.connection import AdapterConnection
from gql.transport.exceptions import TransportConnectionFailed
from gql.transport.websockets_protocol import WebsocketsProtocolTransportBase

from asynctest_kit.http.websocket import WebSocketClosedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctest_kit.http.websocket import WebSocket

__all__ = ["PROTOCOL", "subscriptions"]

#: The one that is spoken.
PROTOCOL: Final = "graphql-transport-ws"

#: Seconds that a server may take to greet, and to take note of an end.
_PATIENCE: Final = 30


@asynccontextmanager
async def subscriptions(
    websocket: WebSocket, payload: dict[str, Any]
) -> AsyncIterator[WebsocketsProtocolTransportBase]:
    """What subscribes on ``websocket``; ``payload`` is that of ``connection_init``."""
    transport = _Transport(_Adapter(websocket), payload)
    try:
        await transport.connect()
        yield transport
    finally:
        await transport.close()


class _Transport(WebsocketsProtocolTransportBase):
    def __init__(self, adapter: AdapterConnection, payload: dict[str, Any]) -> None:
        self.adapter = adapter
        super().__init__(
            adapter=adapter,
            init_payload=payload,
            connect_timeout=_PATIENCE,
            ack_timeout=_PATIENCE,
            close_timeout=_PATIENCE,
            subprotocols=[PROTOCOL],
        )


class _Adapter(AdapterConnection):
    """A WebSocket that somebody else opens, as gql wants it."""

    def __init__(self, websocket: WebSocket) -> None:
        super().__init__(url="", connect_args={})
        self._websocket = websocket

    async def connect(self) -> None:
        """It is connected."""

    async def send(self, message: str) -> None:
        """Send a text."""
        try:
            await self._websocket.send(message)
        except WebSocketClosedError as error:
            raise TransportConnectionFailed(str(error)) from error

    async def receive(self) -> str:
        """The next text."""
        try:
            received = await self._websocket.receive()
        except WebSocketClosedError as error:
            raise TransportConnectionFailed(str(error)) from error
        return received if isinstance(received, str) else received.decode()

    async def close(self) -> None:
        """Close it."""
        await self._websocket.close()

    @property
    def response_headers(self) -> dict[str, str]:
        """By which gql sees what the app speaks."""
        return {"Sec-WebSocket-Protocol": PROTOCOL}
