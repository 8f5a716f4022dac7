"""Requests that reach an ASGI application in this process, without a socket.

Each runs in a task of its own, in a copy of its caller's context, as a server would run it: what it sets in context
variables is its own, cancelling the caller doesn't tear it apart but tells it that the client has gone, and what it
sends is there when it is sent. A response has been read to its end when the application has returned: its background
tasks are done.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import httpx

from asynctest_kit.http.responses import TELLS_ERROR, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from asynctest_kit.http.app_errors import AppErrors
    from asynctest_kit.http.lifespan import ASGIApp, Message

__all__ = ["AppTransport", "ended"]

#: As a server would log it: what comes after a response has nobody else to be told.
_LOGGER: Final = logging.getLogger("asynctest_kit.app")

#: How much an application may send ahead of its reader, in bytes.
_AHEAD: Final = 1 << 16

#: Seconds for a request to end whose caller has gone, before it is cancelled.
_GRACE: Final = 0.5

#: What an application that is served tells as its client's address.
_CLIENT: Final = ("127.0.0.1", 0)

_VERSIONS: Final = {"version": "3.0", "spec_version": "2.3"}


class AppTransport(httpx.AsyncBaseTransport):
    """Has requests answered by ``app``.

    A request whose application raises is answered with what it sent before, or with status 500; the response's
    ``error`` is the exception.

    Args:
        app: The application.
        state: Of its lifespan.
        raise_app_exceptions: Whether the caller gets the exception instead.
        owner: Is told of all that the application raises.
    """

    def __init__(
        self,
        app: ASGIApp,
        state: dict[str, Any] | None = None,
        *,
        raise_app_exceptions: bool = False,
        owner: AppErrors | None = None,
    ) -> None:
        self.app = app
        self.state = {} if state is None else state
        self.raise_app_exceptions = raise_app_exceptions
        self.owner = owner
        self._tasks: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx.Request) -> Response:
        """Answer ``request`` as soon as the application has begun to."""
        exchange = _Exchange(request, self.owner)
        self.run(exchange.run(self.app, self._scope(request)))
        try:
            await exchange.begun()
            exchange.check(raises=self.raise_app_exceptions)
        except BaseException:
            exchange.disconnect()
            raise
        return Response(
            exchange.status,
            headers=exchange.headers,
            stream=_Body(exchange, raises=self.raise_app_exceptions),
            extensions={"http_version": b"HTTP/1.1", TELLS_ERROR: exchange.told_error},
        )

    async def aclose(self) -> None:
        """End what still runs."""
        await ended(self._tasks)

    def run(self, answering: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have the application answer in a task of its own, which ends with this at the latest."""
        task = asyncio.ensure_future(answering)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def websocket_scope(self, request: httpx.Request, subprotocols: Sequence[str]) -> dict[str, Any]:
        """The scope of a WebSocket that begins with ``request``."""
        scope = self._scope(request)
        del scope["method"]
        secure = scope["scheme"] in ("https", "wss")
        more = {"subprotocols": list(subprotocols), "extensions": {"websocket.http.response": {}}}
        return {**scope, "type": "websocket", "scheme": "wss" if secure else "ws", **more}

    def _scope(self, request: httpx.Request) -> dict[str, Any]:
        url = request.url
        return {
            "type": "http",
            "asgi": _VERSIONS,
            "http_version": "1.1",
            "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.split(b"?", 1)[0],
            "query_string": url.query,
            "server": (url.host, url.port or (443 if url.scheme == "https" else 80)),
            "client": _CLIENT,
            "root_path": "",
            "state": self.state.copy(),
        }


