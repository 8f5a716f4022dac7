"""Tells pytest's reporters what came of tests: a test's reports together, however many tests ran beside it.

What ends within a moment is told at once, under one switch of the terminal's capture: for short tests the switching
would cost more than the tests. The hooks are called by hand where that is the same as pluggy's own way, for the same
reason.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from asynctest_kit.engine import collection
from asynctest_kit.engine.foreign_hooks import has_foreign

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from asynctest_kit.engine.capture import Capture
    from asynctest_kit.engine.executor import Execution

__all__ = ["Announcer"]

#: Seconds for which a test's end may remain untold.
_MOMENT = 0.02


class Announcer:
    """The way to pytest's reporters for one run.

    Args:
        config: pytest's.
        capture: Is suspended while reporters write.
        after: Called when something was told, for it may have told the session to stop.
        at_once: Whether nothing may wait: the run may be told to stop by any report.
    """

    def __init__(self, config: pytest.Config, capture: Capture, after: Callable[[], None], *, at_once: bool) -> None:
        self._capture = capture
        self._reporter = config.pluginmanager.getplugin("terminalreporter")
        self._is_quiet = self._reporter is not None and not has_foreign(config, "pytest_report_teststatus")
        self._after = after
        self._at_once = at_once
        self._untold: list[Execution] = []
        self._timer: asyncio.TimerHandle | None = None
        self._hooks: dict[Path, _Hooks] = {}
        self._turn = 0

    def tell(self, execution: Execution) -> None:
        """Tell of a test, now or in a moment."""
        self._untold.append(execution)
        if self._at_once:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_MOMENT, self.flush)

    def flush(self) -> None:
        """Tell what is untold."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        untold, self._untold = self._untold, []
        if not untold:
            return
        self._turn += 1
        letters = self._is_quiet and collection.writes_letters(self._reporter)
        with (
            self._capture.suspended(),
            collection.written_at_once(self._reporter) if letters else contextlib.nullcontext(),
        ):
            for execution in untold:
                self._tell(execution)
        self._after()

    def _tell(self, execution: Execution) -> None:
        item = execution.planned.case.item
        hooks = self._hooks.get(item.path)
        if hooks is None:
            hooks = self._hooks[item.path] = _Hooks(item.ihook)
        hooks.look_again(self._turn)
        for warning in execution.warnings:
            collection.record_warning(item.config, warning, item.nodeid)
        calls = {id(report): call for call, report in execution.calls}
        hooks.call("pytest_runtest_logstart", nodeid=item.nodeid, location=item.location)
        for report in execution.reports:
            if execution.verdict:
                vars(report)["atk_verdict"] = execution.verdict
            if self._is_quiet and report.when != "call" and report.passed:
                if hooks.call("pytest_runtest_logreport", but=self._reporter, report=report):
                    collection.count_quietly(self._reporter, report)
            else:
                hooks.call("pytest_runtest_logreport", report=report)
            if calls and (call := calls.get(id(report))) is not None:
                item.ihook.pytest_exception_interact(node=item, call=call, report=report)
        hooks.call("pytest_runtest_logfinish", nodeid=item.nodeid, location=item.location)


class _Hooks:
    """The hooks that count for one file, looked up once a turn."""

    __slots__ = ("_known", "_relay", "_turn")

    def __init__(self, relay: Any) -> None:
        self._relay = relay
        self._turn = 0
        self._known: dict[str, list[tuple[Any, tuple[str, ...]]] | None] = {}

    def look_again(self, turn: int) -> None:
        """Forget what was known in another turn."""
        if turn != self._turn:
            self._turn = turn
            self._known.clear()

    def call(self, name: str, *, but: object = None, **values: object) -> bool:
        """Call a hook whose results count for nothing, if possible but for one plugin; tell whether that was."""
        known = self._known[name] if name in self._known else self._look_up(name)
        if known is None:
            getattr(self._relay, name)(**values)
            return False
        for impl, names in known:
            if but is None or impl.plugin is not but:
                impl.function(*[values[one] for one in names])
        return True

    def _look_up(self, name: str) -> list[tuple[Any, tuple[str, ...]]] | None:
        impls = getattr(self._relay, name).get_hookimpls()
        has_wrappers = any(impl.wrapper or impl.hookwrapper for impl in impls)
        self._known[name] = None if has_wrappers else [(impl, tuple(impl.argnames)) for impl in reversed(impls)]
        return self._known[name]
