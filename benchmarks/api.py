"""What a call with ``api`` costs, in calls with httpx itself.

The same request to the same application, in process and over a real socket, whose server is a process of its own; one
call after the other, and 64 at once. httpx reaches the application in process by its own ``ASGITransport``. They take
turns. CPU seconds of this process: other work, and the server's, doesn't count.

    python benchmarks/api.py [--check] [--iterations N] [--rounds N]
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import _aims
import httpx

from asynctest_kit.http.apps import opened_app, serve
from asynctest_kit.http.client import Api

_AIM = 1.15

_AT_ONCE = 64

_ORDER = {"id": 7, "status": "paid", "lines": [{"product_id": 1, "quantity": 2}] * 5}
_BODY = json.dumps(_ORDER).encode()

_Ask = "Callable[[], Awaitable[httpx.Response]]"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request with an order."""
    if scope["type"] != "http":
        return
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY})


def quiet_app() -> Any:
    """The same, for a server that doesn't log each call: who started it would read that."""
    logging.getLogger("uvicorn.access").disabled = True
    return app


def main() -> None:
    """Measure and print microseconds and ratios."""
    parser = _aims.parser(__doc__)
    parser.add_argument("--iterations", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))  # where the served process finds this file
    print(f"one call of {options.iterations}; medians of {options.rounds} rounds")
    aims = _aims.Aims()
    for title, ratio in asyncio.run(_compared(options.iterations, options.rounds)).items():
        aims.tell(f"api, {title}: {ratio:.2f} of httpx", ratio, _AIM)
    aims.end(options)


async def _compared(iterations: int, rounds: int) -> dict[str, float]:
    """What ``api`` costs, in calls with httpx, by where and how they are made."""
    async with AsyncExitStack() as stack:
        transport = httpx.ASGITransport(app)
        bare = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://app.test"))
        inside = await _measured("in process", bare, await stack.enter_async_context(_api(app)), iterations, rounds)
        opened = await stack.enter_async_context(opened_app(serve("api:quiet_app", factory=True)))
        bare = await stack.enter_async_context(httpx.AsyncClient(base_url=opened.base_url))
        api = await stack.enter_async_context(_api(opened))
        return inside | await _measured("over a socket", bare, api, iterations, rounds)


def _api(target: Any) -> Api:
    """As the fixture opens it: each call is noted."""
    return Api(target, on_call=[].append)


async def _measured(where: str, bare: httpx.AsyncClient, api: Api, iterations: int, rounds: int) -> dict[str, float]:
    ratios: dict[str, float] = {}
    ways: dict[str, Any] = {
        "httpx": lambda: bare.get("/orders/7"),
        "api": lambda: api.get("/orders/7"),
        "api, expecting": lambda: _expecting(api),
    }
    for how, calls in (("one by one", _one_by_one), (f"{_AT_ONCE} at once", _at_once)):
        found: dict[str, list[float]] = {title: [] for title in ways}
        for turn in range(rounds + 1):
            for title, ask in ways.items():
                took = await calls(ask, iterations)
                if turn:  # the first is to warm up
                    found[title].append(took)
        for title, times in found.items():
            ratio = statistics.median(one / other for one, other in zip(times, found["httpx"], strict=True))
            print(f"{f'{where}, {how}':28}{title:16}{statistics.median(times) * 1e6:8.0f} us {ratio:6.2f} x")
            if title == "api":
                ratios[f"{where}, {how}"] = ratio
    return ratios


async def _expecting(api: Api) -> httpx.Response:
    return (await api.get("/orders/7")).expect(200, json={"id": 7, "status": str})


async def _one_by_one(ask: _Ask, iterations: int) -> float:
    start = time.process_time()
    for _ in range(iterations):
        await ask()
    return (time.process_time() - start) / iterations


async def _at_once(ask: _Ask, iterations: int) -> float:
    start = time.process_time()
    for _ in range(max(1, iterations // _AT_ONCE)):
        await asyncio.gather(*(ask() for _ in range(_AT_ONCE)))
    return (time.process_time() - start) / (max(1, iterations // _AT_ONCE) * _AT_ONCE)


if __name__ == "__main__":
    main()
