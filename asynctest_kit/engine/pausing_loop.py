"""One event loop for the whole run, which can stand still while other code has the thread.

Sync tests, and tests that start a loop of their own, can't run inside a running loop. Ending our loop for them would
end every shared fixture. So the loop pauses: a coroutine awaits :meth:`PausingLoop.outside`, the loop stops, the
function runs as if there were no loop, and the loop goes on with every task where it was. If the function needs
something of the loop meanwhile, :meth:`PausingLoop.inside` runs it in the task that awaits ``outside``.

While the loop runs for one function, another task may want to go outside too. It would then run on top of the first,
which can't go on before the second has ended. That is right only if the first waits for the second: else both could
wait for each other. So ``inside`` says for whom it waits, those go outside at once, and all others wait for their turn.

Ctrl-C while the loop runs cancels the main coroutine once, so that everything is torn down in order; a second one
raises ``KeyboardInterrupt`` where it hits. While a function runs outside, Ctrl-C is Python's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from asynctest_kit.engine.fair_loop import FairLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Coroutine, Hashable, Iterator
    from types import FrameType

__all__ = ["PausingLoop"]

T = TypeVar("T")


class PausingLoop:
    """Runs one main coroutine, pausing for what must run outside the loop."""

    def __init__(self) -> None:
        self._visits: list[_Visit] = []
        self._waiting: list[_Visit] = []
        self._called: list[_Visit] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[Any] | None = None
        self._interrupted = False

    @property
    def is_running(self) -> bool:
        """Whether the loop runs, so that :meth:`inside` can't be called."""
        return self._loop is not None and self._loop.is_running()

    async def outside(self, function: Callable[[], T], owner: Hashable = None) -> T:
        """Call ``function`` while the loop stands still; give what it gives, raise what it raises.

        ``owner`` is what others wait for when they wait for this.
        """
        visit = _Visit(function, owner)
        await self._admitted(visit)
        visit.is_wanted = True
        asyncio.get_running_loop().stop()
        try:
            while (wanted := await self._next_call(visit)) is not None:
                await wanted.run()
        finally:
            self._visits.remove(visit)
            self._admit()
        if visit.error is None and visit.cancelled is not None:
            raise visit.cancelled
        if visit.error is not None:
            raise visit.error
        result: T = visit.result
        return result

    async def _admitted(self, visit: _Visit) -> None:
        """Wait until nobody is outside but those that wait for ``visit``."""
        self._waiting.append(visit)
        self._admit()
        try:
            await visit.admitted.wait()
        except asyncio.CancelledError:
            for visits in (self._waiting, self._visits):
                with contextlib.suppress(ValueError):
                    visits.remove(visit)
            self._admit()
            raise

    def _admit(self) -> None:
        """Let the first go outside of those that may."""
        top = self._visits[-1] if self._visits else None
        for visit in self._waiting:
            if top is None or top.waits_for(visit.owner):
                self._waiting.remove(visit)
                self._visits.append(visit)
                visit.admitted.set()
                return

    async def _next_call(self, visit: _Visit) -> _Call | None:
        while True:
            try:
                return await visit.calls.get()
            except asyncio.CancelledError as cancelled:
                # Between two calls: the code outside still runs and may need this task, so the interrupt waits for it.
                _uncancel()
                visit.cancelled = self._as_seen_by(visit, cancelled)

    def _as_seen_by(self, visit: _Visit, cancelled: asyncio.CancelledError) -> BaseException:
        """What a cancellation means to code outside: where nobody owns it, Ctrl-C is what it is to sync code."""
        if not self._interrupted or visit.owner is not None:
            return cancelled
        interrupt = KeyboardInterrupt()
        interrupt.__cause__ = cancelled  # which tells where the call waited
        return interrupt

    def inside(self, body: Callable[[], Coroutine[Any, Any, T]], waits_for: Container[Hashable] | None = None) -> T:
        """Run ``body()`` on the loop, from the function that :meth:`outside` calls.

        It runs in the task that awaits ``outside``, so what one call enters another can leave. ``waits_for`` are the
        owners of what it may have to wait for; None lets everyone go outside meanwhile, which is right if nobody ever
        waits for the function.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed meanwhile.
        """
        __tracebackhide__ = True
        assert self._loop is not None  # noqa: S101  # nothing is outside before the loop runs
        visit = self._called[-1]
        call = _Call(body)
        visit.calls.put_nowait(call)
        visit.waiting_for = _EVERYONE if waits_for is None else waits_for
        self._admit()
        try:
            self._drive(self._loop, self._loop.create_task(call.done.wait(), name="asynctest_kit: inside"))
        finally:
            visit.waiting_for = ()
        if isinstance(call.error, asyncio.CancelledError):
            raise self._as_seen_by(visit, call.error)
        if call.error is not None:
            raise call.error
        result: T = call.result
        return result

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``main()`` to its end on a new loop, then close the loop as :class:`asyncio.Runner` does.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed; everything that ``main`` owns has ended by then.
        """
        # With a factory the runner doesn't set the thread's event loop: sync tests must not find ours, and close it.
        with asyncio.Runner(loop_factory=FairLoop) as runner, self._interrupt_cancels(runner.get_loop()):
            loop = self._loop = runner.get_loop()
            self._main = loop.create_task(main(), name="asynctest_kit")
            self._drive(loop, self._main)
            if self._interrupted and self._main.cancelled():
                raise KeyboardInterrupt
            result: T = self._main.result()
            return result

    def _drive(self, loop: asyncio.AbstractEventLoop, until: asyncio.Task[Any]) -> None:
        """Run the loop until a task is done, and meanwhile what wants to go outside."""

        def stop(_: asyncio.Task[Any]) -> None:
            loop.stop()

        until.add_done_callback(stop)
        try:
            while not until.done():
                self._run_until_stopped(loop)
                self._serve_outside()
        finally:
            # After a second Ctrl-C the runner ends what is left on the same loop, and must not be stopped meanwhile.
            until.remove_done_callback(stop)

    def _serve_outside(self) -> None:
        visit = self._visits[-1] if self._visits else None
        if visit is None or not visit.is_wanted:
            return
        visit.is_wanted = False
        self._called.append(visit)
        try:
            visit.call()
        finally:
            self._called.remove(visit)

    def _run_until_stopped(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the loop. asyncio lets two exceptions of a task fly through it, and that task's awaiters get them too."""
        try:
            loop.run_forever()
        except SystemExit:
            return
        except KeyboardInterrupt:
            if self._interrupted:
                raise
            self._interrupted = True
            if self._main is not None:
                self._main.cancel()

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


class _Everyone:
    def __contains__(self, owner: object) -> bool:
        return True


_EVERYONE = _Everyone()


class _Visit:
    """One function that runs outside, or waits for its turn."""

    __slots__ = ("_function", "admitted", "calls", "cancelled", "error", "is_wanted", "owner", "result", "waiting_for")

    def __init__(self, function: Callable[[], Any], owner: Hashable) -> None:
        self.owner = owner
        self.admitted = asyncio.Event()
        self.calls: asyncio.Queue[_Call | None] = asyncio.Queue()
        self.waiting_for: Container[Hashable] = ()
        self.result: Any = None
        self.error: BaseException | None = None
        self.cancelled: BaseException | None = None
        self.is_wanted = False
        self._function = function

    def waits_for(self, owner: Hashable) -> bool:
        """Whether it stands still on behalf of ``owner``, among others."""
        return owner in self.waiting_for

    def call(self) -> None:
        """Call the function, and tell the task that waits."""
        try:
            self.result = self._function()
        except BaseException as error:  # noqa: BLE001  # raised again by ``outside``, where it was asked for
            self.error = error
        finally:
            self.calls.put_nowait(None)


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
