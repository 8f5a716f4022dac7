"""An application for the tests of ``app`` and ``api``, which is served by its name, too."""

from __future__ import annotations

import asyncio
import contextvars
import os
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

#: What the caller's context says, and what the application sets in its own.
NAME: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


async def echo(request: Request):
    name = NAME.get()
    NAME.set("the application")
    body = await request.body()
    return JSONResponse({"method": request.method, "body": body.decode(), "name": name, "state": request.state.started})


async def fail(request: Request):
    raise LookupError("planted")


async def fail_midway(request: Request):
    async def parts():
        yield b"one"
        raise LookupError("planted")

    return StreamingResponse(parts())


async def steps(request: Request):
    """One piece for each time that the event is set; it counts those that end."""
    app = request.app

    async def parts():
        try:
            for number in range(3):
                await app.state.may_go_on.wait()
                app.state.may_go_on.clear()
                yield f"{number}".encode()
        finally:
            app.state.ended.set()

    return StreamingResponse(parts())


async def endless(request: Request):
    async def parts():
        while True:
            request.app.state.sent += 1
            await asyncio.sleep(0)  # a server that tells nothing to who sends would hang
            yield b"x" * 10_000

    return StreamingResponse(parts())


async def stubborn(request: Request):
    """Doesn't care whether anybody waits."""
    request.app.state.reached.set()
    try:
        await asyncio.Event().wait()
    finally:
        request.app.state.ended.set()


async def later(request: Request):
    async def work():
        await asyncio.sleep(0.01)
        request.app.state.done = True

    return PlainTextResponse("accepted", 202, background=BackgroundTask(work))


async def variable(request: Request):
    return PlainTextResponse(os.environ.get(request.path_params["name"], ""))


async def slowly(request: Request):
    """Isn't ready the first two times."""
    request.app.state.asked = getattr(request.app.state, "asked", 0) + 1
    return PlainTextResponse("", 200 if request.app.state.asked > 2 else 503)


def make(log: list[str] | None = None, fails: str = ""):
    """The application; it notes its lifespan, and fails at one step of it."""

    @asynccontextmanager
    async def lifespan(app):
        if fails == "startup":
            raise ConnectionError("no database here")
        app.state.may_go_on, app.state.ended, app.state.reached = asyncio.Event(), asyncio.Event(), asyncio.Event()
        app.state.sent = 0
        app.state.done = False
        if log is not None:
            log.append("up")
        yield {"started": True}
        if log is not None:
            log.append("down")
        if fails == "shutdown":
            raise ConnectionError("no database any more")

    routes = [
        Route("/echo", echo, methods=["GET", "POST", "HEAD"]),
        Route("/fail", fail),
        Route("/fail-midway", fail_midway),
        Route("/steps", steps),
        Route("/endless", endless),
        Route("/stubborn", stubborn),
        Route("/later", later, methods=["POST"]),
        Route("/env/{name}", variable),
        Route("/slowly", slowly),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


app = make()


def broken():
    print(f"using {os.environ.get('DATABASE_URL')}")
    return make(fails="startup")
