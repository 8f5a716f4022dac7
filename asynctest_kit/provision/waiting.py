"""Two ways to await that cancellation can't break."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["first_of", "to_its_end"]

_T = TypeVar("_T")


async def first_of(main: Awaitable[_T], other: Awaitable[_T]) -> _T:
    """The result or error of the one that ends first; the other is cancelled and awaited. ``main`` wins a tie."""
    tasks = (asyncio.ensure_future(main), asyncio.ensure_future(other))
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def to_its_end(operation: Awaitable[_T]) -> _T:
    """Await an operation that must not be cut short; a cancellation is raised after it.

    An HTTP request that creates something is one: cut short, nobody knows whether the thing will come to be.
    """
    task = asyncio.ensure_future(operation)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await _outlast(task)
        raise


async def _outlast(task: asyncio.Future[_T]) -> None:
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            continue  # the caller raises one already

    if not task.cancelled():
        task.exception()  # retrieved: the cancellation is what the caller hears of
