"""A time-out for tests on trio, which their plugin runs: a cancel scope around the test function.

What catches its cancellation, or shields itself from it, isn't ended.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio

from asynctest_kit.engine.failure import failure
from asynctest_kit.engine.time_limit import time_out_message

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

__all__ = ["trio_limit"]


@contextmanager
def trio_limit(item: pytest.Function, seconds: float, what: str) -> Iterator[None]:
    """Have the test's function fail when it takes longer than ``seconds``, while the block runs."""
    function: Any = item.obj

    @functools.wraps(function)
    async def limited(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        with anyio.move_on_after(seconds) as scope:
            await function(*args, **kwargs)
        if scope.cancelled_caught:
            raise failure(time_out_message(what, seconds))

    item.obj = limited
    try:
        yield
    finally:
        item.obj = function
