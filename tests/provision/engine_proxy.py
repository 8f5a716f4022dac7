"""The machine's engine at another address: to whoever is told of that, an engine of its own."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager


@asynccontextmanager
async def proxy(engine, certificates=None, host="127.0.0.1"):
    """The engine behind a TCP port, with TLS and for known clients alone if there are certificates; its address."""
    tls = None
    if certificates is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificates / "server.pem", certificates / "server-key.pem")
        tls.load_verify_locations(certificates / "ca.pem")
        tls.verify_mode = ssl.CERT_REQUIRED

    carrying = set()

    async def copy(source, target):
        try:
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()

    async def carry(reader, writer):
        carrying.add(asyncio.current_task())
        there, back = await asyncio.open_unix_connection(engine.location.url.removeprefix("unix://"))
        try:
            await asyncio.gather(copy(reader, back), copy(there, writer))
        finally:
            back.close()
            writer.close()

    server = await asyncio.start_server(carry, host, 0, ssl=tls)
    try:
        yield f"tcp://{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)
        await asyncio.sleep(0)  # the transports are closed in the next step of the loop
