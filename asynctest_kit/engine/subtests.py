"""The ``subtests`` fixture beside other tests: pytest's own, or the plugin's of that name on pytest 8.

Its contexts capture what the whole process writes and tell the reporters at once. Here they take the part of the
test's own output that was written inside, and their reports wait for the test's.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from asynctest_kit.engine.capture import current_output

if TYPE_CHECKING:
    import io
    from types import TracebackType

    import pytest

    from asynctest_kit.engine.graph import Source

__all__ = ["adapted", "gives_subtests"]

_MODULES = ("_pytest.subtests", "pytest_subtests.plugin")


def gives_subtests(source: Source) -> bool:
    """Whether a fixture is that of pytest or of the plugin."""
    return source.name == "subtests" and source.definition.func.__module__ in _MODULES


def adapted(subtests: Any, reports: list[pytest.TestReport]) -> Any:
    """Let ``subtests`` add to ``reports`` what it would log, with the output of its test's task."""
    private = "_" if hasattr(subtests, "_request") else ""
    test, hooks, request = subtests.test, f"{private}ihook", f"{private}request"
    setattr(subtests, hooks, _Relay(getattr(subtests, hooks), reports))
    setattr(subtests, request, _Quiet(getattr(subtests, request)))
    setattr(subtests, f"{private}suspend_capture_ctx", nullcontext)

    def one(msg: str | None = None, **kwargs: Any) -> _Subtest:
        return _Subtest(test(msg, **kwargs), reports)

    subtests.test = one
    return subtests


class _Subtest:
    """One subtest: the original context, and what is written inside."""

    def __init__(self, context: AbstractContextManager[None], reports: list[pytest.TestReport]) -> None:
        self._context = context
        self._reports = reports
        self._written: dict[str, tuple[io.StringIO, int]] = {}

    def __enter__(self) -> None:
        output = current_output.get()
        if output is not None:
            streams = {name: output.stream(name) for name in ("stdout", "stderr")}
            if output.logs is not None:
                streams["log"] = output.logs.stream
            self._written = {name: (stream, stream.tell()) for name, stream in streams.items()}
        return self._context.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        __tracebackhide__ = True
        sections = [(f"Captured {name} call", _taken(*written)) for name, written in self._written.items()]
        told = len(self._reports)
        swallowed = self._context.__exit__(kind, error, traceback)
        for report in self._reports[told:]:
            report.sections += [section for section in sections if section[1]]
        return swallowed


def _taken(stream: io.StringIO, start: int) -> str:
    text = stream.getvalue()[start:]
    stream.seek(start)
    stream.truncate()
    return text


class _Relay:
    """The hooks that a subtest calls, but for the one that logs its report."""

    def __init__(self, hooks: Any, reports: list[pytest.TestReport]) -> None:
        self._hooks = hooks
        self._reports = reports

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hooks, name)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep it until the test's own are logged."""
        self._reports.append(report)


class _Quiet:
    """A request, its configuration or its plugin manager, in which there is nothing to capture with."""

    def __init__(self, original: Any) -> None:
        self._original = original

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._original, name)
        return _Quiet(value) if name in {"config", "pluginmanager"} else value

    def getoption(self, name: str, *default: Any) -> Any:
        """Say that nothing is captured."""
        return None if name == "capture" else self._original.getoption(name, *default)

    def getplugin(self, name: str) -> Any:
        """Say that there is no logging plugin."""
        return None if name == "logging-plugin" else self._original.getplugin(name)
