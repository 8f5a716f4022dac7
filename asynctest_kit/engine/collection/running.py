"""What pytest does around a test: marks, what is kept for it, its protocol, the comparisons of rewritten asserts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
from _pytest import assertion, skipping
from _pytest.assertion import util as assertion_util
from _pytest.runner import runtestprotocol

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "Comparison",
    "clear_runtime_state",
    "comparison_of",
    "conftests_elsewhere",
    "evaluate_marks",
    "mark_names",
    "refresh_xfail",
    "reports_of",
    "routed_comparison",
    "start_afresh",
    "tear_down_pytests_own",
]


def conftests_elsewhere(config: pytest.Config, path: Path) -> set[object]:
    """The conftest files whose hooks don't count for ``path``."""
    manager = config.pluginmanager
    return set(manager._conftest_plugins.difference(manager._getconftestmodules(path)))


def mark_names(item: pytest.Item) -> set[str]:
    """The names of all marks of ``item`` and of what it is in."""
    names: set[str] = set()
    node: Any = item
    while node is not None:
        for mark in node.own_markers:
            names.add(mark.name)
        node = node.parent
    return names


def evaluate_marks(item: pytest.Item) -> None:
    """Apply skip, skipif and ``xfail(run=False)`` marks, and note xfail marks for the report.

    Raises:
        Skipped: A skip mark holds.
        XFailed: An xfail mark says not to run.
    """
    skipping.pytest_runtest_setup(item)


def refresh_xfail(item: pytest.Item) -> None:
    """Note xfail marks that were added while the test ran."""
    if _has_mark(item, "xfail") and item.stash.get(skipping.xfailed_key, None) is None:
        item.stash[skipping.xfailed_key] = skipping.evaluate_xfail_marks(item)


def _has_mark(item: pytest.Item, name: str) -> bool:
    node: Any = item
    while node is not None:
        for mark in node.own_markers:
            if mark.name == name:
                return True
        node = node.parent
    return False


def clear_runtime_state(item: pytest.Item) -> None:
    """Let go of what a finished item held, as pytest does, so that values of fixtures can be freed."""
    if isinstance(item, pytest.Function):
        item._request = False  # type: ignore[assignment]  # pytest's own way to say "not running"
        item.funcargs = None  # type: ignore[assignment]


def start_afresh(item: pytest.Item) -> None:
    """Let an item that has run run again as if it had not: on a new instance, with nothing captured."""
    item._report_sections.clear()
    for key in (item.nodeid, getattr(item, "id", item.nodeid)):  # from pytest 9.1 on the second
        _failed_subtests(item.config).pop(key, None)
    if skipping.xfailed_key in item.stash:
        del item.stash[skipping.xfailed_key]
    if isinstance(item, pytest.Function):
        item.funcargs = {}
        for name in ("_instance", "_obj"):
            if item.parent is not None and isinstance(item.parent, pytest.Class):
                item.__dict__.pop(name, None)


def _failed_subtests(config: pytest.Config) -> dict[Any, int]:
    """How many subtests of each test have failed; pytest knows that from 9.0 on, pytest-subtests never."""
    key = getattr(config.pluginmanager.getplugin("subtests"), "failed_subtests_key", None)
    return {} if key is None else cast("dict[Any, int]", config.stash.get(key, {}))


def reports_of(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    """Run a test by pytest's protocol; give its reports, of which nobody has been told."""
    return list(runtestprotocol(item, nextitem=nextitem, log=False))


def tear_down_pytests_own(session: pytest.Session) -> None:
    """End everything that pytest's own protocol has set up."""
    session._setupstate.teardown_exact(None)


Comparison = Callable[[str, object, object], str | None]


def comparison_of(item: pytest.Item) -> Comparison | None:
    """The comparison hook that pytest would install for ``item``, with its escaping and truncation."""
    protocol = assertion.pytest_runtest_protocol(item)
    next(protocol)
    try:
        return assertion_util._reprcompare
    finally:
        protocol.close()


@contextmanager
def routed_comparison(config: pytest.Config, comparison: Comparison) -> Iterator[None]:
    """Install ``comparison`` for rewritten asserts as long as the block runs."""
    saved = assertion_util._reprcompare
    saved_config = getattr(assertion_util, "_config", None)
    assertion_util._reprcompare = comparison
    assertion_util._config = config
    try:
        yield
    finally:
        assertion_util._reprcompare = saved
        assertion_util._config = saved_config
