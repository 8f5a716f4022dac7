"""pytest's capture, logging, warnings, and what nobody could catch."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from _pytest.config import parse_warning_filter
from _pytest.logging import LogCaptureFixture, LogCaptureHandler, caplog_handler_key, caplog_records_key
from _pytest.threadexception import collect_thread_exception, thread_exceptions
from _pytest.unraisableexception import collect_unraisable, unraisable_exceptions
from _pytest.warnings import catch_warnings_for_item

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Generator

    import pytest

__all__ = [
    "UncaughtQueue",
    "apply_mark_filters",
    "caplog_class",
    "capture_manager",
    "caught_warnings",
    "log_handler",
    "log_level",
    "note_caplog_phase",
    "record_warning",
    "share_caplog",
    "uncaught_queues",
]


def capture_manager(config: pytest.Config) -> Any:
    """Pytest's capture plugin, or None with ``-p no:capture``."""
    return config.pluginmanager.getplugin("capturemanager")


@dataclass(frozen=True, slots=True, eq=False)
class UncaughtQueue:
    """One of pytest's queues of exceptions that nobody could catch.

    Attributes:
        found: What is in it.
        warn: Warns of all of it, and empties it.
    """

    found: deque[Any]
    warn: Callable[[], None]


def uncaught_queues(config: pytest.Config) -> tuple[UncaughtQueue, ...]:
    """The queues of exceptions in finalizers and in threads, as far as their plugins are loaded."""
    known: tuple[tuple[Any, Callable[[pytest.Config], None]], ...] = (
        (unraisable_exceptions, collect_unraisable),
        (thread_exceptions, collect_thread_exception),
    )
    return tuple(
        UncaughtQueue(config.stash[key], partial(collect, config)) for key, collect in known if key in config.stash
    )


def log_handler(config: pytest.Config) -> LogCaptureHandler | None:
    """A new handler that keeps and formats records as pytest's logging plugin would; None when that is off."""
    plugin = config.pluginmanager.getplugin("logging-plugin")
    if plugin is None:
        return None
    handler = LogCaptureHandler()
    handler.setFormatter(plugin.formatter)
    handler.setLevel(plugin.log_level or 0)
    return handler


def log_level(config: pytest.Config) -> int | None:
    """The level that pytest's ``log_level`` sets for the root logger."""
    plugin = config.pluginmanager.getplugin("logging-plugin")
    return cast("int | None", getattr(plugin, "log_level", None))


def share_caplog(item: pytest.Item, handler: LogCaptureHandler) -> None:
    """Let the ``caplog`` fixture of ``item`` read from ``handler``."""
    item.stash[caplog_handler_key] = handler
    item.stash[caplog_records_key] = {}


def caplog_class() -> type[Any]:
    """The class of the ``caplog`` fixture's value."""
    return LogCaptureFixture


def note_caplog_phase(item: pytest.Item, when: str, handler: LogCaptureHandler) -> None:
    """Start a phase in ``caplog``: forget the last one's records, keep them under its name."""
    records = item.stash.get(caplog_records_key, None)
    if records is not None:
        handler.reset()
        records[when] = handler.records


@contextmanager
def caught_warnings(config: pytest.Config, item: pytest.Item | None) -> Generator[None]:
    """Apply the filters of the command line, the ini file and ``item``'s marks; record what is warned."""
    with catch_warnings_for_item(config=config, ihook=config.hook, when="runtest", item=item):
        yield


def apply_mark_filters(item: pytest.Item) -> None:
    """Add the warnings filters of ``item``'s marks to those in force."""
    for mark in item.iter_markers(name="filterwarnings"):
        for argument in mark.args:
            warnings.filterwarnings(*parse_warning_filter(argument, escape=False))


def record_warning(config: pytest.Config, message: warnings.WarningMessage, nodeid: str) -> None:
    """Tell pytest's summary of a warning that the test ``nodeid`` gave."""
    config.hook.pytest_warning_recorded.call_historic(
        kwargs={"warning_message": message, "nodeid": nodeid, "when": "runtest", "location": None}
    )
