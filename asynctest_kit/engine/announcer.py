"""Tells pytest's reporters what came of tests: a test's reports together, however many tests ran beside it.

What ends within a moment is told at once, under one switch of the terminal's capture: for short tests the switching
would cost more than the tests. The hooks are called by hand where that is the same as pluggy's own way, for the same
reason.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from asynctest_kit.engine import collection
from asynctest_kit.engine.foreign_hooks import has_foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from asynctest_kit.engine.capture import Capture
    from asynctest_kit.engine.executor import Execution

__all__ = ["Announcer"]

#: A plugin, its function, and whether that ignores what has passed; see :meth:`_Hooks._ignores`.
_Call = tuple[object, "Callable[..., object]", bool | None]

#: The hooks of those who tell of tests.
_TELLING = (
    "pytest_runtest_logstart",
    "pytest_runtest_logreport",
    "pytest_runtest_logfinish",
    "pytest_exception_interact",
)

_REPORT = ("report",)

_PHASES = ("setup", "call", "teardown")

#: Seconds for which a test's end may remain untold.
_MOMENT = 0.02


class Announcer:
    """The way to pytest's reporters for one run.

    Args:
        config: pytest's.
        capture: Is suspended while reporters write.
        after: Called when something was told, for it may have told the session to stop.
        at_once: Whether nothing may wait: the run may be told to stop by any report.

    Attributes:
        interrupt: What a reporter ended the run with, or None.
    """

    def __init__(self, config: pytest.Config, capture: Capture, after: Callable[[], None], *, at_once: bool) -> None:
        self._capture = capture
        self._reporter = config.pluginmanager.getplugin("terminalreporter")
        self._is_quiet = self._reporter is not None and not has_foreign(config, "pytest_report_teststatus")
        self._are_alone = not any(has_foreign(config, name) for name in _TELLING)
        self._after = after
        self._at_once = at_once
        self._untold: list[Execution] = []
        self._timer: asyncio.TimerHandle | None = None
        self._hooks: dict[Path, _Hooks] = {}
        self._turn = 0
        self.interrupt: BaseException | None = None

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
        at_once = letters and self._are_alone  # what others write has its place among the letters
        try:
            with (
                self._capture.suspended(),
                collection.written_at_once(self._reporter) if at_once else contextlib.nullcontext(),
            ):
                for execution in untold:
                    self._tell(execution, letters=letters)
        except (KeyboardInterrupt, pytest.exit.Exception) as interrupt:
            self.interrupt = interrupt
        self._after()

    def _tell(self, execution: Execution, *, letters: bool) -> None:
        item = execution.planned.case.item
        hooks = self._hooks.get(item.path)
        if hooks is None:
            hooks = self._hooks[item.path] = _Hooks(item.ihook, self._reporter)
        hooks.look_again(self._turn)
        nodeid, location = item.nodeid, item.location
        for warning in execution.warnings:
            collection.record_warning(item.config, warning, nodeid)
        calls = {id(report): call for call, report in execution.calls} if execution.calls else {}
        # What pytest's subtests make of the call's status changes its report.
        is_plain = letters and len(execution.reports) == len(_PHASES) and not execution.verdict
        hooks.tell("pytest_runtest_logstart", nodeid, location)
        for report in execution.reports:
            if execution.verdict:
                vars(report)["atk_verdict"] = execution.verdict
            if self._is_quiet and report.when != "call":
                hooks.report(report, collection.count_quietly)
            elif self._is_quiet and is_plain:
                hooks.report(report, collection.count_passed)
            else:
                hooks.report(report)
            if calls and (call := calls.get(id(report))) is not None:
                item.ihook.pytest_exception_interact(node=item, call=call, report=report)
        hooks.tell("pytest_runtest_logfinish", nodeid, location)


class _Hooks:
    """The hooks that count for one file, looked up once a turn; what they give counts for nothing.

    Args:
        relay: pytest's way to call them.
        reporter: The terminal's, which has a shorter way.
    """

    __slots__ = ("_known", "_relay", "_reporter", "_turn")

    def __init__(self, relay: Any, reporter: object) -> None:
        self._relay = relay
        self._reporter = reporter
        self._turn = 0
        self._known: dict[str, list[_Call] | None] = {}

    def look_again(self, turn: int) -> None:
        """Forget what was known in another turn."""
        if turn != self._turn:
            self._turn = turn
            self._known.clear()

    def tell(self, name: str, nodeid: str, location: object) -> None:
        """Call one of the hooks of a test's start and end."""
        known = self._known[name] if name in self._known else self._look_up(name, ("nodeid", "location"))
        if known is None:
            getattr(self._relay, name)(nodeid=nodeid, location=location)
            return
        for _, call, _ in known:
            call(nodeid, location)

    def report(
        self, report: pytest.TestReport, shorter: Callable[[Any, pytest.TestReport], None] | None = None
    ) -> None:
        """Call the hooks of a report; in place of the terminal's ``shorter``, which does the same if it has passed."""
        name = "pytest_runtest_logreport"
        known = self._known[name] if name in self._known else self._look_up(name, _REPORT)
        if known is None:
            self._relay.pytest_runtest_logreport(report=report)
            return
        for plugin, call, ignores in known:
            # The one before may have changed it.
            if ignores is not None and collection.has_plainly_passed(report):
                if ignores:
                    continue
                if shorter is not None:
                    shorter(plugin, report)
                    continue
            call(report)

    def _look_up(self, name: str, given: tuple[str, ...]) -> list[_Call] | None:
        """The plugins and their functions, in the order of their calls; None if it takes pluggy to call them."""
        impls = getattr(self._relay, name).get_hookimpls()
        has_wrappers = any(impl.wrapper or impl.hookwrapper for impl in impls)
        self._known[name] = None
        if not has_wrappers:
            calls = [(impl.plugin, _taking(given, impl.argnames, impl.function)) for impl in reversed(impls)]
            if given != _REPORT:
                calls = [one for one in calls if not collection.ignores_starts(*one)]
            self._known[name] = [(plugin, call, self._ignores(plugin, call)) for plugin, call in calls]
        return self._known[name]

    def _ignores(self, plugin: object, call: Callable[..., object]) -> bool | None:
        """Whether a passed report need not be shown to a plugin; False if there is a shorter way to."""
        if plugin is self._reporter and collection.is_reporters_own(call):
            return False
        return True if collection.ignores_passed(plugin) else None


def _taking(given: tuple[str, ...], wanted: Sequence[str], function: Callable[..., object]) -> Callable[..., object]:
    """``function``, to be called with all that is given, whatever it takes of that."""
    places = [given.index(name) for name in wanted]
    if places == list(range(len(given))):
        return function
    return lambda *values: function(*(values[place] for place in places))
