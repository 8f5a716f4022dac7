"""How shared fixtures live: set up, hold, tear down, each in one task with one context.

The problem. A shared fixture is wanted by many tests that start and end in any order. An async generator fixture may
hold a cancel scope or a task group across its ``yield``, and anyio promises nothing if such a scope is entered in one
task and left in another. Two tests that ask for the same fixture must get one set-up, a test that is cancelled must
not cancel the fixture that others wait for, and nothing may be torn down while it is used.

The rules.

1. Every shared fixture has a task of its own. Set-up, the wait at the ``yield`` and tear-down happen in that task.
2. It starts when the first test asks, waits for its own dependencies, and then is up (or failed) for good: a failure is
   raised in every test that needs it, as pytest does.
3. It is released when its last user, known from collection, is done; on an early end every one is released. It tears
   down only after every fixture that depends on it has ended, so the order is the reverse of set-up.
4. Tear-down always runs to its end: the rest goes on after one finalizer fails, and all errors are raised together.

If a shared fixture's task is cancelled from inside while it holds (a child of its task group failed), the cancellation
is thrown into it at its ``yield``, as its own scope expects; what comes out is the tear-down's error.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from asynctest_kit.engine import clock
from asynctest_kit.engine.capture import current_output
from asynctest_kit.engine.code_places import waiting_at
from asynctest_kit.engine.deadlines import current_fixture
from asynctest_kit.engine.events import FixtureFinished
from asynctest_kit.engine.failure import failure
from asynctest_kit.engine.fair_loop import OF_FIXTURES, current_account
from asynctest_kit.engine.fixture_call import Finalizers, Needless, Outside, not_from_running_code, set_up, set_up_now
from asynctest_kit.engine.graph import SharedFixture, is_async
from asynctest_kit.engine.guard import StateTouched, Ward, guarded_by
from asynctest_kit.engine.time_limit import TimeLimit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

    from asynctest_kit.engine.code_places import Place
    from asynctest_kit.engine.collection import Request, TestRequest
    from asynctest_kit.engine.events import Sink
    from asynctest_kit.engine.graph import Case, Source
    from asynctest_kit.engine.pausing_loop import PausingLoop

__all__ = ["Lifetime", "Lifetimes"]

#: See :meth:`TimeLimit.cut_off`: a set-up may have servers to stop, by default in ten seconds.
_CUT_OFF_PAUSES = (12.0, 3.0)


def _interrupted(fixture: SharedFixture, cancelled: asyncio.CancelledError) -> BaseException:
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
    return failure(f"the set-up of fixture {fixture.id} was cancelled", cancelled)


class Lifetime:
    """One shared fixture, from asked for to torn down."""

    def __init__(self, fixture: SharedFixture, lifetimes: Lifetimes, *, guarded: bool = False) -> None:
        self.fixture = fixture
        self._ward = Ward(is_shared=True) if guarded else None
        self.users = fixture.users
        self.dependents: list[Lifetime] = []
        self.ended = asyncio.Event()
        self._teardown_error: BaseException | None = None
        self._lifetimes = lifetimes
        self._released = asyncio.Event()
        self._settled = asyncio.Event()
        self._value: Any = None
        self._failure: tuple[BaseException, TracebackType | None] | None = None
        self._finalizers = Finalizers()
        self._task: asyncio.Task[None] | None = None
        self._limited: TimeLimit | None = None

    @property
    def is_settled(self) -> bool:
        """Whether it is up or has failed."""
        return self._settled.is_set()

    @property
    def is_up(self) -> bool:
        """Whether it has a value that can be had without waiting."""
        return self._settled.is_set() and self._failure is None

    def start(self) -> None:
        """Start the set-up, if nobody has."""
        if self._task is None:
            for need in self.fixture.needs:
                self._lifetimes.of(need).dependents.append(self)
            self._task = self._lifetimes.spawn(self._live(), f"fixture {self.fixture.id}")

    async def settled(self) -> None:
        """Wait until it is up or has failed."""
        self.start()
        await self._settled.wait()

    async def value(self) -> Any:
        """Wait until it is up. Cancelling the wait doesn't cancel the set-up, since others wait too."""
        __tracebackhide__ = True
        await self.settled()
        return self.value_now()

    def value_now(self) -> Any:
        """The value of a fixture that is up, or the error of one that has failed."""
        __tracebackhide__ = True
        if self._failure is not None:
            # The traceback of the set-up alone: each test that raised the error before has added its own frames to it.
            error, traceback = self._failure
            raise error.with_traceback(traceback)
        return self._value

    @property
    def has_failed(self) -> bool:
        """Whether its set-up has failed."""
        return self._failure is not None

    @property
    def was_stopped(self) -> bool:
        """Whether it, or what it needs, was stopped at process-global state."""
        return self._failure is not None and isinstance(self._failure[0], StateTouched)

    @property
    def is_ending(self) -> bool:
        """Whether it was asked to end and hasn't yet."""
        return self._task is not None and self._released.is_set() and not self.ended.is_set()

    @property
    def is_released(self) -> bool:
        """Whether its last user is done."""
        return self._released.is_set()

    def release(self) -> None:
        """Let it tear down once what depends on it has ended."""
        if self._task is None:
            self.ended.set()
        self._released.set()

    def waiting_at(self) -> Place | None:
        """The line of the user's code where its set-up waits, if it does."""
        return None if self._task is None else waiting_at(self._task.get_coro())

    def abandon(self) -> None:
        """Give up on a set-up that still runs: the run is being interrupted."""
        is_setting_up = self._task is not None and not self._settled.is_set()
        if (
            self._task is not None
            and is_setting_up
            and not (self._limited is not None and self._limited.cut_off(_CUT_OFF_PAUSES))
        ):
            self._task.cancel()
        self.release()

    def take_teardown_error(self) -> list[BaseException]:
        """What its tear-down raised, if nobody has taken it yet."""
        error, self._teardown_error = self._teardown_error, None
        return [] if error is None else [error]

    def add_finalizer(self, finalizer: Callable[[], object]) -> None:
        """Run ``finalizer`` at its tear-down."""
        self._finalizers.add(finalizer)

    def dynamic_value(self, name: str, request: TestRequest | Request) -> object:
        """Give a fixture that this one asked for by ``request.getfixturevalue``."""
        __tracebackhide__ = True
        if name == "request":
            return request
        source = self.fixture.resolver.source(name, request)
        if not isinstance(source, SharedFixture):
            raise not_from_running_code(name)
        loop = self._lifetimes.loop
        lifetime = self._lifetimes.now(source) if loop.is_running else self._lifetimes.hold(source)
        lifetime.dependents.append(self)
        if loop.is_running or lifetime.is_settled:  # not one turn of the loop more than needed: others run in it
            return lifetime.value_now()
        return loop.inside(lifetime.value, (source, *source.needs))

    def _argument_now(self, name: str) -> object:
        need = self._lifetimes.of(_shared(self.fixture.arguments[name]))
        need.set_up_now()
        return need.value_now()

    def set_up_now(self) -> None:
        """Set it up from running code, unless it is up or has failed.

        Raises:
            RuntimeError: It, or what it needs, is async and not up.
        """
        __tracebackhide__ = True
        if self._settled.is_set():
            return
        definition, request = self.fixture.definition, self.fixture.request
        if is_async(definition.func):
            raise not_from_running_code(self.fixture.name)
        request.owner = self
        start = clock.monotonic()
        try:
            arguments = {
                name: request if name == "request" else self._argument_now(name) for name in definition.argnames
            }
            self._settle(set_up_now(definition, request, arguments, self._finalizers))
        except BaseException as error:  # noqa: BLE001  # kept, and raised in every test that needs the fixture
            self._fail(error)
        self._emit("setup", start, failed=not self.is_up)
        self.start()

    async def _live(self) -> None:
        guarded_by.set(self._ward)
        self.fixture.request.owner = self
        try:
            if not self._settled.is_set():
                await self._set_up()
            await self._hold()
        finally:
            for dependent in self.dependents:
                await dependent.ended.wait()
            await self._tear_down()
            self.ended.set()

    async def _set_up(self) -> None:
        start = clock.monotonic()
        try:
            arguments = await self._lifetimes.arguments(self.fixture, self.fixture.request)
            if self._settled.is_set():
                return  # a sync fixture that running code could not wait for
            start = clock.monotonic()
            value = await self._limit("the set-up").run(lambda: self._called(arguments))
        except Needless:
            return  # as above
        except asyncio.CancelledError as cancelled:
            self._fail(_interrupted(self.fixture, cancelled))
        except KeyboardInterrupt as interrupt:
            self._fail(interrupt)
            raise
        except BaseException as error:  # noqa: BLE001  # kept, and raised in every test that needs the fixture
            self._fail(error)
        else:
            self._settle(value)
        self._emit("setup", start, failed=not self.is_up)

    async def _called(self, arguments: dict[str, Any]) -> object:
        __tracebackhide__ = True
        outside = Outside(self._lifetimes.loop, self.fixture, self._settled.is_set)
        return await set_up(self.fixture.definition, self.fixture.request, arguments, self._finalizers, outside)

    def _limit(self, what: str) -> TimeLimit:
        self._limited = self._lifetimes.time_limit(f"fixture {self.fixture.id}: {what}")
        return self._limited

    def _settle(self, value: object) -> None:
        self._value = value
        self._settled.set()

    def _fail(self, error: BaseException) -> None:
        self._failure = (error, error.__traceback__)
        self._settled.set()

    async def _hold(self) -> None:
        try:
            await self._released.wait()
        except asyncio.CancelledError as cancelled:
            self._teardown_error = await self._finalizers.interrupt(cancelled)
            if self._failure is None:
                over = failure(f"fixture {self.fixture.id} ended while tests still needed it", self._teardown_error)
                self._failure = (over, over.__traceback__)

    async def _tear_down(self) -> None:
        start = clock.monotonic()
        try:
            title = f"errors while tearing down fixture {self.fixture.name!r}"
            await self._finalizers.run(title, lambda: self._limit("the tear-down"))
        except BaseException as error:  # noqa: BLE001  # kept, and reported by the last test that used it
            self._teardown_error = error
        self._value = None  # it is nobody's any more: what its end raises is told
        self._emit("teardown", start, failed=self._teardown_error is not None)

    def _emit(self, phase: Any, start: float, *, failed: bool) -> None:
        self._lifetimes.sink(
            FixtureFinished(
                fixture=self.fixture.id,
                name=self.fixture.name,
                scope=self.fixture.scope,
                phase=phase,
                start=start,
                end=clock.monotonic(),
                needs=tuple(need.id for need in self.fixture.needs),
                failed=failed,
            )
        )


