"""Tells pytest's reporters what came of tests: a test's reports together, however many tests ran beside it.

What ends within a moment is told at once, under one switch of the terminal's capture: for short tests the switching
would cost more than the tests. The hooks are called by hand where that is the same as pluggy's own way, for the same
reason.
"""

from __future__ import annotations

import asyncio
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
        with self._capture.suspended():
            for execution in untold:
                self._tell(execution)
        self._after()

    def _tell(self, execution: Execution) -> None:
        item = execution.planned.case.item
        hooks = self._hooks.get(item.path)
        if hooks is None:
            hooks = self._hooks[item.path] = _Hooks(item.ihook)
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
            if (call := calls.get(id(report))) is not None:
                item.ihook.pytest_exception_interact(node=item, call=call, report=report)
        hooks.call("pytest_runtest_logfinish", nodeid=item.nodeid, location=item.location)


class _Hooks:
    """The hooks that count for one file."""

    __slots__ = ("_known", "_relay")

    def __init__(self, relay: Any) -> None:
        self._relay = relay
        self._known: dict[str, tuple[list[Any], list[tuple[Any, tuple[str, ...]]] | None]] = {}

    def call(self, name: str, *, but: object = None, **values: object) -> bool:
        """Call a hook whose results count for nothing, if possible but for one plugin; tell whether that was."""
        caller = getattr(self._relay, name)
        impls = caller.get_hookimpls()
        known = self._known.get(name)
        if known is None or known[0] != impls:
            has_wrappers = any(impl.wrapper or impl.hookwrapper for impl in impls)
            direct = None if has_wrappers else [(impl, tuple(impl.argnames)) for impl in reversed(impls)]
            known = self._known[name] = (impls, direct)
        if known[1] is None:
            caller(**values)
            return False
        for impl, names in known[1]:
            if but is None or impl.plugin is not but:
                impl.function(*[values[one] for one in names])
        return True
