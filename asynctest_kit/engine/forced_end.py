"""Ending coroutines that don't end when their task is cancelled.

A suspended coroutine is closed where it is: ``GeneratorExit`` is raised at its ``await``, and its ``finally`` blocks
run up to their next one. What catches even that is left suspended for good, and must not be freed: Python would close
it once more, at any later moment, and code that catches everything never comes out of that where no loop runs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from asynctest_kit.engine.code_places import awaited_by, frame_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

__all__ = ["end", "keep_for_ever", "wake"]

#: How often it is told to end.
_CLOSE_ATTEMPTS = 3

_kept: list[object] = []


def end(coroutine: object) -> tuple[list[object], list[BaseException]]:
    """Close a suspended coroutine and what it awaits, from the inside out; give what didn't, and the errors.

    One by one: told only to the outermost, a refusal further in ends what is around it and leaves the inner to Python,
    and an async generator that is being advanced is not told at all. More than once: the clean-up of a task group, say,
    waits when it is told the first time.
    """
    errors: list[BaseException] = []
    left: list[object] = [coroutine]
    for _ in range(_CLOSE_ATTEMPTS):
        chain = list(dict.fromkeys(one for root in left for one in awaited_by(root)))
        errors += [error for one in reversed(chain) if (error := _close(one)) is not None]
        left = [one for one in chain if frame_of(one) is not None]
    keep_for_ever(left)
    return left, errors


def _close(awaitable: Any) -> BaseException | None:
    try:
        if frame_of(awaitable) is not None and hasattr(awaitable, "close"):
            awaitable.close()
        elif type(awaitable).__module__ == "builtins" and hasattr(awaitable, "throw"):
            awaitable.throw(GeneratorExit())
    except (GeneratorExit, StopIteration, StopAsyncIteration):
        return None
    except (KeyboardInterrupt, pytest.exit.Exception):
        raise
    except BaseException as error:  # noqa: BLE001  # told in the failure
        return error if frame_of(awaitable) is None else None
    return None


def keep_for_ever(values: Iterable[object]) -> None:
    """Free them never, not even when the interpreter ends: that is what the additional reference is for."""
    for value in values:
        _kept.append(value)
        if sys.implementation.name == "cpython":
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def wake(task: asyncio.Task[Any]) -> None:
    """Let ``task`` run, whatever it waits for: another task that swallows its cancellation doesn't let it.

    There is no public way. A task waits by a callback of its own at a future; called with another future, it goes on
    with what that one holds. If a version of Python keeps these elsewhere, the task is woken when what it waits for is.
    """
    awaited = getattr(task, "_fut_waiter", None)
    if awaited is None or awaited.done():
        return
    loop = task.get_loop()
    for callback, context in list(getattr(awaited, "_callbacks", None) or ()):
        if getattr(callback, "__self__", None) is task:
            awaited.remove_done_callback(callback)
            cancelled = loop.create_future()
            cancelled.cancel()
            loop.call_soon(callback, cancelled, context=context)
