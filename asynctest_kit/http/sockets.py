"""Requests to a real server, on connections of our own.

The pools of httpx are what mocks stand in for; these are not, so that a test calls its application while it mocks what
that calls. A connection carries one request at a time, is kept for the next, and is left after an answer
that says that the server has failed.
"""

from __future__ import annotations

import ssl
from collections import defaultdict
from contextlib import contextmanager
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import httpcore
import httpx

from asynctest_kit.errors import AtkError
from asynctest_kit.http.responses import TELLS_ERROR, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from asynctest_kit.http.app_errors import AppErrors
    from asynctest_kit.http.served import Asked, Errors

__all__ = ["SocketTransport", "Verify", "ssl_context"]

#: How a server's certificate is checked: as usual, not at all, by the authorities in a file, or by a context.
Verify = bool | str | ssl.SSLContext

#: Methods that may be sent again, if a connection that was kept turns out to be closed.
_REPEATABLE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})

#: What a connection that was closed meanwhile does to a request.
_STALE: Final = (httpcore.ReadError, httpcore.WriteError, httpcore.RemoteProtocolError)

_FAILED: Final = 500


#: Scheme, host and port.
_Place = tuple[bytes, bytes, int]


@lru_cache
def _context(verify: bool | str, *, http2: bool) -> ssl.SSLContext:
    """One for all clients: to make it takes longer than many tests."""
    if isinstance(verify, str):
        context = ssl.create_default_context(cafile=verify)
    else:
        context = httpx.create_ssl_context(verify=verify)
    return _offering_http2(context) if http2 else context


def _offering_http2(context: ssl.SSLContext) -> ssl.SSLContext:
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def ssl_context(verify: Verify, *, http2: bool = False) -> ssl.SSLContext:
    """The context that all who check certificates so share; one that is given is made to offer HTTP/2, if asked."""
    if not isinstance(verify, ssl.SSLContext):
        return _context(verify, http2=http2)
    return _offering_http2(verify) if http2 else verify