class Lifetimes:
    """All shared fixtures of a run. Owns their tasks; leave its context and every one has ended."""

    def __init__(
        self, group: asyncio.TaskGroup, sink: Sink, limit: float, loop: PausingLoop, guarded: frozenset[SharedFixture]
    ) -> None:
        self.loop = loop
        self.guarded = guarded
        self.sink = sink
        self._limit = limit
        self._group = group
        self._by_fixture: dict[SharedFixture, Lifetime] = {}
        self._past: list[Lifetime] = []

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, sink: Sink, limit: float, loop: PausingLoop, *, guarded: frozenset[SharedFixture] = frozenset()
    ) -> AsyncIterator[Lifetimes]:
        """Give a set of lifetimes; at the end release and await all that were started, cancelled or not.

        Each set-up and each tear-down may take ``limit`` seconds; 0 is no limit. What is in ``guarded`` may not change
        process-global state.
        """
        async with asyncio.TaskGroup() as group:
            lifetimes = cls(group, sink, limit, loop, guarded)
            try:
                yield lifetimes
            finally:
                await lifetimes.close()

    def time_limit(self, what: str) -> TimeLimit:
        """Limit the time of what runs inside."""
        return TimeLimit(self._limit, what)

    def spawn(self, coroutine: Any, name: str) -> asyncio.Task[None]:
        """Start a fixture's task, owned by the run: what it writes belongs to no test, whoever asked for it first."""
        context = copy_context()
        context.run(current_output.set, None)
        context.run(current_account.set, OF_FIXTURES)
        context.run(current_fixture.set, name)
        return self._group.create_task(coroutine, name=name, context=context)

    def of(self, fixture: SharedFixture) -> Lifetime:
        """The lifetime of ``fixture``, not started unless somebody has asked for its value."""
        if fixture not in self._by_fixture:
            self._by_fixture[fixture] = Lifetime(fixture, self, guarded=fixture in self.guarded)
        return self._by_fixture[fixture]

    def renew(self, case: Case) -> None:
        """Give up those shared fixtures of ``case`` that were stopped at process-global state: it runs alone now."""
        for fixture in case.shared:
            stopped = self.of(fixture)
            if stopped.was_stopped:
                self._past.append(stopped)
                fresh = self._by_fixture[fixture] = Lifetime(fixture, self)
                fresh.users = stopped.users
                stopped.release()

    def hold_for(self, case: Case) -> None:
        """Keep the shared fixtures of ``case`` for one more attempt at it, whoever else is done with them."""
        for fixture in case.shared:
            self.hold(fixture)

    def have_settled(self, fixtures: tuple[SharedFixture, ...]) -> bool:
        """Whether each of ``fixtures`` is up or has failed."""
        for fixture in fixtures:  # noqa: SIM110  # asked for every test
            if not self.of(fixture).is_settled:
                return False
        return True

    async def wait_until_up(self, fixtures: tuple[SharedFixture, ...]) -> None:
        """Set up ``fixtures`` at once and return when each is up or has failed."""
        if self.have_settled(fixtures):
            return
        lifetimes = [self.of(fixture) for fixture in fixtures]
        for lifetime in lifetimes:
            lifetime.start()
        for lifetime in lifetimes:
            await lifetime.settled()

    def waiting(self, fixtures: tuple[SharedFixture, ...]) -> str:
        """Which of ``fixtures`` a test waits for, and where that waits, in words that go after the test's name.

        The name is one that users know: fixtures of the kit's own that start with an underscore stand behind others.
        """
        pending = [fixture for fixture in fixtures if not self.of(fixture).is_settled]
        holding_up = next((one for one in pending if self.have_settled(one.needs)), None)
        named = next((one for one in pending if not one.name.startswith("_")), holding_up)
        if holding_up is None or named is None:
            return ""
        place = self.of(holding_up).waiting_at()
        return f"waits for fixture {named.name}" + ("" if place is None else f", at {place}")

    async def arguments(self, fixture: SharedFixture, request: Request) -> dict[str, Any]:
        """Await what a shared fixture's function takes."""
        __tracebackhide__ = True
        for need in fixture.needs:
            self.of(need).start()
        values: dict[str, Any] = {}
        for name in fixture.definition.argnames:
            source = fixture.arguments.get(name)
            values[name] = request if source is None else await self.of(_shared(source)).value()
        return values

    def would_end(self, case: Case) -> bool:
        """Whether :meth:`release` would end any."""
        return any(self.of(fixture).users == 1 for fixture in case.shared)

    def release(self, case: Case) -> list[Lifetime]:
        """Note that ``case`` is done; give the lifetimes that this ends, in the order of their set-up."""
        ended = []
        for fixture in case.shared:
            lifetime = self.of(fixture)
            lifetime.users -= 1
            if lifetime.users == 0:
                ended.append(lifetime)
        for lifetime in reversed(ended):
            lifetime.release()
        return ended

    async def close(self) -> list[BaseException]:
        """End every fixture, whoever used it, and wait until all have; give the errors that no test has reported."""
        for lifetime in reversed(list(self._by_fixture.values())):
            lifetime.abandon()
        errors = []
        for lifetime in [*self._past, *self._by_fixture.values()]:
            await lifetime.ended.wait()
            errors += lifetime.take_teardown_error()
        return errors

    def ending(self) -> list[str]:
        """The names of the fixtures that were asked to end and haven't yet."""
        return [lifetime.fixture.name for lifetime in self._by_fixture.values() if lifetime.is_ending]

    def hold(self, fixture: SharedFixture) -> Lifetime:
        """Keep a fixture to the end of the run: it was asked for while running, and nothing tells who else will ask."""
        for held in (*fixture.needs, fixture):
            lifetime = self.of(held)
            if lifetime.is_released:
                self._past.append(lifetime)
                lifetime = self._by_fixture[held] = Lifetime(held, self)
                lifetime.users = 0
            lifetime.users += 1
        return self.of(fixture)

    def now(self, fixture: Source) -> Lifetime:
        """A fixture that running code asked for: up already, or sync and set up here and now.

        Raises:
            RuntimeError: It can't be set up from running code.
        """
        lifetime = self.hold(_shared(fixture))
        lifetime.set_up_now()
        return lifetime


def _shared(source: Source) -> SharedFixture:
    assert isinstance(source, SharedFixture)  # noqa: S101  # the graph makes a fixture over a local one local
    return source
