"""Errors that nobody awaited: a failed task that was dropped, a callback that raised.

asyncio tells them to the loop's exception handler, often long after: when what holds the error is freed. They fail the
test that they belong to, as under the anyio plugin. Whose they are is known from the context of the task or callback.
What has neither (a future) is told in the context of whoever freed it; that is the owner, unless the garbage collector
did, or the loop, when it let go of what it had run: both run in whatever test happens to be running. An error without
an owner, or with one that is over, fails nobody, for it might be an innocent neighbour: it is a finding.

A cancellation is no error: one that nobody awaited is what ``asyncio.gather`` leaves when its task is given up.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asynctest_kit.engine.capture import current_output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType

    from asynctest_kit.engine.capture import CaseOutput

__all__ = ["Background"]

_NOBODY = "the background"

#: Who let go of what is told, as seen from :meth:`Background._owner`.
_TELLS = 3

_RUN_ONCE: CodeType = asyncio.BaseEventLoop._run_once.__code__  # type: ignore[attr-defined]  # noqa: SLF001


class Background:
    """Charges errors that nobody awaited.

    Args:
        note: Told of an error that fails nobody: the node id of its test, or words for none, and what happened.
    """

    def __init__(self, note: Callable[[str, str], None]) -> None:
        self._note = note
        self._collects = False

    @contextmanager
    def watching(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Be the exception handler of ``loop`` until the block ends."""
        gc.callbacks.append(self._collecting)
        loop.set_exception_handler(self._charge)
        try:
            yield
        finally:
            loop.set_exception_handler(None)
            gc.callbacks.remove(self._collecting)

    def _collecting(self, phase: str, _: dict[str, int]) -> None:
        self._collects = phase == "start"

    def _charge(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None:
            loop.default_exception_handler(context)
        elif not isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            self._fail(self._owner(context), error, str(context.get("message", "")))

    def _fail(self, output: CaseOutput | None, error: BaseException, message: str) -> None:
        if output is not None and output.errors is not None:
            output.errors.append(error)
        else:
            nodeid, when = (_NOBODY, "of no test that is known") if output is None else (output.item.nodeid, "too late")
            self._note(nodeid, f"raised {error!r}, {when}: {message}")

    def _owner(self, context: dict[str, Any]) -> CaseOutput | None:
        task = context.get("task") or context.get("future")
        if (noted := getattr(task, "atk_output", None)) is not None:  # on Python 3.11
            output: CaseOutput = noted
            return output
        own = _context_of(task)
        if own is None and (self._collects or sys._getframe(_TELLS).f_code is _RUN_ONCE):  # noqa: SLF001
            return None
        # A callback's failure is told outside the callback's own context, which its handle keeps.
        own = own or getattr(context.get("handle"), "_context", None)
        return current_output.get() if own is None else own.get(current_output)


def _context_of(future: object) -> Any:
    """The context of a task, where it can be known: from Python 3.12 on."""
    get = getattr(future, "get_context", None)
    return None if get is None else get()