class SocketTransport(httpx.AsyncBaseTransport):
    """Sends requests where their URLs say.

    Args:
        verify: How a server's certificate is checked.
        errors: Tells what an application in this process raised.
        owner: Is told of it, where these requests made it.
        http2: Whether HTTP/2 is spoken with servers that do, over TLS.

    Raises:
        AtkError: What speaks HTTP/2 isn't installed.
    """

    def __init__(
        self,
        verify: Verify = True,
        errors: Errors | None = None,
        owner: AppErrors | None = None,
        *,
        http2: bool = False,
    ) -> None:
        if http2 and find_spec("h2") is None:
            raise AtkError("HTTP/2 is spoken by h2, which isn't installed: pip install 'httpx[http2]'")
        self._verify = verify
        self._http2 = http2
        self._errors = errors
        self._owner = owner
        self._backend = httpcore.AnyIOBackend()
        self._idle: defaultdict[_Place, list[_Connection]] = defaultdict(list)
        self._open: set[_Connection] = set()

    async def handle_async_request(self, request: httpx.Request) -> Response:
        """Send it, and give what comes back, as soon as it begins."""
        url = request.url
        sent = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _told_as_httpx(request):
            connection = await self._kept(sent.url.origin)
            if connection is not None:
                try:
                    return await self._ask(connection, sent)
                except _STALE:
                    if sent.method not in _REPEATABLE or not isinstance(request.stream, httpx.ByteStream):
                        raise
            return await self._ask(await self._connect(sent), sent)

    async def aclose(self) -> None:
        """Close all connections."""
        self._idle.clear()
        while self._open:
            await self._open.pop().http.aclose()

    @property
    def tells_errors(self) -> bool:
        """Whether it is known what the application raises."""
        return self._errors is not None

    def asks(
        self, client: tuple[str, int], before: Asked | None = None
    ) -> tuple[Asked, Callable[[], BaseException | None]] | None:
        """A request that ``client`` sends next, and what tells what the application raises of it, if that is known."""
        if self._errors is None:
            return None
        asked = self._errors.asked(client, self._owner, before)
        return asked, partial(self._told, self._errors, asked)

    def _told(self, errors: Errors, asked: Asked) -> BaseException | None:
        error = errors.of(asked)
        if self._owner is not None:
            self._owner.looked_at(error)
        return error

    async def _kept(self, origin: httpcore.Origin) -> _Connection | None:
        idle = self._idle[_place(origin)]
        while idle:
            connection = idle.pop()
            if not connection.http.has_expired():
                return connection
            self._open.discard(connection)
            await connection.http.aclose()
        return None

    async def _connect(self, request: httpcore.Request) -> _Connection:
        origin, timeout = request.url.origin, request.extensions.get("timeout", {}).get("connect")
        host = origin.host.decode("ascii")
        stream = await self._backend.connect_tcp(host, origin.port, timeout=timeout)
        address = stream.get_extra_info("client_addr")
        if origin.scheme == b"https":
            context = ssl_context(self._verify, http2=self._http2)
            stream = await stream.start_tls(context, server_hostname=host, timeout=timeout)
        connection = _Connection(_speaking(origin, stream), _place(origin), address)
        self._open.add(connection)
        return connection

    async def _ask(self, connection: _Connection, request: httpcore.Request) -> Response:
        tells = self.asks(connection.address, connection.asked)
        try:
            response = await connection.http.handle_async_request(request)
        except BaseException:
            self._open.discard(connection)
            raise
        extensions = response.extensions
        if tells is not None:
            connection.asked, tell = tells
            extensions = {**extensions, TELLS_ERROR: tell}
        body = _Body(self, connection, response)
        return Response(response.status, headers=response.headers, stream=body, extensions=extensions)

    async def leave(self, connection: _Connection, status: int) -> None:
        """Keep a connection whose response has been read, or close it."""
        if not connection.http.is_idle() or status >= _FAILED:
            self._open.discard(connection)
            await connection.http.aclose()
        elif connection in self._open:
            self._idle[connection.place].append(connection)


#: What speaks HTTP over a stream.
_Http = httpcore.AsyncHTTP11Connection | httpcore.AsyncHTTP2Connection


def _speaking(origin: httpcore.Origin, stream: httpcore.AsyncNetworkStream) -> _Http:
    """HTTP of the version that was agreed on."""
    tls = stream.get_extra_info("ssl_object")
    if tls is not None and tls.selected_alpn_protocol() == "h2":
        return httpcore.AsyncHTTP2Connection(origin, stream)
    return httpcore.AsyncHTTP11Connection(origin, stream)


class _Connection:
    def __init__(self, http: _Http, place: _Place, address: Any) -> None:
        self.http = http
        self.place = place
        self.address = address
        self.asked: Asked | None = None


class _Body(httpx.AsyncByteStream):
    """A response's body as it comes."""

    def __init__(self, transport: SocketTransport, connection: _Connection, response: httpcore.Response) -> None:
        self._transport = transport
        self._connection = connection
        self._response = response
        self._is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _told_as_httpx(None):
            async for part in self._response.stream:  # type: ignore[union-attr]
                yield part

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            try:
                await self._response.aclose()
            finally:
                await self._transport.leave(self._connection, self._response.status)


def _place(origin: httpcore.Origin) -> _Place:
    return origin.scheme, origin.host, origin.port


@contextmanager
def _told_as_httpx(request: httpx.Request | None) -> Iterator[None]:
    """Tell errors by the names of httpx, which are those of httpcore."""
    try:
        yield
    except Exception as error:
        for kind in type(error).__mro__:
            known = getattr(httpx, kind.__name__, None)
            if kind.__module__.startswith("httpcore") and known is not None:
                raise known(str(error), **({} if request is None else {"request": request})) from error
        raise
