"""WebSockets to the application under test: in process without a socket, else by the library ``websockets``."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import httpx

from asynctest_kit.errors import AtkError
from asynctest_kit.http.in_process import AppTransport
from asynctest_kit.http.responses import check
from asynctest_kit.http.sockets import SocketTransport, Verify, ssl_context
from asynctest_kit.http.transcripts import LAST_MESSAGES, asked, spoken, transcript

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from asynctest_kit.http.app_errors import AppErrors
    from asynctest_kit.http.lifespan import ASGIApp, Message
    from asynctest_kit.http.scrubbing import Scrubber

__all__ = ["WebSocket", "WebSocketClosedError", "WebSocketRefusedError", "opened_websocket"]

#: A failure is shown where the test called.
__tracebackhide__ = True

#: The code of a connection that its holder left without a word.
_ABNORMAL: Final = 1006

_NORMAL: Final = 1000

_FAILED: Final = 1011

#: From here on codes are an application's own.
_OWN: Final = 3000

#: Codes of an end that nothing is amiss with: done, going away, nothing said.
_GOOD: Final = (_NORMAL, 1001, 1005)

#: Headers of the handshake that the library makes itself.
_OF_HANDSHAKE: Final = frozenset(
    {"accept", "accept-encoding", "connection", "host", "sec-websocket-protocol", "upgrade"}
)

#: Headers of its answer that say nothing of a test.
_OF_PROTOCOL: Final = frozenset({"upgrade", "sec-websocket-accept", "sec-websocket-extensions"})

#: Messages that an application in this process may send before one is read.
_UNREAD: Final = 64


class WebSocketRefusedError(AtkError):
    """The application did not take a WebSocket.

    Attributes:
        status: Of its answer.
        body: Of its answer.
    """

    def __init__(self, message: str, status: int, body: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class WebSocketClosedError(AtkError):
    """A WebSocket is closed.

    Attributes:
        code: Why, as a number.
        reason: Why, in words.
    """

    def __init__(self, message: str, code: int, reason: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class _Channel(Protocol):
    subprotocol: str | None
    headers: Sequence[tuple[str, str]]

    async def send(self, data: str | bytes) -> None: ...

    async def receive(self) -> str | bytes: ...

    async def close(self, code: int, reason: str) -> None: ...


class WebSocket:
    """An open WebSocket; ``async for message in ws`` ends when the application closes it, and raises if that failed.

    Attributes:
        path: Where.
        subprotocol: What the application chose of those that were offered.
    """

    def __init__(self, channel: _Channel, request: httpx.Request, timeout: float | None, scrubber: Scrubber) -> None:
        self.path = request.url.path
        self.subprotocol = channel.subprotocol
        self._channel = channel
        self._request = request
        self._timeout = timeout
        self._scrubber = scrubber
        self._last: deque[tuple[str, str | bytes]] = deque(maxlen=LAST_MESSAGES)

    async def send(self, data: str | bytes) -> None:
        """Send a message.

        Raises:
            WebSocketClosedError: It is closed.
        """
        try:
            await self._channel.send(data)
        except WebSocketClosedError as closed:
            raise self._told(closed) from closed.__cause__
        self._last.append(("sent", data))

    async def send_json(self, value: Any) -> None:
        """Send a message of text with a value as JSON."""
        await self.send(json.dumps(value))

    async def receive(self) -> str | bytes:
        """The next message.

        Raises:
            WebSocketClosedError: It is closed.
            TimeoutError: There was none in time.
        """
        try:
            return await self._received()
        except WebSocketClosedError as closed:
            raise self._told(closed) from closed.__cause__

    async def receive_json(self) -> Any:
        """The next message, as JSON."""
        return json.loads(await self.receive())

    async def expect(self, expected: Any) -> Any:
        """Hold the next message against what is expected, and return it.

        Args:
            expected: As text or bytes if this is one, or a pattern, else as JSON; see
                :mod:`asynctest_kit.http.matching`.

        Raises:
            ExpectationError: It is another one.
        """
        message: Any = await self.receive()
        if not isinstance(expected, (str, bytes)) and not hasattr(expected, "search"):
            with suppress(ValueError):
                message = json.loads(message)
        check(f"the next message of WebSocket {self.path}", expected, message, self._scrubber, self._transcript)
        return message

    async def close(self, code: int = _NORMAL, reason: str = "") -> None:
        """Close it."""
        await self._channel.close(code, reason)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self._received()
        except WebSocketClosedError as closed:
            if closed.code in _GOOD or closed.code >= _OWN:
                raise StopAsyncIteration from None
            raise self._told(closed) from closed.__cause__

    async def _received(self) -> str | bytes:
        _users_deadline = True
        try:
            async with asyncio.timeout(self._timeout):
                message = await self._channel.receive()
        except TimeoutError:
            what = f"WebSocket {self.path}: no message within {self._timeout:g} s"
            raise TimeoutError(f"{what}\n\n{self._transcript()}") from None
        self._last.append(("received", message))
        return message

    def _told(self, closed: WebSocketClosedError) -> WebSocketClosedError:
        return WebSocketClosedError(f"{closed}\n\n{self._transcript()}", closed.code, closed.reason)

    def _transcript(self) -> str:
        """The handshake, and what was said since."""
        answer = httpx.Response(101, headers=self._channel.headers, request=self._request)
        return f"{transcript(answer, self._scrubber)}\n{spoken(self._last, self._scrubber)}"


@asynccontextmanager
async def opened_websocket(
    request: httpx.Request,
    transport: httpx.AsyncBaseTransport,
    subprotocols: Sequence[str],
    verify: Verify,
    scrubber: Scrubber,
) -> AsyncIterator[WebSocket]:
    """Open one, which is closed with the block.

    Args:
        request: What begins it.
        transport: What would carry that.
        subprotocols: That are offered.
        verify: How a server's certificate is checked.
        scrubber: Tells what messages hide.

    Raises:
        WebSocketRefusedError: The application doesn't take it.
    """
    timeout: float | None = request.extensions["timeout"]["read"]
    if isinstance(transport, AppTransport):
        opening = _in_process(request, transport, subprotocols, timeout)
    else:
        opening = _on_socket(request, transport, subprotocols, verify, timeout)
    async with AsyncExitStack() as stack:
        try:
            channel = await stack.enter_async_context(opening)
        except TimeoutError:
            what = f"WebSocket {request.url.path}: no handshake within {timeout:g} s"
            raise TimeoutError(f"{what}\n\n{asked(request, scrubber)}") from None
        except WebSocketRefusedError as refused:
            answer = httpx.Response(refused.status, content=refused.body, request=request)
            told = f"{refused}\n\n{transcript(answer, scrubber)}"
            raise WebSocketRefusedError(told, refused.status, refused.body) from refused.__cause__
        yield WebSocket(channel, request, timeout, scrubber)


@asynccontextmanager
async def _in_process(
    request: httpx.Request, transport: AppTransport, subprotocols: Sequence[str], within: float | None
) -> AsyncIterator[_Channel]:
    _users_deadline = True
    channel = _AppChannel(request.url.path, transport.owner, raises=transport.raise_app_exceptions)
    transport.run(channel.run(transport.app, transport.websocket_scope(request, subprotocols)))
    try:
        async with asyncio.timeout(within):
            await channel.open()
        yield channel
    finally:
        await channel.close(_NORMAL, "")  # the task ends by itself, or with its transport


class _AppChannel:
    """The client's end of a WebSocket whose other end is an application in this process."""

    subprotocol: str | None = None
    headers: Sequence[tuple[str, str]] = ()

    def __init__(self, path: str, owner: AppErrors | None, *, raises: bool) -> None:
        self._path = path
        self._owner = owner
        self._raises = raises
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._room = asyncio.Semaphore(_UNREAD)
        self._is_closed = False
        self._to_app.put_nowait({"type": "websocket.connect"})

    async def run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        error: BaseException | None = None
        try:
            await app(scope, self._to_app.get, self._take)
        except (KeyboardInterrupt, SystemExit, asyncio.CancelledError):
            raise
        except BaseException as raised:  # noqa: BLE001  # whoever receives is told
            error = raised
            if self._owner is not None:
                self._owner.note(raised, scope)
        finally:
            self._from_app.put_nowait({"type": "ended", "error": error})

    async def _take(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            await self._room.acquire()
            if self._is_closed:
                self._room.release()
                await asyncio.sleep(0)
                return
        self._from_app.put_nowait(message)

    async def open(self) -> None:
        message = await self._from_app.get()
        kind = message["type"]
        if kind == "websocket.accept":
            self.subprotocol = message.get("subprotocol")
            given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers") or ()]
            chosen = [("sec-websocket-protocol", self.subprotocol)] if self.subprotocol else []
            self.headers = [*chosen, *given]
            return
        self._is_closed = True
        if kind == "ended":
            error = self._told(message)
            if error is not None and (self._raises or not isinstance(error, Exception)):
                raise error
            raise WebSocketRefusedError(f"WebSocket {self._path}: {_ended(error)}", 500) from error
        if kind == "websocket.http.response.start":
            body = (await self._from_app.get()).get("body", b"")
            raise _refused(self._path, message["status"], body)
        raise _refused(self._path, 403, b"")

    async def send(self, data: str | bytes) -> None:
        if self._is_closed:
            raise _closed(self._path, _ABNORMAL, "")
        self._to_app.put_nowait({"type": "websocket.receive", "text" if isinstance(data, str) else "bytes": data})

    async def receive(self) -> str | bytes:
        if self._is_closed and self._from_app.empty():
            raise _closed(self._path, _ABNORMAL, "")
        message = await self._from_app.get()
        if message["type"] == "websocket.send":
            self._room.release()
            data: str | bytes = message["text"] if message.get("text") is not None else message["bytes"]
            return data
        self._end()
        error = self._told(message)
        if error is not None:
            if self._raises or not isinstance(error, Exception):
                raise error
            raise _closed(self._path, _FAILED, _ended(error)) from error
        raise _closed(self._path, message.get("code", _NORMAL), message.get("reason") or "")

    def _told(self, message: Message) -> BaseException | None:
        error: BaseException | None = message.get("error")
        if self._owner is not None:
            self._owner.looked_at(error)
        return error

    async def close(self, code: int, reason: str) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._room.release()
            self._to_app.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

    def _end(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._room.release()
            self._to_app.put_nowait({"type": "websocket.disconnect", "code": _ABNORMAL, "reason": ""})


@asynccontextmanager
async def _on_socket(
    request: httpx.Request,
    transport: httpx.AsyncBaseTransport,
    subprotocols: Sequence[str],
    verify: Verify,
    within: float | None,
) -> AsyncIterator[_Channel]:
    if find_spec("websockets") is None:
        raise AtkError("WebSockets on a real socket need websockets: pip install 'asynctest_kit[api]'")
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    offered: Any = list(subprotocols) or None  # a type of the library's own
    url = request.url.copy_with(scheme={"https": "wss"}.get(request.url.scheme, "ws"))
    stream, told_error = await _connected(url, transport)
    connecting = connect(
        str(url),
        additional_headers=[(name, value) for name, value in request.headers.items() if name not in _OF_HANDSHAKE],
        subprotocols=offered,
        ssl=ssl_context(verify) if url.scheme == "wss" else None,
        open_timeout=within,
        user_agent_header=None,
        proxy=None,
        sock=stream,
    )
    try:
        connection = await connecting
    except InvalidStatus as refused:
        told_error()
        raise _refused(request.url.path, refused.response.status_code, bytes(refused.response.body or b"")) from None
    async with connection:
        yield _SocketChannel(connection, request.url.path, told_error)


async def _connected(
    url: httpx.URL, transport: httpx.AsyncBaseTransport
) -> tuple[socket.socket | None, Callable[[], BaseException | None]]:
    """A connection to an application in this process, whose exceptions are told by its address."""
    if not isinstance(transport, SocketTransport) or not transport.tells_errors or url.host != "127.0.0.1":
        return None, lambda: None
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (url.host, url.port or 80))
        asked = transport.asks(made.getsockname())
    except BaseException:
        made.close()
        raise
    return made, asked[1] if asked is not None else lambda: None


class _SocketChannel:
    def __init__(self, connection: Any, path: str, told_error: Callable[[], BaseException | None]) -> None:
        self._told_error = told_error
        self.subprotocol: str | None = connection.subprotocol
        given = connection.response.headers.raw_items()
        self.headers: Sequence[tuple[str, str]] = [
            (name, value) for name, value in given if name.lower() not in _OF_PROTOCOL
        ]
        self._connection = connection
        self._path = path

    async def send(self, data: str | bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(data)
        except ConnectionClosed as closed:
            raise self._closed(closed) from self._told_error()

    async def receive(self) -> str | bytes:
        from websockets.exceptions import ConnectionClosed

        try:
            message: str | bytes = await self._connection.recv()
        except ConnectionClosed as closed:
            raise self._closed(closed) from self._told_error()
        return message

    async def close(self, code: int, reason: str) -> None:
        await self._connection.close(code, reason)

    def _closed(self, closed: Any) -> WebSocketClosedError:
        received = closed.rcvd
        if received is None:
            return _closed(self._path, _ABNORMAL, "")
        return _closed(self._path, received.code, received.reason)


def _refused(path: str, status: int, body: bytes) -> WebSocketRefusedError:
    told = f": {body[:200].decode(errors='replace')}" if body else ""
    return WebSocketRefusedError(
        f"WebSocket {path}: the application refused it with status {status}{told}", status, body
    )


def _closed(path: str, code: int, reason: str) -> WebSocketClosedError:
    told = f": {reason}" if reason else ""
    return WebSocketClosedError(f"WebSocket {path} is closed, with code {code}{told}", code, reason)


def _ended(error: BaseException | None) -> str:
    if error is None:
        return "the application returned without accepting it"
    return f"the application raised {type(error).__name__}: {error}"
