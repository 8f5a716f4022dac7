"""One event loop for the whole run, which can stand still while other code has the thread.

Sync tests, and tests that start a loop of their own, can't run inside a running loop. Ending our loop for them would
end every shared fixture. So the loop pauses: the main coroutine awaits :meth:`PausingLoop.outside`, the loop stops,
the function runs as if there were no loop, and the loop goes on with every task where it was.

Ctrl-C while the loop runs cancels the main coroutine once, so that everything is torn down in order; a second one
raises ``KeyboardInterrupt`` where it hits. While the function runs outside, Ctrl-C is Python's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from types import FrameType

__all__ = ["PausingLoop"]

T = TypeVar("T")


class PausingLoop:
    """Runs one main coroutine, pausing for what must run outside the loop."""

    def __init__(self) -> None:
        self._wanted: tuple[Callable[[], object], asyncio.Future[None]] | None = None
        self._main: asyncio.Task[Any] | None = None
        self._interrupted = False

    async def outside(self, function: Callable[[], object]) -> None:
        """Call ``function`` while the loop stands still. What it raises is raised here."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._wanted = (function, done)
        loop.stop()
        await done

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``main()`` to its end on a new loop, then close the loop as :class:`asyncio.Runner` does.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed; everything that ``main`` owns has ended by then.
        """
        with asyncio.Runner() as runner, self._interrupt_cancels(runner.get_loop()):
            loop = runner.get_loop()
            self._main = loop.create_task(main(), name="asynctest_kit")
            self._drive(loop)
            if self._interrupted and self._main.cancelled():
                raise KeyboardInterrupt
            result: T = self._main.result()
            return result

    def _drive(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._main is not None  # noqa: S101  # set by the only caller
        self._main.add_done_callback(lambda _: loop.stop())
        while not self._main.done():
            loop.run_forever()
            self._serve_outside()

    def _serve_outside(self) -> None:
        if self._wanted is None:
            return
        function, done = self._wanted
        self._wanted = None
        try:
            function()
        except BaseException as error:  # noqa: BLE001  # raised again inside, where it was asked for
            done.set_exception(error)
        else:
            done.set_result(None)

    @contextlib.contextmanager
    def _interrupt_cancels(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(signum: int, frame: FrameType | None) -> None:
            if self._interrupted or self._main is None or not loop.is_running():
                signal.default_int_handler(signum, frame)
            self._interrupted = True
            loop.call_soon_threadsafe(self._main.cancel)

        previous = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
