"""A time-out whose failure shows where the test waited."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asynctest_kit.engine.failure import failure

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["TimeLimit"]


class TimeLimit:
    """Fails what runs inside when it takes longer than ``seconds`` (0: no limit).

    The failure carries the traceback of the cancellation, so its report ends at the line that waited.
    """

    __slots__ = ("_limit", "_message")

    def __init__(self, seconds: float, what: str) -> None:
        self._limit = asyncio.timeout(seconds or None)
        self._message = f"{what} took longer than its time-out of {seconds:g} s"

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        try:
            await self._limit.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise pytest.fail.Exception(self._message).with_traceback(traceback) from None
        if kind is None and self._limit.expired():
            raise failure(f"{self._message}, and it swallowed its cancellation")
