"""The pytest plugin that puts the engine in the place of pytest's own loop over the items."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from asynctest_kit.engine.events import CollectionFinished, LoopFinished, LoopStarted

if TYPE_CHECKING:
    from collections.abc import Generator

    from asynctest_kit.engine.events import Sink

__all__ = ["Engine"]

#: Options under which pytest's own loop must run: they stop in a test, or don't run tests at all.
#: ``--stepwise`` counts on an order; ``-n`` hands the items to processes of xdist's.
_PYTEST_LOOP_OPTIONS = (
    "collectonly", "usepdb", "trace", "setupshow", "setuponly", "setupplan", "stepwise", "numprocesses",
)  # fmt: skip


@dataclass(eq=False, slots=True)
class Engine:
    """Runs the collected items on one event loop.

    Attributes:
        concurrency: How many tests run at once at most.
        timeout: Seconds that a test may take; 0 for no limit.
        sink: Where events go.
    """

    concurrency: int
    timeout: float
    sink: Sink

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self, session: pytest.Session) -> Generator[None, object, object]:
        """Time the collection."""
        start = time.monotonic()
        try:
            return (yield)
        finally:
            self.sink(CollectionFinished(start=start, end=time.monotonic(), cases=len(session.items or ())))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
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
        from asynctest_kit.engine.graph import build
        from asynctest_kit.engine.pausing_loop import PausingLoop
        from asynctest_kit.engine.plan import plan

        _one_line_of_dots(session.config)
        self.sink(LoopStarted(at=time.monotonic(), concurrency=self.concurrency))
        dispatcher = Dispatcher(
            session, plan(build(session.items)), concurrency=self.concurrency, timeout=self.timeout, sink=self.sink
        )
        loop = PausingLoop()
        try:
            loop.run(lambda: dispatcher.run(loop))
        finally:
            self.sink(LoopFinished(at=time.monotonic()))
        if dispatcher.interrupt is not None:
            raise dispatcher.interrupt
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)


def _one_line_of_dots(config: pytest.Config) -> None:
    """Don't start a line for each file: tests of many files end in turn."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None and config.get_verbosity() <= 0:
        reporter.showfspath = False
        reporter.ensure_newline()
