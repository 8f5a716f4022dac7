"""What finalizers and threads raise where nobody can catch it: kept with the test that it belongs to.

pytest keeps these in one queue for the whole process and warns of them after each phase of each test, so beside others
the next test that ends a phase would be charged, and the culprit would pass. Here each is taken out of pytest's queue
as soon as it has been put there, and given back when a phase of its own test ends. Whose it is says the context in
which the finalizer or the thread ran (see :mod:`asynctest_kit.engine.carried`).

The garbage collector runs finalizers in whichever test runs just then. Beside others that says nothing: what comes to
light then, or belongs to no test, is left to pytest for the end of the run. What a test that runs alone brings to light
is its own, as under pytest; and while pytest's protocol has a test, it is left to that.
"""

from __future__ import annotations

import gc
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asynctest_kit.engine import collection
from asynctest_kit.engine.capture import current_output
from asynctest_kit.engine.guard import guarded_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

    from asynctest_kit.engine.capture import CaseOutput
    from asynctest_kit.engine.collection import UncaughtQueue

__all__ = ["Uncaught"]


class Uncaught:
    """Keeps what nobody caught with its test, for one run.

    Args:
        config: pytest's.
        is_ours: Whether the loop runs, and not a test of pytest's own protocol.
    """

    def __init__(self, config: pytest.Config, is_ours: Callable[[], bool]) -> None:
        self._queues = collection.uncaught_queues(config)
        self._is_ours = is_ours
        self._mutex = threading.Lock()
        self._collects = False
        self._unowned: list[tuple[UncaughtQueue, Any]] = []

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep them by test until the block ends."""
        unraisable, of_threads = sys.unraisablehook, threading.excepthook
        gc.callbacks.append(self._collecting)
        sys.unraisablehook = self._around(unraisable)
        threading.excepthook = self._around(of_threads)
        try:
            yield
        finally:
            sys.unraisablehook, threading.excepthook = unraisable, of_threads
            gc.callbacks.remove(self._collecting)
            for queue, found in self._unowned:
                queue.found.append(found)

    def warn(self, output: CaseOutput) -> None:
        """Warn of those of a test, in its context, as pytest does after each phase."""
        if not output.uncaught:
            return
        mine, output.uncaught = output.uncaught, []
        for queue in self._queues:
            others = list(queue.found)
            queue.found.clear()
            queue.found.extend(found for kept_in, found in mine if kept_in is queue)
            try:
                queue.warn()
            finally:
                queue.found.extend(others)

    def _collecting(self, phase: str, _: dict[str, int]) -> None:
        self._collects = phase == "start"

    def _around(self, hook: Callable[[Any], object]) -> Callable[[Any], None]:
        def hooked(arguments: Any) -> None:
            with self._mutex:
                before = [len(queue.found) for queue in self._queues]
                hook(arguments)
                if not self._is_ours():
                    return
                for queue, length in zip(self._queues, before, strict=True):
                    if len(queue.found) > length:
                        self._give(queue, queue.found.pop())

        return hooked

    def _give(self, queue: UncaughtQueue, found: Any) -> None:
        output = current_output.get()
        is_unclear = self._collects and guarded_by.get() is not None
        if output is None or is_unclear or output.errors is None:
            self._unowned.append((queue, found))
        else:
            output.uncaught.append((queue, found))
