"""Output of concurrent tests, routed to the test that made it.

Python-level output (``sys.stdout``, ``sys.stderr``, logging, warnings) goes to the test whose context it was written
in: a context variable names the running test, and child tasks and threads started with a copied context inherit it.
What has no owner, such as output of a shared fixture, goes where pytest's own capture would put it. Output of child
processes on the inherited descriptors can't be attributed; pytest's capture swallows it and it is shown once, at the
end, under its own heading.

pytest's global capture is on while the loop runs and is suspended for each report and for each test that pytest's own
protocol runs.
"""

from __future__ import annotations

import io
import logging
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO

from asynctest_kit.engine import collection
from asynctest_kit.engine.context_logging import ContextLevels, TestLevels
from asynctest_kit.engine.context_warnings import ContextWarnings

if TYPE_CHECKING:
    import warnings
    from collections.abc import Callable, Iterator

    import pytest

    from asynctest_kit.engine.deadlines import Doubt

__all__ = ["Capture", "CaseOutput", "current_output"]


class CaseOutput:
    """What one test has written in its present phase."""

    __slots__ = ("caplog", "doubts", "err", "errors", "item", "late", "levels", "logs", "out", "uncaught", "warnings")

    def __init__(self, item: pytest.Item) -> None:
        self.item = item
        self.out: io.StringIO | None = None
        self.err: io.StringIO | None = None
        self.logs: Any = None
        self.caplog: Any = None
        self.errors: list[BaseException] | None = []
        self.warnings: list[warnings.WarningMessage] = []
        self.levels: TestLevels | None = None
        self.uncaught: list[tuple[Any, Any]] = []
        self.doubts: list[Doubt] = []
        self.late: Doubt | None = None

    def take_errors(self) -> list[BaseException]:
        """What failed in the background since the last phase."""
        errors, self.errors = self.errors or [], []
        return errors

    def close(self) -> None:
        """The test is over: what fails from now on in its name can't be charged to it."""
        self.errors = None

    def stream(self, name: str) -> io.StringIO:
        """What keeps its ``stdout`` or ``stderr``."""
        if name == "stdout":
            if self.out is None:
                self.out = io.StringIO()
            return self.out
        if self.err is None:
            self.err = io.StringIO()
        return self.err

    def end_phase(self, when: str) -> None:
        """Move what was written into the item's report sections, as pytest names them."""
        if self.out is not None:
            self._section(when, "stdout", self.out)
        if self.err is not None:
            self._section(when, "stderr", self.err)
        if self.logs is not None:
            self.item.add_report_section(when, "log", self.logs.stream.getvalue().strip())
            self.logs.reset()

    def _section(self, when: str, name: str, stream: io.StringIO) -> None:
        text = stream.getvalue()
        if text:
            self.item.add_report_section(when, name, text)
            stream.seek(0)
            stream.truncate()


#: The output of the test that the current task belongs to.
current_output: ContextVar[CaseOutput | None] = ContextVar("asynctest_kit_output", default=None)


def _present_levels() -> TestLevels | None:
    output = current_output.get()
    return None if output is None else output.levels


class _RoutedStream(io.TextIOBase):
    """``sys.stdout`` or ``sys.stderr`` while the loop runs.

    There is one of each for the whole run, whatever it falls back to: ``print`` in a thread holds no reference to it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._fallback: TextIO = getattr(sys, name)

    def install(self) -> None:
        """Take the place of what is there now, and give it what belongs to no test."""
        self._fallback = getattr(sys, self._name)
        setattr(sys, self._name, self)

    def uninstall(self) -> None:
        """Put back what was there."""
        setattr(sys, self._name, self._fallback)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._fallback.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._fallback.errors

    @property
    def buffer(self) -> Any:
        return _RoutedBytes(self)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._fallback.fileno()

    def flush(self) -> None:
        self._fallback.flush()

    def close(self) -> None:
        """Nothing: what it writes to is not its own, and may be closed when this object is collected."""

    def write(self, text: str) -> int:
        output = current_output.get()
        target = self._fallback if output is None else output.stream(self._name)
        return target.write(text)


class _RoutedBytes(io.RawIOBase):
    """The ``buffer`` of a routed stream."""

    def __init__(self, stream: _RoutedStream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._stream.write(bytes(data).decode(self._stream.encoding, "replace"))
        return len(data)


class _RoutedLogs(logging.Handler):
    """The root logger's handler while the loop runs."""

    def __init__(self, config: pytest.Config, levels: ContextLevels, only: Callable[[], CaseOutput | None]) -> None:
        super().__init__(level=0)
        self._only = only
        self._config = config
        self._levels = levels

    def handle(self, record: logging.LogRecord) -> bool:
        output = current_output.get() or self._only()
        if output is None or not self._levels.lets_through(record, output.levels or {}):
            return True
        if output.logs is None:
            output.logs = collection.log_handler(self._config)
        for handler in (output.logs, output.caplog):
            if handler is not None and record.levelno >= handler.level:
                handler.handle(record)
        return True


