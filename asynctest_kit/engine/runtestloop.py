"""The pytest plugin that puts the engine in the place of pytest's own loop over the items."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from asynctest_kit.engine import clock, collection
from asynctest_kit.engine.cheap_collection import CheapCollection
from asynctest_kit.engine.code_places import is_users, raised_at
from asynctest_kit.engine.events import CollectionFinished, LoopFinished, LoopStarted
from asynctest_kit.engine.garbage import Garbage
from asynctest_kit.engine.interrupts import Terminated
from asynctest_kit.engine.repetition import Repetition
from asynctest_kit.engine.unmatched import UnmatchedRules

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from asynctest_kit.engine.events import Sink
    from asynctest_kit.engine.plan import Plan
    from asynctest_kit.engine.treatment import Options

__all__ = ["Engine"]

#: Options under which pytest's own loop must run: they don't run tests at all, or hand them to other processes.
_PYTEST_LOOP_OPTIONS = ("collectonly", "setuponly", "setupplan", "trace", "numprocesses")

#: Options under which tests run one by one in pytest's order: they stop in a test, show its steps or count on an order.
_ONE_BY_ONE_OPTIONS = ("usepdb", "setupshow", "stepwise", "stepwise_skip")

#: A plugin that runs all tests in the first half of a wrapper, whoever has the loop; its tests run on ours as they are.
_COOPERATIVE = "asyncio-cooperative"


@dataclass(eq=False, slots=True)
class Engine:
    """Runs the collected items on one event loop.

    Attributes:
        options: What was asked of the run.
        sink: Where events go.
        was_terminated: Whether SIGTERM has ended the run. Its exit code is then :data:`.interrupts.TERMINATED`.
    """

    options: Options
    sink: Sink
    was_terminated: bool = field(default=False, init=False)
    _plugins: pytest.PytestPluginManager | None = field(default=None, init=False, repr=False)
    _garbage: Garbage = field(default_factory=Garbage, init=False, repr=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self, session: pytest.Session) -> Generator[None, object, object]:
        """Time the collection."""
        start = clock.monotonic()
        try:
            return (yield)
        finally:
            self.sink(CollectionFinished(start=start, end=clock.monotonic(), cases=len(session.items or ())))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Take the loop, after every plugin that has one of its own: of those that want to be first the last is."""
        plugins = session.config.pluginmanager
        if plugins.hasplugin(_COOPERATIVE):
            plugins.unregister(name=_COOPERATIVE)
        plugins.register(_Loop(self.run), "asynctest_kit-loop")

    def run(self, session: pytest.Session) -> bool | None:
        """Run everything, unless an option asks for what only pytest's own loop does."""
        if any(session.config.getoption(name, False) for name in _PYTEST_LOOP_OPTIONS):
            return None
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            return None
        if session.items:
            self._run(session)
        return True

    def _run(self, session: pytest.Session) -> None:
        from asynctest_kit.engine.dispatcher import Dispatcher
        from asynctest_kit.engine.foreign_hooks import let_idle_go
        from asynctest_kit.engine.graph import build
        from asynctest_kit.engine.memory import Memory
        from asynctest_kit.engine.pausing_loop import PausingLoop
        from asynctest_kit.engine.plan import plan

        config = session.config
        memory = Memory(config)
        is_stepping = any(config.getoption(name, False) for name in _ONE_BY_ONE_OPTIONS)
        one_by_one = is_stepping or self.options.one_by_one
        let_idle_go(config, session.items)
        with self._garbage.unlooked(is_ours=True):
            planned = plan(build(session.items), self.options, memory, one_by_one=one_by_one)
        if self.options.explain_plan:
            _explain(config, planned, self.options)
            return
        _one_line_of_dots(config)
        self.sink(LoopStarted(at=clock.monotonic(), concurrency=self.options.concurrency))
        debugs = bool(config.getoption("usepdb"))
        options = replace(self.options, timeout=0.0) if debugs else self.options
        dispatcher = Dispatcher(session, planned, options, memory, sink=self.sink, debugs=debugs)
        self._garbage.keep(dispatcher)
        loop = PausingLoop()
        try:
            loop.run(lambda: dispatcher.run(loop), dispatcher.interrupted)
        finally:
            memory.keep()
            self.sink(LoopFinished(at=clock.monotonic()))
        if dispatcher.interrupt is not None:
            raise dispatcher.interrupt
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)

    @pytest.hookimpl
    def pytest_configure(self, config: pytest.Config) -> None:
        """Have tests repeated, if that was asked for."""
        self._plugins = config.pluginmanager
        config.pluginmanager.register(CheapCollection(), "asynctest_kit-collection")
        config.pluginmanager.register(self._garbage, "asynctest_kit-garbage")
        if self.options.rules:
            unmatched = UnmatchedRules(self.options.rules, self.sink)
            config.pluginmanager.register(unmatched, "asynctest_kit-unmatched-rules")
        if self.options.repeat > 1:
            config.pluginmanager.register(Repetition(self.options.repeat), "asynctest_kit-repetition")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Bring the tests into the order that ``--shuffle`` asks for."""
        if self.options.shuffle is not None:
            Random(self.options.shuffle).shuffle(items)  # noqa: S311  # an order, not a secret

    @pytest.hookimpl
    def pytest_report_header(self) -> str | None:
        """Say how the same order can be had again."""
        seed = self.options.shuffle
        return None if seed is None else f"asynctest_kit: random order; --shuffle {seed} gives the same one"

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say it at the end too: with ``-q`` there is no header."""
        told = self.pytest_report_header()
        if told is not None:
            terminalreporter.write_line(told)

    @pytest.hookimpl(trylast=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Have the terminal tell which signal it was, and where it hit the user's code, not ours."""
        error = excinfo.value
        self.was_terminated = isinstance(error, Terminated)
        is_signal = isinstance(error, KeyboardInterrupt) and not isinstance(error, pytest.Session.Interrupted)
        if is_signal and self._plugins is not None:
            place = raised_at(error)
            name = "SIGTERM" if self.was_terminated else "KeyboardInterrupt"
            collection.tell_interrupt(
                self._plugins.getplugin("terminalreporter"), name, place if place and is_users(place.file) else None
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, Any] | None:
        """Count tests that passed with a history apart from those that simply passed."""
        verdict = getattr(report, "atk_verdict", "")
        if report.when == "call" and report.passed and verdict in _SHOWN:
            return verdict, _SHOWN[verdict], (verdict.upper(), {"yellow": True})
        return None


@dataclass(frozen=True, slots=True)
class _Loop:
    """The plugin that stands in the place of pytest's loop."""

    run: Callable[[pytest.Session], bool | None]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Run everything, unless that is left to pytest."""
        return self.run(session)


#: The letter of a test that passed with a verdict.
_SHOWN = {"doubtful": "d", "flaky": "f", "interference": "i"}


def _explain(config: pytest.Config, planned: Plan, options: Options) -> None:
    from asynctest_kit.engine.explanation import explained

    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        reporter.ensure_newline()
        for line in explained(planned, options):
            reporter.write_line(line)


def _one_line_of_dots(config: pytest.Config) -> None:
    """Don't start a line for each file: tests of many files end in turn."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None and config.get_verbosity() <= 0:
        reporter.showfspath = False
        reporter.ensure_newline()
