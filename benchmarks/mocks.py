"""What a mocked HTTP call costs with ``mock_http``, in those with respx itself.

One client, one route, one call after the other, on a loop that runs as for tests beside each other: respx as it is, a
mock of ours in a process that doesn't run tests, and the same as tests on the engine's loop have it. They take turns.
A whole test opens the mock, makes a route and a single call, and closes it. CPU seconds: other work doesn't count.

    python benchmarks/mocks.py [--check] [--iterations N] [--rounds N]
"""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import _aims
import httpx
import respx

from asynctest_kit.engine.guard import Ward, guarded_by
from asynctest_kit.engine.own_mocks import OwnMocks
from asynctest_kit.http.mocks import MockHttp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

_URL = "https://api.example.org/stock"
_AIM = 1.1

#: The router, and what holds while it is used.
_Way = tuple["Callable[[], respx.MockRouter]", "Callable[[], AbstractContextManager[object]]"]


@contextmanager
def _as_a_test() -> Iterator[None]:
    """As the engine runs a test beside others."""
    with OwnMocks().installed():
        token = guarded_by.set(Ward())
        try:
            yield
        finally:
            guarded_by.reset(token)


_WAYS: dict[str, _Way] = {
    "respx": (respx.MockRouter, nullcontext),
    "mock_http": (MockHttp, nullcontext),
    "mock_http, beside others": (MockHttp, _as_a_test),
}


def main() -> None:
    """Measure and print microseconds and ratios."""
    parser = _aims.parser(__doc__)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    found = asyncio.run(_measured(options.iterations, options.rounds))
    print(f"one call of {options.iterations}, and a whole test; medians of {options.rounds} rounds")
    aims = _aims.Aims()
    reached: dict[str, float] = {}
    for title, rounds in found.items():
        call, whole = (statistics.median(times) for times in zip(*rounds, strict=True))
        ratios = [
            statistics.median(one[place] / bare[place] for one, bare in zip(rounds, found["respx"], strict=True))
            for place in (0, 1)
        ]
        print(f"{title:26}{call * 1e6:8.0f} us {ratios[0]:6.2f} x   {whole * 1e6:8.0f} us {ratios[1]:6.2f} x")
        if title != "respx":
            reached |= {f"{title}, {what}": ratio for what, ratio in zip(("a call", "a test"), ratios, strict=True)}
    for title, ratio in reached.items():
        aims.tell(f"{title}: {ratio:.2f} of respx", ratio, _AIM)
    aims.end(options)


async def _measured(iterations: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {title: [] for title in _WAYS}
    async with httpx.AsyncClient() as client:
        for turn in range(rounds + 1):
            for title, (router, around) in _WAYS.items():
                with around():
                    times = await _calls(client, router, iterations), await _tests(client, router, iterations // 10)
                if turn:  # the first is to warm up
                    found[title].append(times)
    return found


async def _calls(client: httpx.AsyncClient, router: Callable[[], respx.MockRouter], iterations: int) -> float:
    with router() as mock:
        mock.get(_URL).respond(json={"left": 3})
        start = time.process_time()
        for _ in range(iterations):
            await client.get(_URL)
        return (time.process_time() - start) / iterations


async def _tests(client: httpx.AsyncClient, router: Callable[[], respx.MockRouter], iterations: int) -> float:
    start = time.process_time()
    for _ in range(iterations):
        with router() as mock:
            mock.get(_URL).respond(json={"left": 3})
            await client.get(_URL)
    return (time.process_time() - start) / iterations


if __name__ == "__main__":
    main()
