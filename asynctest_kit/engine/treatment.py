"""How one test is to be treated: the ``atk`` mark, and what the settings say of tests by their node id.

A class's mark and a module's hold for their tests; of several that say the same thing, the closest to the test wins.
What the settings say overrules the marks, so that a suite can be tamed without being edited.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import pytest

from asynctest_kit.engine.collection import mark_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ISOLATION", "MARK", "Options", "Rule", "Treatment", "check_marks", "treatment_of"]

MARK: Final = (
    "atk(*, exclusive, group, timeout, retries, isolation): how `atk run` treats a test: alone or not; one of a named "
    "group that shares a limit; seconds that it may take; how often it is tried again; how its database is isolated"
)

#: How a test's PostgreSQL is kept apart from the others', and on the last rung its Redis.
ISOLATION: Final = ("transaction", "database", "server")


@dataclass(frozen=True, slots=True)
class Treatment:
    """What a test asks for; None for what it doesn't say.

    Attributes:
        exclusive: Whether it runs alone, whatever its code says.
        group: The group whose limit it counts for.
        timeout: Seconds that its set-up, its call and its tear-down may each take; 0 for no limit.
        retries: How often it is run again if it fails.
        isolation: One of :data:`ISOLATION`.
    """

    exclusive: bool | None = None
    group: str | None = None
    timeout: float | None = None
    retries: int | None = None
    isolation: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """How tests are treated whose node id matches the glob ``tests``."""

    tests: str
    treatment: Treatment


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked of a whole run.

    Attributes:
        concurrency: How many tests run at once at most.
        timeout: Seconds that a test may take; 0 for no limit.
        retries: How often a test that failed is run again, alone.
        fail_slow: Seconds from which on a test that passed fails; 0 for no limit.
        block_threshold: Seconds for which a test may block the loop unreported; 0 reports none.
        interference_fails: Whether a test that fails beside others and passes alone fails the run.
        repeat: How often each test runs.
        shuffle: The seed of a random order, or None for pytest's own.
        one_by_one: Whether nothing runs beside anything.
        keeps_session: Whether the session's fixtures are kept up to the end.
        explain_plan: Whether the plan is shown instead of carried out.
        isolation: How the database is isolated of a test that doesn't say it.
        groups: Limits of the groups; a group that isn't here has 1.
        rules: The first that matches a test and sets a thing wins.
    """

    concurrency: int = 64
    timeout: float = 60.0
    retries: int = 0
    fail_slow: float = 0.0
    block_threshold: float = 0.5
    interference_fails: bool = True
    repeat: int = 1
    shuffle: int | None = None
    one_by_one: bool = False
    keeps_session: bool = False
    explain_plan: bool = False
    isolation: str = "transaction"
    groups: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    rules: tuple[Rule, ...] = ()

    @cached_property
    def treatment(self) -> Treatment:
        """How a test is treated of which nothing else is said."""
        return Treatment(timeout=self.timeout, retries=self.retries, isolation=self.isolation)


def treatment_of(item: pytest.Item, options: Options) -> Treatment:
    """Merge what the settings and the marks say of ``item``, and the run's own values where they say nothing.

    The mark ``timeout(seconds)``, which pytest-timeout has too, counts like ``atk(timeout=)``.
    """
    given: dict[str, object] = {}
    for rule in options.rules:
        if fnmatchcase(item.nodeid, rule.tests):
            _add(given, rule.treatment)
    marks = mark_names(item)
    if "atk" in marks:
        for mark in item.iter_markers("atk"):
            for name, value in mark.kwargs.items():
                if name in _CHECKS:
                    given.setdefault(name, value)
    if "timeout" in marks and (limit := _timeout_mark(item)) is not None:
        given.setdefault("timeout", limit)
    return replace(options.treatment, **given) if given else options.treatment  # type: ignore[arg-type]  # checked


def _add(given: dict[str, object], treatment: Treatment) -> None:
    for name in _CHECKS:
        if (value := getattr(treatment, name)) is not None:
            given.setdefault(name, value)


def _timeout_mark(item: pytest.Item) -> float | None:
    mark = item.get_closest_marker("timeout")
    if mark is None:
        return None
    value = mark.kwargs.get("timeout", mark.args[0] if mark.args else None)
    return None if value is None else float(value)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _is_number_of_times(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_rung(value: object) -> bool:
    return value in ISOLATION


_CHECKS: Final = {
    "exclusive": (_is_flag, "True or False"),
    "group": (_is_name, "a name"),
    "timeout": (_is_seconds, "a number of seconds from 0 (no limit)"),
    "retries": (_is_number_of_times, "a whole number from 0"),
    "isolation": (_is_rung, f"one of {', '.join(map(repr, ISOLATION))}"),
}
assert list(_CHECKS) == [one.name for one in fields(Treatment)]  # noqa: S101  # one check for each argument


def check_marks(items: Iterable[pytest.Item]) -> None:
    """Refuse an ``atk`` mark of ``items`` that says something unknown.

    Raises:
        UsageError: It has a positional or unknown argument, or a bad value; the message says which and what is allowed.
    """
    checked: set[pytest.Item | pytest.Collector] = set()
    for item in items:
        for mark in item.own_markers:
            if mark.name == "atk":
                _check(mark, item)
        if item.parent not in checked:
            for node in item.listchain()[:-1]:
                checked.add(node)  # type: ignore[arg-type]  # a node above an item is a collector
                for mark in node.own_markers:
                    if mark.name == "atk":
                        _check(mark, item)


def _check(mark: pytest.Mark, item: pytest.Item) -> None:
    if mark.args:
        _refuse(item, f"positional argument {mark.args[0]!r}: it takes keywords only.{_allowed('')}")
    for name, value in mark.kwargs.items():
        if name not in _CHECKS:
            _refuse(item, f"unknown argument {name!r}.{_allowed(name)}")
        is_right, what = _CHECKS[name]
        if not is_right(value):
            _refuse(item, f"{name}={value!r} is not {what}.")


def _refuse(item: pytest.Item, what: str) -> None:
    raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.atk: {what}")


def _allowed(name: str) -> str:
    close = get_close_matches(name, _CHECKS, n=1)
    return (f" Did you mean {close[0]}?" if close else "") + f" It takes {', '.join(_CHECKS)}."
