"""What belongs to a test goes with it into threads.

A context variable says which test runs: its output, its warnings filters, its guard. asyncio's own ``to_thread`` hands
the context on, but ``loop.run_in_executor``, an executor's ``submit`` and a thread start without one. What they log
would reach no ``caplog``, what they warn no ``pytest.warns``, and what they do to global state nobody would see. So
each job and each thread that a test starts has the test's values of our variables, and of no others, while it runs.

The threads of an executor serve many tests: they themselves belong to none.
"""

from __future__ import annotations

import concurrent.futures
import functools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextvars import ContextVar

__all__ = ["carried"]


@contextmanager
def carried(variables: Sequence[ContextVar[Any]]) -> Iterator[None]:
    """Carry the values of ``variables`` into jobs and threads that are started in the block.

    They are carried if the first is set; it says that a test runs.
    """
    submit: Any = concurrent.futures.ThreadPoolExecutor.submit
    start = threading.Thread.start

    def with_values(function: Callable[..., Any], *, is_thread: bool = False) -> Callable[..., Any]:
        values = [variable.get() for variable in variables]

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            tokens = [variable.set(value) for variable, value in zip(variables, values, strict=True)]
            try:
                return function(*args, **kwargs)
            finally:
                # What a thread raises is told after this, and then the thread ends.
                for variable, token in () if is_thread else zip(variables, tokens, strict=True):
                    variable.reset(token)

        return run

    @functools.wraps(submit)
    def submit_carrying(
        executor: concurrent.futures.ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        return submit(executor, fn if variables[0].get() is None else with_values(fn), *args, **kwargs)

    @functools.wraps(start)
    def start_carrying(thread: threading.Thread) -> None:
        if variables[0].get() is not None and not _serves_an_executor(thread):
            thread.run = with_values(thread.run, is_thread=True)  # type: ignore[method-assign]
        start(thread)

    patched: Any = concurrent.futures.ThreadPoolExecutor
    patched.submit = submit_carrying
    threading.Thread.start = start_carrying  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        patched.submit = submit
        threading.Thread.start = start  # type: ignore[method-assign]


def _serves_an_executor(thread: threading.Thread) -> bool:
    target = getattr(thread, "_target", None)
    return getattr(target, "__module__", None) == "concurrent.futures.thread"