class _Exchange:
    """One request and what comes of it."""

    # Most exchanges need no more than a few of their own.
    status = 500
    headers: Sequence[tuple[bytes, bytes]] = ()
    error: BaseException | None = None
    _incoming: AsyncIterator[bytes] | None = None
    _reader: asyncio.Future[None] | None = None
    _gone: asyncio.Event | None = None
    _room: asyncio.Event | None = None
    _has_received = _has_begun = _is_complete = _is_over = _is_alone = False
    _size = 0

    def __init__(self, request: httpx.Request, owner: AppErrors | None) -> None:
        self._request = request
        self._owner = owner
        self._chunks: deque[bytes] = deque()

    async def run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        """Have ``app`` answer."""
        try:
            await app(scope, self.receive, self.send)
            if not self._is_complete and not self._is_alone:
                self.error = RuntimeError("The application returned without a complete response.")
        except (KeyboardInterrupt, SystemExit):
            raise
        except asyncio.CancelledError:
            self.error = RuntimeError("The application was cancelled.")
            raise
        except BaseException as error:  # whoever waits for the response is told
            self.error = error
            if self._owner is not None:
                self._owner.note(error, scope, self.status if self._has_begun else 0)
            _LOGGER.exception("Exception in the application under test")
        finally:
            if not self._has_begun:
                self.headers = [(b"content-type", b"text/plain; charset=utf-8")]
                self._chunks.append(b"Internal Server Error")
                self._has_begun = self._is_complete = True
            self._is_over = True
            self._wake()

    def told_error(self) -> BaseException | None:
        """What the application raised so far; whoever asks knows it."""
        if self._owner is not None:
            self._owner.looked_at(self.error)
        return self.error

    def check(self, *, raises: bool) -> None:
        """Raise what the application raised, if the caller wants it, or if it is none that a server would handle."""
        if self.error is not None and (raises or not isinstance(self.error, Exception)):
            self.told_error()
            raise self.error
        if self.error is not None and not self._is_complete and self._is_over and not self._chunks:
            self.told_error()
            raise httpx.RemoteProtocolError(
                "The application raised an exception after a part of its response.", request=self._request
            ) from self.error

    async def receive(self) -> Message:
        """What the application gets of the request."""
        if not self._has_received:
            stream = self._request.stream
            assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101  # as of httpx
            if isinstance(stream, httpx.ByteStream):
                self._has_received = True
                return {"type": "http.request", "body": self._request.read(), "more_body": False}
            if self._incoming is None:
                self._incoming = stream.__aiter__()
            try:
                return {"type": "http.request", "body": await anext(self._incoming), "more_body": True}
            except StopAsyncIteration:
                self._has_received = True
                return {"type": "http.request", "body": b"", "more_body": False}
        if self._gone is None:
            self._gone = asyncio.Event()
            if self._is_complete or self._is_alone:
                self._gone.set()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """What comes from the application."""
        if self._is_alone:
            await asyncio.sleep(0)  # who sends on and on doesn't hold up the loop
            return
        kind = message["type"]
        if kind == "http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers", ()))
            self._has_begun = True
        elif kind == "http.response.body":
            if not self._has_begun or self._is_complete:
                raise RuntimeError(f"The application sent a body {'after its end' if self._has_begun else 'first'}.")
            if (body := message.get("body", b"")) and self._request.method != "HEAD":
                self._chunks.append(body)
                self._size += len(body)
            if not message.get("more_body", False):
                self._is_complete = True
                if self._gone is not None:
                    self._gone.set()
        self._wake()
        if self._size > _AHEAD and not self._is_complete:
            self._room = asyncio.Event()
            await self._room.wait()

    async def begun(self) -> None:
        """Wait for the response to begin."""
        await asyncio.sleep(0)  # all that most applications need, and no timer
        while not self._has_begun:
            await self._next("the response")

    async def chunk(self) -> bytes | None:
        """Wait for the next piece of the body; None: there is no more, and the application has returned."""
        while not self._chunks:
            if self._is_over:
                return None
            await self._next("the rest of the response")
        piece = self._chunks.popleft()
        self._size -= len(piece)
        if self._room is not None and self._size <= _AHEAD:
            self._room.set()
        return piece

    def disconnect(self) -> None:
        """Tell the application that nobody waits for the rest."""
        self._is_alone = True
        for event in (self._gone, self._room):
            if event is not None:
                event.set()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _next(self, what: str) -> None:
        """Wait for the application to do something."""
        _users_deadline = True
        loop = asyncio.get_running_loop()
        reader = self._reader = loop.create_future()
        timeout = self._request.extensions.get("timeout", {}).get("read")
        timer = None if timeout is None else loop.call_later(timeout, self._expire, reader, f"{timeout:g} s", what)
        try:
            await reader
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, reader: asyncio.Future[None], limit: str, what: str) -> None:
        if not reader.done():
            message = f"{limit} were not enough for {what}"
            reader.set_exception(httpx.ReadTimeout(message, request=self._request))


class _Body(httpx.AsyncByteStream):
    """What an application sends, as it comes."""

    def __init__(self, exchange: _Exchange, *, raises: bool) -> None:
        self._exchange = exchange
        self._raises = raises

    async def __aiter__(self) -> AsyncIterator[bytes]:
        exchange = self._exchange
        while (piece := await exchange.chunk()) is not None:
            yield piece
        exchange.check(raises=self._raises)

    async def aclose(self) -> None:
        self._exchange.disconnect()


async def ended(tasks: set[asyncio.Task[None]]) -> None:
    """Wait for ``tasks``, whose callers have gone, and cancel those that don't end soon."""
    left = set(tasks)
    if left:
        _, left = await asyncio.wait(left, timeout=_GRACE)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
