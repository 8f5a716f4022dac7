"""An ASGI application on a real socket of the loopback interface, in the running loop.

uvicorn's protocols answer, without its server: nothing polls, nothing handles signals, and the socket listens before
anybody is told of it.
"""

from __future__ import annotations

import asyncio
import math
import socket
import warnings
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from asynctest_kit.http.in_process import ended
from asynctest_kit.http.lifespan import AppError, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctest_kit.http.app_errors import AppErrors
    from asynctest_kit.http.lifespan import ASGIApp, Message, Receive, Send

__all__ = ["Asked", "Errors", "listening", "needs_uvicorn", "on_socket"]

_BACKLOG: Final = 2048

#: Exceptions of an application that are remembered, of which somebody may ask.
_REMEMBERED: Final = 256


@dataclass(slots=True)
class Asked:
    """A request on a connection.

    Attributes:
        client: The connection's address.
        since: How many requests the application had got before.
        until: And before the next one on that connection.
    """

    client: tuple[str, int]
    since: int
    until: float = math.inf


class Errors:
    """Tells what an application raised, by the address of the client whose request it was."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._raised: deque[tuple[Any, int, BaseException]] = deque(maxlen=_REMEMBERED)
        self._owners: dict[Any, AppErrors] = {}
        self._requests = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """The application."""
        client, number, status = scope.get("client"), self._requests, 0
        self._requests += 1
        owner = self._owners.get(client)

        async def sending(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            self._raised.append((client, number, error))
            if owner is not None:
                owner.note(error, scope, status)
            raise

    def asked(self, client: tuple[str, int], owner: AppErrors | None, before: Asked | None = None) -> Asked:
        """Know that ``client``, who is ``owner``'s, asks now; ``before`` is what it has asked before."""
        if owner is not None:
            self._owners[client] = owner
        if before is not None:
            before.until = self._requests
        return Asked(client, self._requests)

    def of(self, asked: Asked) -> BaseException | None:
        """What that request made it raise."""
        for client, number, error in self._raised:
            if client == asked.client and asked.since <= number < asked.until:
                return error
        return None

    def forget(self, owner: AppErrors) -> None:
        """Tell ``owner`` no more."""
        self._owners = {client: one for client, one in self._owners.items() if one is not owner}


@asynccontextmanager
async def on_socket(app: ASGIApp) -> AsyncIterator[tuple[str, Errors]]:
    """Serve ``app`` in the running loop; gives the URL.

    Raises:
        AppError: Its lifespan failed, or uvicorn isn't installed.
    """
    needs_uvicorn()
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    loop = asyncio.get_running_loop()
    async with running(app) as state:
        errors = Errors(app)
        config = Config(errors, lifespan="off", log_config=None, interface="asgi3")
        with warnings.catch_warnings():  # versions before 0.50 use a part of websockets that warns of its end
            warnings.simplefilter("ignore", DeprecationWarning)
            config.load()
        served = ServerState()
        served.default_headers = list(config.encoded_headers)

        protocol: Any = config.http_protocol_class
        making = partial(protocol, config=config, server_state=served, app_state=state, _loop=loop)
        server = await loop.create_server(making, sock=listening())
        port = server.sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}", errors
        finally:
            server.close()
            for connection in list(served.connections):
                connection.shutdown()
            await ended(served.tasks)
            for connection in list(served.connections):
                connection.transport.abort()
            await asyncio.sleep(0)  # what was closed is told so


def listening() -> socket.socket:
    """A socket of the loopback interface, on a port that nobody else has, which takes connections from now on."""
    # With its protocol named: asyncio sets TCP_NODELAY on no other.
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.bind(("127.0.0.1", 0))
    made.listen(_BACKLOG)
    made.setblocking(False)
    return made


def needs_uvicorn() -> None:
    """Make sure that it is there.

    Raises:
        AppError: It isn't.
    """
    if find_spec("uvicorn") is None:
        raise AppError("An application is served by uvicorn, which isn't installed: pip install 'asynctest_kit[api]'")
