"""Calls to the application under test: requests, streams, server-sent events and WebSockets.

    response = await api.get("/users/1")
    response.expect(200, json={"name": str, "orders": each({"id": int})})

It is httpx underneath: what its clients' methods take, these take. Cookies are kept from call to call, as by a browser;
:meth:`Api.as_` and :meth:`Api.session` are other browsers, on the same connections. Redirects are not followed unless
a call says ``follow_redirects=True``.
"""

from __future__ import annotations

import re
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar, cast

import httpx

from asynctest_kit.errors import AtkError
from asynctest_kit.http.app_errors import AppErrors
from asynctest_kit.http.apps import OpenedApp, opened_app
from asynctest_kit.http.in_process import AppTransport
from asynctest_kit.http.responses import SCRUBBER, Response
from asynctest_kit.http.scrubbing import Scrubber
from asynctest_kit.http.sockets import SocketTransport, Verify

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from asynctest_kit.http.apps import App
    from asynctest_kit.http.sse import Events
    from asynctest_kit.http.websocket import WebSocket

__all__ = ["WEBSOCKET", "Api", "Bearer", "Call", "Session", "route_of"]

#: A failure is shown where the test called.
__tracebackhide__ = True

_T = TypeVar("_T")

#: Seconds for each step of a call.
_PATIENCE: Final = 30.0

#: In place of a method, of a session over a WebSocket.
WEBSOCKET: Final = "WEBSOCKET"

#: Steps of a path that name one thing of many.
_NAMES_ONE: Final = re.compile(r"\d+|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|(?=[^/]*\d)[\w.=~-]{16,}|[^/]{41,}")


class Call(NamedTuple):
    """A call that was made.

    Attributes:
        method: Its method, or :data:`WEBSOCKET`.
        path: Its path; :func:`route_of` tells which calls are alike.
        start: When it began, in seconds on CLOCK_MONOTONIC.
        end: When its response had been read, it failed, it was cut off, or the WebSocket was closed.
        timed_out: Whether it ended in a time-out of its own; one around it, of the test's, cuts it off.
    """

    method: str
    path: str
    start: float
    end: float
    timed_out: bool = False


class Bearer(httpx.Auth):
    """``Authorization: Bearer TOKEN``, as ``auth`` of a call or a session."""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def auth_flow(self, request: httpx.Request) -> Any:
        """As of httpx."""
        request.headers["Authorization"] = self._header
        yield request


@dataclass(frozen=True, slots=True)
class _Connected:
    """What the sessions of an :class:`Api` share."""

    opened: OpenedApp
    transport: httpx.AsyncBaseTransport
    scrubber: Scrubber
    verify: Verify
    on_call: Callable[[Call], None] | None
    errors: AppErrors
    sessions: list[Session] = field(default_factory=list)
    named: dict[str, Session] = field(default_factory=dict)
    on_response: list[Any] = field(default_factory=list)
    checks: list[Callable[[], None]] = field(default_factory=list)


