"""Opening an engine: is somebody there, and does it let us in?

Importing aiodocker takes longer than asking an engine whether it lives, so it is imported when a socket answered.
Without an engine it raises a bare AssertionError, and its own search for one is not Docker's: it is told where to go.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from asynctest_kit.provision.providers import Refusal
from asynctest_kit.provision.providers.engine.location import Location, knock, locate
from asynctest_kit.provision.providers.engine.requests import Engine
from asynctest_kit.provision.providers.engine.tunnel import open_tunnel

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

    from aiodocker import Docker
    from aiohttp import ClientSession

__all__ = ["open_engine"]

#: Seconds for an engine to say its version, on this machine and elsewhere.
_GREETING = 5.0
_GREETING_FROM_AFAR = 15.0


@asynccontextmanager
async def open_engine(environ: Mapping[str, str], location: Location | None = None) -> AsyncIterator[Engine]:
    """The engine that ``environ`` names, at ``location`` if that has been found out.

    Raises:
        Refusal: There is none, or it does not answer, or we may not ask it.
    """
    if location is None:
        location = await asyncio.to_thread(locate, environ)
    await asyncio.to_thread(knock, location)
    async with AsyncExitStack() as stack:
        url, tunnel = location.url, None
        if url.startswith("ssh://"):
            tunnel = await stack.enter_async_context(open_tunnel(url, environ))
            url = f"unix://{tunnel.socket}"
        tls = None if location.tls is None else await asyncio.to_thread(location.tls.context)
        aiodocker = await asyncio.to_thread(import_module, "aiodocker")  # requests are read meanwhile
        session = await stack.enter_async_context(_session(url, tls))
        docker = await stack.enter_async_context(aiodocker.Docker(url=url, session=session, ssl_context=tls))
        try:
            version = await _version(docker, location)
        except Refusal as reason:
            if tunnel is not None and tunnel.complaint:
                raise Refusal(f"the Docker engine at {location} can't be reached: {tunnel.complaint}") from None
            raise reason from None
        yield Engine(docker, version, location, environ)


def _session(url: str, tls: ssl.SSLContext | None) -> ClientSession:
    """With as many connections as are wanted: aiodocker's own has 100, and followed logs and waits hold one each."""
    from aiohttp import BaseConnector, ClientSession, TCPConnector, UnixConnector

    connector: BaseConnector
    if url.startswith("unix://"):
        connector = UnixConnector(url.removeprefix("unix://"), limit=0)
    else:
        connector = TCPConnector(ssl=True if tls is None else tls, limit=0)
    return ClientSession(connector=connector)


async def _version(docker: Docker, location: Location) -> dict[str, Any]:
    from aiodocker import DockerError
    from aiohttp import ClientError

    seconds = _GREETING if location.is_local and location.tls is None else _GREETING_FROM_AFAR
    try:
        async with asyncio.timeout(seconds):
            return await docker.version()
    except TimeoutError:
        raise Refusal(f"the Docker engine at {location} did not answer within {seconds:g} s") from None
    except (DockerError, ClientError, OSError) as error:
        text = error.message if isinstance(error, DockerError) else str(error)
        raise Refusal(f"the Docker engine at {location} refused: {text}") from None
