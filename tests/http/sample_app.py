"""An application for the tests of ``app`` and ``api``, which is served by its name, too."""

from __future__ import annotations

import asyncio
import contextvars
import os
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

#: What the caller's context says, and what the application sets in its own.
NAME: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


async def echo(request: Request):
    name = NAME.get()
    NAME.set("the application")
    body = await request.body()
    return JSONResponse({"method": request.method, "body": body.decode(), "name": name, "state": request.state.started})


async def fail(request: Request):
    raise LookupError("planted")


class FailMidway:
    """As an application without a framework, of whose exceptions some make groups."""

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        raise LookupError("planted")


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
        if "fail" in request.query_params:
            raise LookupError("planted later")

    return PlainTextResponse("accepted", 202, background=BackgroundTask(work))


async def user(request: Request):
    """One of two users, and who asks."""
    number = request.path_params["number"]
    if number == 2:
        return RedirectResponse("/users/1?token=hidden")
    return JSONResponse(
        {
            "id": number,
            "name": "Ada",
            "is_admin": True,
            "token": "hidden",
            "orders": [{"id": 1, "price": 4.5}, {"id": 2, "price": 3}],
            "asks": request.headers.get("authorization"),
        }
    )


async def login(request: Request):
    response = Response(status_code=204)
    response.set_cookie("session", (await request.json())["name"], secure="secure" in request.query_params)
    return response


async def me(request: Request):
    return JSONResponse({"name": request.cookies.get("session")})


async def upload(request: Request):
    """What came, as it came."""
    content = await request.body()
    return JSONResponse({"kind": request.headers["content-type"], "body": content.decode()})


async def events(request: Request):
    async def told():
        for number in range(3):
            yield f'event: step\r\nid: {number}\r\ndata: {{"number": {number}}}\r\n\r\n'

    return StreamingResponse(told(), media_type="text/event-stream")


async def chat(websocket: WebSocket):
    """Says again what it is told, until it is told otherwise."""
    if "no" in websocket.query_params:
        await websocket.close()
        return
    if "denied" in websocket.query_params:
        await websocket.send_denial_response(PlainTextResponse("members only", 402))
        return
    await websocket.accept("chat" if "chat" in websocket.scope["subprotocols"] else None)
    asks = websocket.headers.get("authorization")
    async for text in websocket.iter_text():
        if text == "bye":
            await websocket.close(4000, "so long")
            return
        if text == "fail":
            raise LookupError("planted")
        if text == "bytes":
            await websocket.send_bytes(b"\0\1")
            continue
        await websocket.send_json({"said": text, "asks": asks})
    websocket.app.state.ended.set()


async def stock(request: Request):
    """What another service says."""
    async with httpx.AsyncClient(verify=False) as client:
        return JSONResponse((await client.get("https://stock.example.org/")).json())


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
        if fails == "to start":
            await asyncio.Event().wait()
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
        Route("/fail-midway", FailMidway()),
        Route("/steps", steps),
        Route("/endless", endless),
        Route("/stubborn", stubborn),
        Route("/later", later, methods=["POST"]),
        Route("/users/{number:int}", user, methods=["GET", "POST"]),
        Route("/login", login, methods=["POST"]),
        Route("/me", me),
        Route("/upload", upload, methods=["POST"]),
        Route("/events", events),
        Route("/stock", stock),
        WebSocketRoute("/chat", chat),
        Route("/env/{name}", variable),
        Route("/slowly", slowly),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


app = make()


def broken():
    print(f"using {os.environ.get('DATABASE_URL')}")
    print("asked with Authorization: Bearer its-own\npassword=its-own user=me, redis://:its-own@cache/0")
    return make(fails="startup")


def hanging():
    return make(fails="to start")
