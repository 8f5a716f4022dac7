"""What pytest's terminal reporter makes of reports, by a shorter way."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any, TextIO

import pytest
from _pytest._io import TerminalWriter
from _pytest.logging import LoggingPlugin, _LiveLoggingNullHandler
from _pytest.runner import show_test_item
from _pytest.terminal import TerminalReporter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asynctest_kit.engine.code_places import Place

__all__ = [
    "count_passed",
    "count_quietly",
    "has_plainly_passed",
    "ignores_passed",
    "ignores_starts",
    "is_reporters_own",
    "show_item",
    "tell_interrupt",
    "writes_letters",
    "written_at_once",
]


def count_quietly(reporter: Any, report: pytest.TestReport) -> None:
    """What the terminal's reporter makes of a set-up or tear-down that passed."""
    reporter._tests_ran = True
    reporter._add_stats("", [report])


#: Letters that what is said of the progress at a line's end takes at most.
_PROGRESS = 30

_LOGREPORT = TerminalReporter.pytest_runtest_logreport
_LOGSTART = TerminalReporter.pytest_runtest_logstart


def has_plainly_passed(report: pytest.TestReport) -> bool:
    """Whether a report is of a phase that simply passed."""
    return report.outcome == "passed" and not hasattr(report, "wasxfail")


def is_reporters_own(hook: object) -> bool:
    """Whether the terminal's hook is pytest's own."""
    return getattr(hook, "__func__", None) is _LOGREPORT


def ignores_passed(plugin: object) -> bool:
    """Whether a plugin does nothing about the report of a phase that simply passed.

    Some of pytest's are known to; a plugin of this project says so of itself, by an attribute of that name.
    """
    if isinstance(plugin, pytest.Session):
        return type(plugin).pytest_runtest_logreport is pytest.Session.pytest_runtest_logreport
    return _logs_nothing_live(plugin) or getattr(plugin, "ignores_passed", False) is True


def ignores_starts(plugin: object, hook: object) -> bool:
    """Whether one of pytest's plugins does nothing when a test starts or ends."""
    if (
        isinstance(plugin, TerminalReporter)
        and getattr(hook, "__func__", None) is TerminalReporter.pytest_runtest_logstart
    ):
        return not (plugin.showlongtestinfo or plugin.showfspath)
    return _logs_nothing_live(plugin)


def _logs_nothing_live(plugin: object) -> bool:
    return type(plugin) is LoggingPlugin and type(plugin.log_cli_handler) is _LiveLoggingNullHandler


def count_passed(reporter: Any, report: pytest.TestReport) -> None:
    """What the terminal's reporter makes of a test that passed, where it :func:`writes_letters`."""
    reporter._tests_ran = True
    reporter._current_logreport = report
    reporter._add_stats("passed", [report])
    reporter._progress_nodeids_reported.add(getattr(report, "id", report.nodeid))  # an object from pytest 9.2 on
    writer = reporter._tw
    writer.write(".", green=True)
    line = writer._current_line
    if line.isascii() and len(line) + _PROGRESS < reporter._screen_width:
        return  # pytest works out the width of the whole line for each letter
    if reporter._show_progress_info and not reporter._is_last_item:
        reporter._write_progress_information_if_past_edge()


@contextmanager
def written_at_once(reporter: Any) -> Iterator[None]:
    """Write what the terminal's reporter writes meanwhile in one piece, when the block ends."""
    writer = reporter._tw
    file, writer._file = writer._file, _Kept(writer._file)
    try:
        yield
    finally:
        kept, writer._file = writer._file, file
        file.write(kept.getvalue())
        file.flush()


class _Kept(StringIO):
    """What is to be written to ``file``, which refuses what that would refuse."""

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self._encoding = getattr(file, "encoding", None) or "utf-8"
        self._errors = getattr(file, "errors", None) or "strict"

    def write(self, text: str) -> int:
        if not text.isascii():
            text.encode(self._encoding, self._errors)
        return super().write(text)


@dataclass(frozen=True, slots=True)
class _Interrupt:
    """What the terminal's reporter shows of an interrupt."""

    message: str
    place: Place | None

    def toterminal(self, writer: TerminalWriter) -> None:
        if self.place is not None:
            writer.line(f"{self.place}: {self.message}")


def tell_interrupt(reporter: Any, message: str, place: Place | None) -> None:
    """Have the terminal's reporter show ``message`` for the interrupt that it has noted, and ``place`` for where."""
    noted = getattr(reporter, "_keyboardinterrupt_memo", None)
    if noted is not None:
        noted.reprcrash = _Interrupt(message, place)


def writes_letters(reporter: Any) -> bool:
    """Whether the terminal's reporter is pytest's own, and writes one letter a test."""
    if type(reporter) is not TerminalReporter or type(reporter._tw) is not TerminalWriter:
        return False
    return reporter.config.get_verbosity(pytest.Config.VERBOSITY_TEST_CASES) <= 0


def show_item(item: pytest.Item) -> None:
    """Show a test between its fixtures, if ``--setup-show`` asks for it."""
    if item.config.getoption("setupshow", False):
        show: Any = show_test_item  # its arguments differ between versions
        show(item, **({"add_space": True} if "add_space" in inspect.signature(show).parameters else {}))
