"""An ASGI application on a real socket of the loopback interface, in the running loop.

uvicorn's protocols answer, without its server: nothing polls, nothing handles signals, and the socket listens before
anybody is told of it.
"""

from __future__ import annotations

import asyncio
import socket
import warnings
from collections import deque
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from asynctest_kit.http.in_process import ended
from asynctest_kit.http.lifespan import AppError, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctest_kit.http.lifespan import ASGIApp, Message, Receive, Send

__all__ = ["Errors", "listening", "needs_uvicorn", "on_socket"]

_BACKLOG: Final = 2048

#: Exceptions of an application that are remembered, of which somebody may ask.
_REMEMBERED: Final = 256


class Errors:
    """Tells what an application raised, by the address of the client whose request it was."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._raised: deque[tuple[Any, BaseException]] = deque(maxlen=_REMEMBERED)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """The application."""
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            self._raised.append((scope.get("client"), error))
            raise

    def of(self, client: tuple[str, int]) -> BaseException | None:
        """The last one that a request from ``client`` made it raise."""
        return next((error for address, error in reversed(self._raised) if address == client), None)


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