class Session:
    """Calls of one user: cookies are kept from call to call. See :class:`Api`, which is one, for the arguments."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._connected: _Connected | None = None
        self._opened_client: httpx.AsyncClient | None = None

    def _connect(self, connected: _Connected) -> None:
        self._connected = connected
        # Nothing of the environment is meant for the application under test: no proxy, no .netrc.
        self._opened_client = httpx.AsyncClient(
            transport=connected.transport, base_url=connected.opened.base_url, trust_env=False, **self._options
        )
        self._opened_client.event_hooks["response"] = connected.on_response
        connected.sessions.append(self)

    def _disconnect(self) -> None:
        self._connected = self._opened_client = None

    @property
    def base_url(self) -> str:
        """What a path is relative to."""
        return self._shared.opened.base_url

    @property
    def cookies(self) -> httpx.Cookies:
        """What this session's calls send, and what their responses have set."""
        return self._client.cookies

    @property
    def headers(self) -> httpx.Headers:
        """What this session's calls send; they may be changed."""
        return self._client.headers

    @property
    def event_hooks(self) -> dict[str, list[Any]]:
        """Those of httpx; a hook for responses is one for all sessions."""
        return self._client.event_hooks

    @property
    def _shared(self) -> _Connected:
        return _open(self._connected)

    @property
    def _client(self) -> httpx.AsyncClient:
        return _open(self._opened_client)

    def session(
        self, *, auth: Any = None, headers: Mapping[str, str] | None = None, cookies: Mapping[str, str] | None = None
    ) -> Session:
        """Another client of the same application: with cookies of its own, on the same connections.

        Args:
            auth: Who it is; None: nobody.
            headers: Of its calls, beside this one's.
            cookies: That it has at first.
        """
        options = {**self._options, "cookies": cookies, "auth": auth}
        options["headers"] = {**self._options["headers"], **(headers or {})}
        made = Session(options)
        made._connect(self._shared)
        return made

    def as_(self, name: str, *, auth: Any = None, headers: Mapping[str, str] | None = None) -> Session:
        """The session that goes by ``name``: made at its first use, the same one from then on.

        Args:
            name: Whose it is.
            auth: Who that is; if it is made already, from now on.
            headers: Of its calls, beside this one's; likewise.
        """
        named = self._shared.named
        if name not in named:
            named[name] = self.session(auth=auth, headers=headers)
        session = named[name]
        if auth is not None:
            session._client.auth = auth  # noqa: SLF001
        if headers:
            session.headers.update(headers)
        return session

    def at_end(self, check: Callable[[], None]) -> None:
        """Have ``check``, which raises what is wrong, called when the :class:`Api` ends without an error."""
        self._shared.checks.append(check)

    def expect_app_error(self, kind: type[Exception] = Exception, match: str | re.Pattern[str] = "") -> None:
        """Expect the application, in process or in the loop, to raise such an error until the :class:`Api` ends.

        Args:
            kind: Its class.
            match: A pattern that is found in its message.
        """
        self._shared.errors.expect(kind, match)

    async def request(self, method: str, url: str, **options: Any) -> Response:
        """Call, and read the whole response.

        Args:
            method: The method.
            url: A path, or a whole URL.
            options: Of :meth:`httpx.AsyncClient.request`: ``params``, ``json``, ``data``, ``files``, ``content``,
                ``headers``, ``cookies``, ``auth``, ``timeout``, ``follow_redirects``.

        Raises:
            httpx.TransportError: There is no response: no connection, no answer in time.
            AppError: The application's own process has ended.
        """
        shared = self._shared
        start = time.monotonic()
        try:
            response = await self._client.request(method, url, **options)
        except BaseException as error:  # the test's own time-out cancels
            self._failed(error, method, url, start)
            raise
        if shared.on_call is not None:
            shared.on_call(Call(method, response.request.url.path, start, time.monotonic()))
        response.extensions[SCRUBBER] = shared.scrubber
        return cast("Response", response)

    async def get(self, url: str, **options: Any) -> Response:
        """``GET``; see :meth:`request`."""
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Any) -> Response:
        """``POST``; see :meth:`request`."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Any) -> Response:
        """``PUT``; see :meth:`request`."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str, **options: Any) -> Response:
        """``PATCH``; see :meth:`request`."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: str, **options: Any) -> Response:
        """``DELETE``; see :meth:`request`."""
        return await self.request("DELETE", url, **options)

    async def head(self, url: str, **options: Any) -> Response:
        """``HEAD``; see :meth:`request`."""
        return await self.request("HEAD", url, **options)

    async def options(self, url: str, **options: Any) -> Response:
        """``OPTIONS``; see :meth:`request`."""
        return await self.request("OPTIONS", url, **options)

    @asynccontextmanager
    async def stream(self, method: str, url: str, **options: Any) -> AsyncIterator[Response]:
        """Call, and read the response piece by piece: ``async for part in response.aiter_bytes()``.

        Leaving the block tells the application that nobody reads on.

        Raises:
            httpx.TransportError: There is no response, or it breaks off.
        """
        start = time.monotonic()
        try:
            async with self._client.stream(method, url, **options) as response:
                response.extensions[SCRUBBER] = self._shared.scrubber
                yield cast("Response", response)
        except BaseException as error:
            self._failed(error, method, url, start)
            raise
        if self._shared.on_call is not None:
            self._shared.on_call(Call(method, response.request.url.path, start, time.monotonic()))

    async def download(self, url: str, to: Path, **options: Any) -> Response:
        """``GET`` into a file, piece by piece; a response with a status of 400 or more is read, and not written."""
        async with self.stream("GET", url, **options) as response:
            if response.is_error:
                await response.aread()
                return response
            with to.open("wb") as file:  # as quick as a page cache
                async for part in response.aiter_bytes():
                    file.write(part)
        return response

    @asynccontextmanager
    async def events(self, url: str, **options: Any) -> AsyncIterator[Events]:
        """Server-sent events: ``async with api.events("/orders/events") as events: first = await anext(events)``.

        Raises:
            ExpectationError: The response has another status than 200, or is no stream of events.
            httpx.TransportError: There is no response.
        """
        from asynctest_kit.http.sse import Events

        method = options.pop("method", "GET")
        options["headers"] = {
            "Accept": "text/event-stream",
            "Cache-Control": "no-store",
            **(options.get("headers") or {}),
        }
        async with self.stream(method, url, **options) as response:
            if response.status_code != httpx.codes.OK or "text/event-stream" not in _kind(response):
                await response.aread()
                response.expect(200, headers={"content-type": re.compile("^text/event-stream")})
            yield Events(response)

    @asynccontextmanager
    async def websocket(
        self,
        url: str,
        *,
        subprotocols: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # of each step, as everywhere here
    ) -> AsyncIterator[WebSocket]:
        """A WebSocket: ``async with api.websocket("/chat") as ws: await ws.send_json({"text": "hi"})``.

        Args:
            url: A path.
            subprotocols: That the application may choose from.
            headers: Of the handshake, beside this session's.
            params: Of the query.
            timeout: Seconds for the handshake, and for each message; None: this session's.

        Raises:
            WebSocketRefusedError: The application doesn't take it.
            AtkError: On a real socket it needs a library that isn't installed.
        """
        from asynctest_kit.http.websocket import opened_websocket

        limits = self._client.timeout if timeout is None else httpx.Timeout(timeout)
        request = self._client.build_request("GET", url, headers=headers, params=params, timeout=limits)
        auth = self._client._build_request_auth(request)  # noqa: SLF001  # httpx has no public name for it
        request = next(auth.sync_auth_flow(request))
        shared = self._shared
        opening = opened_websocket(request, shared.transport, subprotocols, shared.verify, shared.scrubber)
        start = time.monotonic()
        try:
            async with opening as websocket:
                yield websocket
        except BaseException as error:
            self._failed(error, WEBSOCKET, url, start)
            raise
        if shared.on_call is not None:
            shared.on_call(Call(WEBSOCKET, request.url.path, start, time.monotonic()))

    def _failed(self, error: BaseException, method: str, url: str, start: float) -> None:
        """Tell of a call that was cut off; say more of one that has no response."""
        end = time.monotonic()
        shared = self._connected
        if shared is None:  # the Api has ended before
            return
        timed_out = isinstance(error, httpx.TimeoutException | TimeoutError)
        if shared.on_call is not None:
            shared.on_call(Call(method, httpx.URL(url).path, start, end, timed_out))
        if not isinstance(error, httpx.HTTPError):
            return
        process = shared.opened.process
        if process is not None and process.ended():
            raise process.failure(f"has ended with {process.ended()}") from error
        place = shared.scrubber.shown(httpx.URL(shared.opened.base_url).join(url))
        error.add_note(f"{method} {place} failed after {end - start:.2f} s")


class Api(Session):
    """Calls ``app``, which is started with the block and ends with it.

    Args:
        app: What the fixture ``app`` may return; see :mod:`asynctest_kit.http.apps`.
        base_url: What its URLs begin with, where it is reached without a socket: ``"https://shop.example.org"`` for an
            application that wants another host, or whose cookies are for https only.
        headers: Of every call.
        cookies: That it has at first.
        auth: ``("user", "password")``, :class:`Bearer`, or another one of httpx.
        timeout: Seconds for each step of a call: to connect, to write, to read what comes next.
        verify: How a server's certificate is checked.
        http2: Whether HTTP/2 is spoken with a server that does, over TLS.
        follow_redirects: Whether redirects are followed.
        raise_app_exceptions: Whether a call raises what the application raised, where that runs in process; else its
            response has status 500, and tells the exception if that is not expected.
        secret_names: More names of headers, parameters and keys that messages hide.
        on_call: Is told each call when it has ended.
    """

    def __init__(  # noqa: PLR0913  # what a client may be told
        self,
        app: App,
        *,
        base_url: str = "",
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        auth: Any = None,
        timeout: float | None = _PATIENCE,
        verify: Verify = True,
        http2: bool = False,
        follow_redirects: bool = False,
        raise_app_exceptions: bool = False,
        secret_names: Sequence[str] = (),
        on_call: Callable[[Call], None] | None = None,
    ) -> None:
        self._app = app
        self._base_url = base_url
        self._raises = raise_app_exceptions
        self._http2 = http2
        self._shares = (Scrubber(secret_names), verify, on_call)
        self._closing = AsyncExitStack()
        super().__init__(
            {
                "headers": dict(headers or {}),
                "cookies": dict(cookies or {}),
                "auth": auth,
                "timeout": timeout,
                "follow_redirects": follow_redirects,
            }
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            opened = await stack.enter_async_context(opened_app(self._app, raise_app_exceptions=self._raises))
            if self._base_url:
                opened = self._elsewhere(opened)
            errors = AppErrors()
            if opened.errors is not None:
                stack.callback(opened.errors.forget, errors)
            transport = self._transport(opened, errors)
            stack.push_async_callback(transport.aclose)
            self._connect(_Connected(opened, transport, *self._shares, errors))
            self.at_end(errors.check)
            self._closing = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> bool | None:
        checks = [*self._connected.checks] if self._connected is not None and error[0] is None else []
        for session in self._connected.sessions if self._connected is not None else ():
            session._disconnect()  # noqa: SLF001
        is_handled = await self._closing.__aexit__(*error)  # type: ignore[arg-type]
        for check in checks:
            check()
        return is_handled

    def taken_checks(self) -> list[Callable[[], None]]:
        """What is checked at the end: whoever takes it does so then, and this doesn't."""
        checks = [*self._shared.checks]
        self._shared.checks.clear()
        return checks

    def _elsewhere(self, opened: OpenedApp) -> OpenedApp:
        if opened.transport is None:
            raise AtkError(
                f"Api(..., base_url={self._base_url!r}): the application is on a real socket, at {opened.base_url}. "
                "Only one that is called in process can be called as if it were elsewhere."
            )
        return replace(opened, base_url=self._base_url)

    def _transport(self, opened: OpenedApp, errors: AppErrors) -> httpx.AsyncBaseTransport:
        if opened.asgi is not None and opened.transport is not None:
            if self._http2:
                raise AtkError("Api(..., http2=True): an application that is called in process speaks no HTTP at all.")
            return AppTransport(opened.asgi, opened.state, raise_app_exceptions=self._raises, owner=errors)
        return SocketTransport(self._shares[1], opened.errors, errors, http2=self._http2)


def _open(part: _T | None) -> _T:
    if part is None:
        raise AtkError("This Api isn't open: call it within `async with Api(...) as api`.")
    return part


@lru_cache(maxsize=4096)
def route_of(path: str) -> str:
    """A path without what names one thing of many: ``/users/17/orders`` is ``/users/{}/orders``."""
    return "/".join("{}" if _NAMES_ONE.fullmatch(step) else step for step in path.split("/"))


def _kind(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", ""))