class Capture:
    """Routing of output for one run of the loop. Use :meth:`running` around the whole of it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._manager = collection.capture_manager(config)
        self._streams = (_RoutedStream("stdout"), _RoutedStream("stderr"))
        self._unowned: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._open: set[CaseOutput] = set()
        self._captures = self._manager is not None and self._manager.is_globally_capturing()
        self.warnings = ContextWarnings(self._record_warning)
        self.levels = ContextLevels(_present_levels)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Route output, logging and warnings until the block ends."""
        with self._routed_logs(), self._routed_warnings():
            self._resume()
            try:
                yield
            finally:
                self._suspend()
                self._show_unowned()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Let the block write to the terminal. What threads of tests write meanwhile is still their tests'."""
        token = current_output.set(None)
        self._suspend()
        self._install()
        try:
            yield
        finally:
            self._uninstall()
            self._resume()
            current_output.reset(token)

    @contextmanager
    def handed_over(self) -> Iterator[None]:
        """Let pytest's protocol capture for itself, from an empty capture."""
        with self.suspended(), self.warnings.suspended():
            self._keep_unowned()
            yield

    @contextmanager
    def phase(self) -> Iterator[None]:
        """Let what a test's ``capsys`` or ``capfd`` has not read by the end of a phase become output of that phase."""
        if self._manager is not None:
            self._manager.activate_fixture()
        try:
            yield
        finally:
            if self._manager is not None:
                self._manager.deactivate_fixture()

    def open(self, item: pytest.Item, *, alone: bool) -> CaseOutput:
        """Start the output of one test."""
        output = CaseOutput(item)
        output.levels = None if alone else {}
        self._open.add(output)
        if "caplog" in collection.fixture_names(item):
            output.caplog = collection.log_handler(self._config)
            collection.share_caplog(item, output.caplog)
        return output

    def close(self, output: CaseOutput) -> None:
        """End the output of one test."""
        output.close()
        self._open.discard(output)
        if output.levels:
            self.levels.release(output.levels)

    def _only_output(self) -> CaseOutput | None:
        """That of the only test that runs, to whom all that a shared fixture's tasks log can be told."""
        return next(iter(self._open)) if len(self._open) == 1 else None

    def _resume(self) -> None:
        if self._captures:
            self._manager.resume_global_capture()
            self._install()

    def _suspend(self) -> None:
        if self._captures:
            self._uninstall()
            self._manager.suspend_global_capture(in_=False)

    def _install(self) -> None:
        if self._captures:
            for stream in self._streams:
                stream.install()

    def _uninstall(self) -> None:
        if self._captures:
            for stream in self._streams:
                stream.uninstall()

    def _keep_unowned(self) -> None:
        if self._captures:
            for kept, text in zip(self._unowned.values(), self._manager.read_global_capture(), strict=True):
                kept.append(text)

    def _show_unowned(self) -> None:
        self._keep_unowned()
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        for title, texts in self._unowned.items():
            text = "".join(texts)
            if text.strip() and reporter is not None:
                reporter.ensure_newline()
                reporter.write_sep("-", f"captured {title} that belongs to no test")
                reporter.write_line(text.rstrip())

    @contextmanager
    def _routed_logs(self) -> Iterator[None]:
        root = logging.getLogger()
        handler = _RoutedLogs(self._config, self.levels, self._only_output)
        level, wanted = root.level, collection.log_level(self._config)
        root.addHandler(handler)
        if wanted is not None:
            root.setLevel(min(level, wanted))
        try:
            with self.levels.installed():
                yield
        finally:
            root.removeHandler(handler)
            root.setLevel(level)

    @contextmanager
    def _routed_warnings(self) -> Iterator[None]:
        with collection.caught_warnings(self._config, None), self.warnings.installed():
            yield

    def _record_warning(self, message: warnings.WarningMessage) -> None:
        output = current_output.get()
        if output is None:
            collection.record_warning(self._config, message, "")
        else:
            output.warnings.append(message)
