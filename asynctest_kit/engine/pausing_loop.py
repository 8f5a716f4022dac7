"""One event loop for the whole run, which can stand still while other code has the thread.

Sync tests, and tests that start a loop of their own, can't run inside a running loop. Ending our loop for them would
end every shared fixture. So the loop pauses: a coroutine awaits :meth:`PausingLoop.outside`, the loop stops, the
function runs as if there were no loop, and the loop goes on with every task where it was. If the function needs
something of the loop meanwhile, :meth:`PausingLoop.inside` runs it in the task that awaits ``outside``.

While the loop runs for one function, another task may want to go outside too. It would then run on top of the first,
which can't go on before the second has ended. That is right only if the first waits for the second: else both could
wait for each other. So ``inside`` says for whom it waits, those go outside at once, and all others wait for their turn.

Ctrl-C, or SIGTERM, while the loop runs cancels the main coroutine once, so that everything is torn down in order. A
second one raises ``KeyboardInterrupt`` where it hits, and every task ends: cancelled, and a moment later by force.
While a function runs outside they raise it there.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from asynctest_kit.engine.fair_loop import FairLoop
from asynctest_kit.engine.forced_end import end, keep_for_ever, wake
from asynctest_kit.engine.interrupts import received_by

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Coroutine, Hashable

__all__ = ["PausingLoop"]

T = TypeVar("T")

#: Seconds that tasks have to end in after a second Ctrl-C, cancelled, and again by force.
_MOMENT = 0.25


class PausingLoop:
    """Runs one main coroutine, pausing for what must run outside the loop.

    Attributes:
        is_given_up: Whether a second Ctrl-C has ended everything at once.
    """

    def __init__(self) -> None:
        self._visits: list[_Visit] = []
        self._waiting: list[_Visit] = []
        self._called: list[_Visit] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[Any] | None = None
        self._on_interrupt: Callable[[], object] = _ignore
        self._interrupted: type[KeyboardInterrupt] | None = None
        self.is_given_up = False

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
        if self._interrupted is None or visit.owner is not None:
            return cancelled
        interrupt = self._interrupted()
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

    def run(self, main: Callable[[], Coroutine[Any, Any, T]], on_interrupt: Callable[[], object] | None = None) -> T:
        """Run ``main()`` to its end on a new loop, then close the loop as :class:`asyncio.Runner` does.

        ``on_interrupt`` is called on the loop at the first Ctrl-C.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed; everything that ``main`` owns has ended by then.
        """
        self._on_interrupt = on_interrupt or _ignore
        # With a factory the runner doesn't set the thread's event loop: sync tests must not find ours, and close it.
        runner = asyncio.Runner(loop_factory=FairLoop)
        with received_by(self._receive):
            loop = self._loop = runner.get_loop()
            self._main = loop.create_task(main(), name="asynctest_kit")
            try:
                self._drive(loop, self._main)
                if self._interrupted is not None and self._main.cancelled():
                    raise self._interrupted
                result: T = self._main.result()
                return result
            finally:
                if self.is_given_up:
                    self._end_by_force(loop, self._main)
                else:
                    runner.close()

    def note_interrupt(self, interrupt: KeyboardInterrupt) -> None:
        """Count the Ctrl-C that a function outside, or a test, has ended with: the next one is the second."""
        if self._interrupted is None:
            self._interrupted = type(interrupt)
            self._on_interrupt()

    def _receive(self, kind: type[KeyboardInterrupt]) -> None:
        """Take a signal, in whatever code it hits."""
        assert self._loop is not None  # noqa: S101  # received only while it lasts
        is_first = self._interrupted is None and self._main is not None and not self._main.done()
        if is_first and self._loop.is_running():
            self._interrupted = kind
            self._loop.call_soon_threadsafe(self._end_in_order)
            return
        if not is_first:
            self.is_given_up = True
            self._loop.stop()  # code that swallows what is raised here doesn't keep it running
        raise kind

    def _end_in_order(self) -> None:
        if self._main is not None:
            self._main.cancel()
        self._on_interrupt()

    def _end_by_force(self, loop: asyncio.AbstractEventLoop, main: asyncio.Task[Any]) -> None:
        """Cancel every task, and close those that this doesn't end; what is left after that is never run again."""
        for step in (_cancel, _close):
            if not main.done():
                for task in asyncio.all_tasks(loop):
                    step(task, main)
                timer = loop.call_later(_MOMENT, loop.stop)
                main.add_done_callback(lambda _: loop.stop())
                loop.run_forever()
                timer.cancel()
        left = asyncio.all_tasks(loop)
        keep_for_ever([loop, *left])
        if not left:
            loop.close()

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
            # After a second Ctrl-C what is left is ended on the same loop, which must not be stopped meanwhile.
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
        self._refuse_if_given_up()
        try:
            loop.run_forever()
        except SystemExit:
            return
        except KeyboardInterrupt as interrupt:
            if not self.is_given_up and self._interrupted is None:
                self._interrupted = type(interrupt)
                self._end_in_order()
        self._refuse_if_given_up()

    def _refuse_if_given_up(self) -> None:
        if self.is_given_up:
            raise self._interrupted or KeyboardInterrupt


def _ignore() -> None:
    pass


def _cancel(task: asyncio.Task[Any], main: asyncio.Task[Any]) -> None:
    if task is not main:
        task.cancel()


def _close(task: asyncio.Task[Any], main: asyncio.Task[Any]) -> None:
    if task is main:
        task.cancel()
        return
    end(task.get_coro())
    wake(task)


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
