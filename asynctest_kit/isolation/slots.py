"""Held resources that tests lease in turn: made on demand, kept for the next test, replaced when they break.

The problem. Opening a connection costs ten to a hundred times a lease, so connections are held. Sixty-four tests that
start at once all ask at once, but one connection serves several short tests in the time that a second one takes to
open.

The rules.

1. Whoever asks gets what is idle; else it waits, first come first served, for what is given back or made, whichever is
   first. While somebody waits, at most ``_MAKERS`` are being made.
2. One more is made if that is worth its while, as far as the leases and makings up to now tell: short tests share a
   few connections, where long ones get more. It is, if nothing was given back for as long as that takes.
3. Makers run in the task group of the slots: a test that is cancelled while it waits cancels no maker, and what was
   made for it goes to the next.
4. When the server has no more, the slots stop growing and go on with those they have. With none at all, every waiter
   fails with the reason.
5. What is discarded makes room for a new one.
6. Where some are to be made ahead, they are made while nobody waits, too; but when one could not be made, no more until
   somebody waits, who is told why. Rule 2 is not for them: each is for one lease only. Who took one begins to use it
   undisturbed: while others are idle, one is made in its stead ``REFILL_PAUSE`` later, or when one is discarded.
7. When others ask for what the server has no more of, one is closed for them, at once or when it comes back: all but
   the last one can be spared, and no new ones are made in their stead before those others want no more.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asynctest_kit.errors import IsolationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType

__all__ = ["REFILL_PAUSE", "Slots", "SlotsExhausted"]

#: A failure is shown where the code under test called us; our own frames say nothing about it.
__tracebackhide__ = True

_MAKERS = 2
_FORGETTING = 0.9
#: How often what one more spares is spared, by guess: others come after those who wait.
_AGAIN = 4

#: Seconds: what to connect and to ask something takes.
REFILL_PAUSE = 0.01

T = TypeVar("T")


class SlotsExhausted(Exception):  # noqa: N818  # a state of the server that is handled, not an error that is shown
    """The server has no more to give; the message says why and what to do."""


class Slots(Generic[T]):
    """A pool that grows while tests wait; use it as an async context manager.

    Args:
        make: Opens one; raises :class:`SlotsExhausted` when there are no more.
        close: Closes one; it raises nothing.
        usable: Whether an idle one may still be handed out.
        limit: Most at once.
        ahead: How many should be idle; None for what is left over.
    """

    def __init__(
        self,
        make: Callable[[], Awaitable[T]],
        *,
        close: Callable[[T], Awaitable[object]],
        usable: Callable[[T], bool],
        limit: int,
        ahead: Callable[[], int] | None = None,
    ) -> None:
        self._make = make
        self._close = close
        self._usable = usable
        self._ahead = ahead
        self._may_be_ahead = True
        self._most = limit
        self._limit = limit
        self._idle: list[T] = []
        self._waiters: deque[asyncio.Future[T]] = deque()
        self._size = 0
        self._making = 0
        self._owed: deque[asyncio.Future[None]] = deque()
        self._makers = asyncio.TaskGroup()
        self._lease_times = _LeaseTimes()
        self._making_seconds = 0.0
        self._is_stuck = False
        self._second_thoughts: asyncio.TimerHandle | None = None
        self._refill: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Slots[T]:
        await self._makers.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._limit = self._most = 0
        self._settle(len(self._owed))
        for timer in (self._second_thoughts, self._refill):
            if timer is not None:
                timer.cancel()
        try:
            # Makers end by themselves: a driver that is cancelled while it connects may leave its socket open.
            # The body's error isn't passed on: the group would wrap it, and it goes on as it is without our help.
            await self._makers.__aexit__(None, None, None)
        finally:
            async with asyncio.TaskGroup() as closing:
                for item in self._idle:
                    closing.create_task(_awaited(self._close(item)))
            self._idle.clear()

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits."""
        return any(not waiter.done() for waiter in self._waiters)

    @property
    def size(self) -> int:
        """How many there are."""
        return self._size

    async def prepare(self) -> None:
        """Have one before anybody asks, if it can be had; if not, who asks is told why."""
        if not self._size + self._making:
            self._making += 1
            await asyncio.wait((self._makers.create_task(self._make_one()),))

    @property
    def making(self) -> int:
        """How many are being made."""
        return self._making

    async def take(self) -> T:
        """Lease one; it must come back by :meth:`give_back` or :meth:`discard`.

        Raises:
            IsolationError: The server has none to give, or nobody makes any more.
        """
        if not self._most:
            raise IsolationError("What tests lease was asked for after its end. It ends with the session's fixtures.")
        while self._idle:
            # The last one given back is the warmest, and the others may be closed by an idle time-out meanwhile.
            item = self._idle.pop()
            if self._usable(item):
                self._lease_times.begin()
                if self._ahead is not None:
                    self._grow_soon()
                return item

            self._size -= 1
            self._makers.create_task(_awaited(self._close(item)))
        return await self._wait()

    def give_back(self, item: T) -> None:
        """Hand it to who waits longest, or keep it for the next."""
        self._lease_times.end()
        self._offer(item)

    def _offer(self, item: T) -> None:
        if self._owed:
            self._idle.append(item)
            self._pay()
            return

        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._lease_times.begin()
                waiter.set_result(item)
                return

        self._idle.append(item)

    def spare(self) -> asyncio.Future[None] | None:
        """Close one for others, as soon as one is idle, and tell when it is closed; None if there is but one."""
        if self._size - len(self._owed) <= 1:
            return None
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._owed.append(closed)
        self._limit = self._size - len(self._owed)
        self._pay()
        return closed

    def relieve(self) -> None:
        """Others want none any more, so there may be more again."""
        if self._limit < self._most and not self._owed:
            self._limit = self._most
            self.grow()

    def _pay(self) -> None:
        while self._owed and self._idle:
            self._size -= 1
            self._makers.create_task(self._close_for(self._owed.popleft(), self._idle.pop(0)))

    async def _close_for(self, closed: asyncio.Future[None], item: T) -> None:
        try:
            await self._close(item)
        finally:
            _tell(closed)

    def _settle(self, count: int) -> None:
        """So many that were owed are gone, or will be."""
        for _ in range(min(count, len(self._owed))):
            _tell(self._owed.popleft())

    def discard(self, after: Coroutine[Any, Any, object] | None = None) -> None:
        """One that was taken is broken and closed: make room for another, at once or when ``after`` is done."""
        self._lease_times.end()
        if after is None:
            self._make_room()
        else:
            self._makers.create_task(after).add_done_callback(lambda _: self._make_room())

    def _make_room(self) -> None:
        self._size -= 1
        self._settle(1)
        self.grow()

    async def _wait(self) -> T:
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self.grow()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.give_back(waiter.result())
            raise

    def grow(self) -> None:
        """Make what is waited for, and what should be idle."""
        wanted = waiting = sum(not waiter.done() for waiter in self._waiters)
        if self._ahead is not None and self._may_be_ahead:
            wanted += max(0, self._ahead() - len(self._idle))
        while self._making < min(wanted, _MAKERS) and self._size + self._making < self._limit:
            if self._ahead is None and not self._is_worth_making(waiting):
                self._think_again()
                return

            self._making += 1
            self._makers.create_task(self._make_one())

    def _grow_soon(self) -> None:
        if not self._idle:
            self.grow()
        elif self._refill is None:
            self._refill = asyncio.get_running_loop().call_later(REFILL_PAUSE, self._grow_after_pause)

    def _grow_after_pause(self) -> None:
        self._refill = None
        self.grow()

    def _is_worth_making(self, waiting: int) -> bool:
        """With n of them, the last who waits does so for as long as ``waiting / n`` leases last."""
        size = self._size + self._making
        if not size or (self._is_stuck and not self._making):
            return True

        spared = waiting * self._lease_times.typical() / (size * (size + 1))
        return _AGAIN * spared >= self._making_seconds

    def _think_again(self) -> None:
        """Leases that go on for long make another one worth its while."""
        if self._second_thoughts is None:
            self._second_thoughts = asyncio.get_running_loop().call_later(
                self._making_seconds, self._thought_again, self._lease_times.count
            )

    def _thought_again(self, ended: int) -> None:
        self._second_thoughts = None
        self._is_stuck = self._lease_times.count == ended
        self.grow()
        self._is_stuck = False

    async def _make_one(self) -> None:
        start = time.monotonic()
        try:
            item = await self._make()
        except SlotsExhausted as exhausted:
            self._making -= 1
            self._exhausted(exhausted)
        except Exception as error:  # noqa: BLE001  # raised in the test that waits
            self._making -= 1
            self._may_be_ahead = False
            self._fail_first(error)
            self.grow()
        else:
            self._making -= 1
            self._size += 1
            self._may_be_ahead = True
            self._making_seconds = time.monotonic() - start
            self._offer(item)
            self.grow()

    def _exhausted(self, exhausted: SlotsExhausted) -> None:
        if self._size or self._making:
            self._limit = self._size + self._making
            return

        self._limit = self._most
        while self._waiters:
            self._fail_first(IsolationError(str(exhausted)))

    def _fail_first(self, error: Exception) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(error)
                return


class _LeaseTimes:
    """How long leases last, the recent ones above all.

    Attributes:
        count: How many have ended.
    """

    def __init__(self) -> None:
        self.count = 0
        self._running = 0
        self._seconds = 0.0
        self._ended = 0.0
        self._seen = time.monotonic()

    def begin(self) -> None:
        """One begins."""
        self._look()
        self._running += 1

    def end(self) -> None:
        """One ends."""
        self._look()
        self._running -= 1
        self.count += 1
        self._seconds *= _FORGETTING
        self._ended = self._ended * _FORGETTING + 1

    def typical(self) -> float:
        """Seconds; those that still run are counted as far as they got."""
        self._look()
        return self._seconds / (self._ended or self._running or 1)

    def _look(self) -> None:
        now = time.monotonic()
        self._seconds += self._running * (now - self._seen)
        self._seen = now


def _tell(closed: asyncio.Future[None]) -> None:
    if not closed.done():
        closed.set_result(None)


async def _awaited(awaitable: Awaitable[object]) -> None:
    await awaitable
