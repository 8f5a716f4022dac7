"""One event loop for the whole run, which can stand still while other code has the thread.

Sync tests, and tests that start a loop of their own, can't run inside a running loop. Ending our loop for them would
end every shared fixture. So the loop pauses: the main coroutine awaits :meth:`PausingLoop.outside`, the loop stops,
the function runs as if there were no loop, and the loop goes on with every task where it was. If the function needs
something of the loop meanwhile, :meth:`PausingLoop.inside` runs it in the task that awaits ``outside``.

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
        self._wanted: Callable[[], None] | None = None
        self._calls: asyncio.Queue[_Call | None] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[Any] | None = None
        self._interrupted = False

    @property
    def is_running(self) -> bool:
        """Whether the loop runs, so that :meth:`inside` can't be called."""
        return self._loop is not None and self._loop.is_running()

    async def outside(self, function: Callable[[], object]) -> None:
        """Call ``function`` while the loop stands still. What it raises is raised here."""
        errors: list[BaseException] = []

        def call() -> None:
            try:
                function()
            except BaseException as error:  # noqa: BLE001  # raised again below, where it was asked for
                errors.append(error)
            finally:
                self._calls.put_nowait(None)

        self._wanted = call
        asyncio.get_running_loop().stop()
        while (wanted := await self._next_call(errors)) is not None:
            await wanted.run()
        if errors:
            raise errors[0]

    async def _next_call(self, errors: list[BaseException]) -> _Call | None:
        while True:
            try:
                return await self._calls.get()
            except asyncio.CancelledError:
                # Between two calls: the code outside still runs and may need this task, so the interrupt waits for it.
                _uncancel()
                if self._interrupted:
                    errors.append(KeyboardInterrupt())

    def inside(self, body: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``body()`` on the loop, from the function that :meth:`outside` calls.

        It runs in the task that awaits ``outside``, so what one call enters another can leave.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed meanwhile.
        """
        __tracebackhide__ = True
        assert self._loop is not None  # noqa: S101  # nothing is outside before the loop runs
        call = _Call(body)
        self._calls.put_nowait(call)
        self._loop.run_until_complete(call.done.wait())
        if self._interrupted and isinstance(call.error, asyncio.CancelledError):
            raise KeyboardInterrupt
        if call.error is not None:
            raise call.error
        result: T = call.result
        return result

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``main()`` to its end on a new loop, then close the loop as :class:`asyncio.Runner` does.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed; everything that ``main`` owns has ended by then.
        """
        with asyncio.Runner() as runner, self._interrupt_cancels(runner.get_loop()):
            loop = self._loop = runner.get_loop()
            self._main = loop.create_task(main(), name="asynctest_kit")
            self._drive(loop)
            if self._interrupted and self._main.cancelled():
                raise KeyboardInterrupt
            result: T = self._main.result()
            return result

    def _drive(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._main is not None  # noqa: S101  # set by the only caller

        def stop(_: asyncio.Task[Any]) -> None:
            loop.stop()

        self._main.add_done_callback(stop)
        try:
            while not self._main.done():
                self._run_until_stopped(loop, self._main)
                self._serve_outside()
        finally:
            # After a second Ctrl-C the runner ends what is left on the same loop, and must not be stopped meanwhile.
            self._main.remove_done_callback(stop)

    def _run_until_stopped(self, loop: asyncio.AbstractEventLoop, main: asyncio.Task[Any]) -> None:
        """Run the loop. asyncio lets two exceptions of a task fly through it, and that task's awaiters get them too."""
        try:
            loop.run_forever()
        except SystemExit:
            return
        except KeyboardInterrupt:
            if self._interrupted:
                raise
            self._interrupted = True
            main.cancel()

    def _serve_outside(self) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            wanted()

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


def _uncancel() -> None:
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


class _Call:
    """What code outside the loop wants done inside."""

    __slots__ = ("body", "done", "error", "result")

    def __init__(self, body: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.body = body
        self.done = asyncio.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    async def run(self) -> None:
        """Run it, and let the code outside go on."""
        try:
            self.result = await self.body()
        except asyncio.CancelledError as cancelled:
            # What was cancelled is the call, not the task that serves the next one.
            _uncancel()
            self.error = cancelled
        except BaseException as error:  # noqa: BLE001  # raised by ``inside``
            self.error = error
        finally:
            self.done.set()
