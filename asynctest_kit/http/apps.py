"""The application under test: what the fixture ``app`` returns, and how it is reached.

| What ``app`` is | How it is reached |
|---|---|
| an ASGI application | in this process, without a socket; its lifespan runs around the block |
| ``serve(app)`` | on a real socket, by uvicorn in the running loop |
| ``serve("shop.main:app")`` | on a real socket, by uvicorn in a process of its own |
| a service's endpoint | where it is: a container of the settings, say |
| a URL | there |
| what :func:`opened_app` gave | as it was opened; whoever opened it closes it |

    async with opened_app(app) as opened:
        async with httpx.AsyncClient(transport=opened.transport, base_url=opened.base_url) as client:
            ...
"""

from __future__ import annotations

import asyncio
import importlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import httpx

from asynctest_kit.http.in_process import AppTransport
from asynctest_kit.http.lifespan import AppError, ASGIApp, name_of, running
from asynctest_kit.provision.service import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from asynctest_kit.http.own_process import Process
    from asynctest_kit.http.served import Errors

__all__ = ["App", "AppError", "OpenedApp", "Served", "opened_app", "serve"]

#: The host of what is reached without a socket.
_IN_PROCESS: Final = "http://app.test"

#: Seconds for an application to be ready.
_READY_WITHIN: Final = 30.0

#: Seconds between two looks whether it is.
_LOOKS: Final = 0.05

_WHAT_IT_MAY_BE: Final = (
    "The fixture app may return an ASGI application, serve(...) of one, a service's endpoint, or a URL."
)


@dataclass(frozen=True, slots=True)
class Served:
    """An application that is to be served; see :func:`serve`."""

    target: ASGIApp | str
    factory: bool = False
    process: bool = False
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    ready: str = ""
    timeout: float = _READY_WITHIN


@dataclass(frozen=True, slots=True)
class OpenedApp:
    """An application that can be called.

    Attributes:
        base_url: What its URLs begin with.
        transport: What reaches it; None: a real socket.
        asgi: The application, if it runs in this process.
        state: Of its lifespan.
        process: Its process, if it was started for it.
        errors: Tells what it raised, if it is on a socket of this process.
    """

    base_url: str
    transport: AppTransport | None = None
    asgi: ASGIApp | None = field(default=None, repr=False)
    state: dict[str, Any] = field(default_factory=dict, repr=False)
    process: Process | None = None
    errors: Errors | None = field(default=None, repr=False)


App = ASGIApp | Served | OpenedApp | Endpoint | str


def serve(  # noqa: PLR0913
    target: ASGIApp | str,
    *,
    factory: bool = False,
    process: bool | None = None,
    env: Mapping[str, str | Endpoint] | None = None,
    ready: str = "",
    timeout: float = _READY_WITHIN,
) -> Served:
    """What serves an application on a real socket of the loopback interface, to be returned by the fixture ``app``.

        @pytest.fixture
        def app(pg_database, redis_url):
            return serve("shop.main:app", env={"DATABASE_URL": pg_database, "REDIS_URL": redis_url})

    Args:
        target: The application, or where it is: ``module:name``.
        factory: Whether it is a function without arguments that makes it.
        process: Whether it gets a process of its own; None: if ``target`` is a name.
        env: Variables of that process, beside this one's; of an endpoint it is the URL.
        ready: A path that must answer with a status below 400 before it is used.
        timeout: Seconds for it to be ready.

    Raises:
        AppError: An application that is no name can't have a process of its own, nor ``env`` if there is none.
    """
    is_name = isinstance(target, str)
    own = is_name if process is None else process
    if is_name and ":" not in str(target).strip(":"):
        raise AppError(f"serve({target!r}): an application's name is module:name, as in serve('shop.main:app').")
    if not is_name and not callable(target):
        raise AppError(f"serve(...) takes an ASGI application or its name, and {target!r} is neither.")
    if own and not is_name:
        raise AppError(
            f"serve({name_of(target)}, process=True): another process can't get an object of this one. Give its name, "
            "as in serve('shop.main:app')."
        )
    if env and not own:
        raise AppError("serve(..., env=...): variables are those of a process of its own. Give a name, or no env.")
    values = {name: _value(name, value) for name, value in (env or {}).items()}
    return Served(target, factory, own, values, ready, timeout)


