"""The fixtures of one test: its own, which live in its task, and what it has of shared ones.

They are set up in pytest's order and torn down in reverse, all to the end: the rest goes on after one finalizer fails,
and all errors are raised together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynctest_kit.engine.fixture_call import Finalizers, Outside, not_from_running_code, set_up, set_up_now
from asynctest_kit.engine.graph import SharedFixture, is_async
from asynctest_kit.engine.put_back import targets_of, watched
from asynctest_kit.engine.subtests import adapted, gives_subtests

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import pytest

    from asynctest_kit.engine.collection import Request, TestRequest
    from asynctest_kit.engine.graph import Case, LocalFixture, Source
    from asynctest_kit.engine.guard import Ward
    from asynctest_kit.engine.lifetimes import Lifetimes
    from asynctest_kit.engine.time_limit import TimeLimit

__all__ = ["CaseFixtures"]


class CaseFixtures:
    """The fixtures of one running test, set up and torn down in its task."""

    __slots__ = ("_ambient", "_finalizers", "_lifetimes", "_reports", "_values", "_ward", "case")

    def __init__(
        self, case: Case, lifetimes: Lifetimes, *, ambient: Collection[Source] = (), ward: Ward | None = None
    ) -> None:
        self.case = case
        self._ambient = ambient
        self._ward = ward
        self._lifetimes = lifetimes
        self._finalizers = Finalizers()
        self._values: dict[Source, Any] = {}
        self._reports: list[pytest.TestReport] = []

    def take_reports(self) -> list[pytest.TestReport]:
        """Reports that its fixtures have made since the last call: those of subtests."""
        reports = self._reports[:]
        self._reports.clear()
        return reports

    @property
    def has_reports(self) -> bool:
        """Whether its fixtures have made reports that nobody has taken."""
        return bool(self._reports)

    @property
    def shared_failed(self) -> bool:
        """Whether a shared fixture has failed."""
        return any(self._lifetimes.of(fixture).has_failed for fixture in self.case.shared)

    def set_up_at_once(self) -> dict[str, Any] | None:
        """What :meth:`wait` and :meth:`set_up` come to where nothing is to be waited for or set up; else None."""
        case = self.case
        if case.local or case.error is not None or self._ambient:
            return None
        lifetimes = [self._lifetimes.of(fixture) for fixture in case.shared]
        for lifetime in lifetimes:
            if not lifetime.is_up:
                return None
        if case.resolver is not None:
            case.resolver.serve(self)
        for lifetime in lifetimes:
            self._values[lifetime.fixture] = lifetime.value_now()
        return self._by_name()

    def tear_down_at_once(self) -> bool:
        """Do what :meth:`tear_down` does where nothing is to be torn down, of shared fixtures either; else nothing."""
        if not self._finalizers.is_empty or self._lifetimes.would_end(self.case):
            return False
        self._forget()
        return True

    async def wait(self) -> None:
        """Wait until the shared fixtures are up or have failed."""
        await self._lifetimes.wait_until_up(self.case.shared)

    async def set_up(self) -> dict[str, Any]:
        """Set up all, in pytest's order, after :meth:`wait`.

        Returns:
            The values by name.

        Raises:
            BaseException: What the first fixture that failed raised.
        """
        __tracebackhide__ = True
        if self.case.error is not None:
            raise self.case.error
        if self.case.resolver is not None:
            self.case.resolver.serve(self)
        for source in self.case.sources:
            if source not in self._ambient:
                await self._enter(source)
        return self._by_name()

    def _by_name(self) -> dict[str, Any]:
        return {name: self._values[source] for name, source in self.case.by_name.items() if source in self._values}

    async def tear_down(self, limit: Callable[[str], TimeLimit] | None = None) -> None:
        """Tear the test's own fixtures down, last first; each may take ``limit("the tear-down")``."""
        __tracebackhide__ = True
        title = f"errors while tearing down {self.case.item!r}"
        try:
            await self._finalizers.run(title, None if limit is None else lambda: limit("the tear-down"))
        finally:
            self._forget()

    def _forget(self) -> None:
        self._values.clear()
        if self.case.resolver is not None:
            self.case.resolver.over()

    def add_finalizer(self, finalizer: Callable[[], object]) -> None:
        """Run ``finalizer`` when the test is torn down."""
        self._finalizers.add(finalizer)

    def dynamic_value(self, name: str, request: TestRequest | Request) -> object:
        """Answer ``request.getfixturevalue``: what is up, or can be set up now.

        Raises:
            RuntimeError: The fixture is async and not up, and who asks runs on the loop, so that it can't wait.
            FixtureLookupError: No such fixture.
        """
        if name == "request":
            return request
        if self.case.resolver is None:
            raise not_from_running_code(name)
        source = self.case.resolver.source(name, request)
        loop = self._lifetimes.loop
        if loop.is_running:
            return self._now(source)
        return loop.inside(lambda: self._reached(source), (self, source, *source.needs))

    async def _reached(self, source: Source) -> Any:
        """The value of a fixture that sync code asked for, which waits outside."""
        __tracebackhide__ = True
        if source in self._values:
            return self._values[source]
        if isinstance(source, SharedFixture):
            self._values[source] = await self._lifetimes.hold(source).value()
        else:
            for name in source.definition.argnames:
                if name != "request":
                    await self._reached(source.arguments[name])
            await self._enter(source)
        return self._values[source]

    def _now(self, source: Source) -> Any:
        """The value of a fixture: up already, or sync and set up here and now."""
        __tracebackhide__ = True
        if source in self._values:
            return self._values[source]
        if isinstance(source, SharedFixture):
            self._values[source] = self._lifetimes.now(source).value_now()
            return self._values[source]
        if is_async(source.definition.func):
            raise not_from_running_code(source.name)
        source.request.owner = self
        arguments = {
            name: source.request if name == "request" else self._now(source.arguments[name])
            for name in source.definition.argnames
        }
        self._keep(source, set_up_now(source.definition, source.request, arguments, self._finalizers))
        return self._values[source]

    async def _enter(self, source: Source) -> None:
        __tracebackhide__ = True
        if source in self._values:
            return  # another fixture has asked for it
        if isinstance(source, SharedFixture):
            self._values[source] = await self._lifetimes.of(source).value()
            return
        source.request.owner = self
        arguments = self._arguments(source)
        outside = Outside(self._lifetimes.loop, self)
        value = await set_up(source.definition, source.request, arguments, self._finalizers, outside)
        self._keep(source, value)

    def _keep(self, source: LocalFixture, value: object) -> None:
        self._values[source] = adapted(value, self._reports) if gives_subtests(source) else value
        ward, targets = self._ward, targets_of(source.definition.func)
        if ward is not None and targets:
            self._finalizers.wrap_last(lambda leave: watched(leave, targets, ward))

    def _arguments(self, fixture: LocalFixture) -> dict[str, Any]:
        return {
            name: fixture.request if name == "request" else self._values[fixture.arguments[name]]
            for name in fixture.definition.argnames
        }