@asynccontextmanager
async def opened_app(app: App, *, raise_app_exceptions: bool = False) -> AsyncIterator[OpenedApp]:
    """Have ``app`` started, if need be, and ready while the block runs.

    Args:
        app: What the fixture of that name returns.
        raise_app_exceptions: Whether a caller gets what an application that is reached without a socket raised, and
            not the response with status 500 that a server would make of it.

    Raises:
        AppError: It is nothing that can be called, did not start, or failed in its shutdown.
    """
    if isinstance(app, OpenedApp):
        yield app
    elif isinstance(app, Served):
        async with _served(app) as opened:
            yield opened
    elif isinstance(app, Endpoint):
        yield OpenedApp(_url_of(app))
    elif isinstance(app, str):
        yield OpenedApp(_checked(app))
    elif callable(app):
        async with running(app) as state:
            transport = AppTransport(app, state, raise_app_exceptions=raise_app_exceptions)
            try:
                yield OpenedApp(_IN_PROCESS, transport, app, state)
            finally:
                await transport.aclose()
    else:
        raise AppError(f"{app!r} is no application. {_WHAT_IT_MAY_BE}")


@asynccontextmanager
async def _served(served: Served) -> AsyncIterator[OpenedApp]:
    if served.process:
        from asynctest_kit.http.own_process import in_own_process

        target = str(served.target)
        async with in_own_process(target, factory=served.factory, env=served.env, within=served.timeout) as process:
            opened = OpenedApp(process.url, process=process)
            await _wait_until_ready(opened, served)
            yield opened
        return

    from asynctest_kit.http.served import on_socket

    app = _imported(served.target) if isinstance(served.target, str) else served.target
    if served.factory:
        app = cast("Callable[[], ASGIApp]", app)()
    async with on_socket(app) as (url, errors):
        opened = OpenedApp(url, asgi=app, errors=errors)
        await _wait_until_ready(opened, served)
        yield opened


async def _wait_until_ready(opened: OpenedApp, served: Served) -> None:
    if not served.ready:
        return
    answer = "nothing"
    _users_deadline = True
    try:
        async with asyncio.timeout(served.timeout):
            while True:
                try:
                    status = await _status(opened.base_url, served.ready)
                except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                    answer = f"{error!r}"
                else:
                    if status < 400:  # noqa: PLR2004  # the first status of errors
                        return
                    answer = f"status {status}"
                if opened.process is not None and opened.process.ended():
                    raise opened.process.failure(f"ended with {opened.process.ended()} before {served.ready} answered")
                await asyncio.sleep(_LOOKS)
    except TimeoutError:
        what = f"was not ready within {served.timeout:g} s: {served.ready} answered {answer}"
        if opened.process is not None:
            raise opened.process.failure(what) from None
        raise AppError(f"The application {served.target!r} {what}.") from None


async def _status(base_url: str, path: str) -> int:
    """The status of an answer. No client of httpx asks, for tests mock what these call."""
    url = httpx.URL(base_url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {url.netloc.decode()}\r\nConnection: close\r\n\r\n".encode())
        line = await reader.readline()
        return int(line.split()[1]) if line.startswith(b"HTTP/") else 0
    except IndexError:
        raise ValueError(f"answered {line!r}") from None
    finally:
        writer.close()


def _imported(name: str) -> ASGIApp:
    module, _, attributes = name.partition(":")
    found: Any = importlib.import_module(module)
    try:
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except AttributeError as error:
        raise AppError(f"serve({name!r}): {error}.") from None
    return cast("ASGIApp", found)


def _value(name: str, value: str | Endpoint) -> str:
    if isinstance(value, Endpoint):
        return value.url
    if not isinstance(value, str):
        raise AppError(f"serve(..., env=...): {name} is a {type(value).__name__}. Give a text or a service's endpoint.")
    return value


def _url_of(endpoint: Endpoint) -> str:
    if endpoint.scheme in ("http", "https"):
        return endpoint.url.rstrip("/")
    if endpoint.scheme == "tcp":  # as ports are that say nothing
        return f"http://{endpoint.host}:{endpoint.port}"
    raise AppError(f"The service {endpoint.service!r} is at {endpoint.safe_url}, and speaks no HTTP. {_WHAT_IT_MAY_BE}")


def _checked(url: str) -> str:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        parts = httpx.URL("")
    if parts.scheme in ("http", "https") and parts.host:
        return url.rstrip("/")
    hint = f" Is serve({url!r}) meant?" if ":" in url and "/" not in url else ""
    raise AppError(f"The application is {url!r}, which is no URL with http:// or https:// and a host.{hint}")
