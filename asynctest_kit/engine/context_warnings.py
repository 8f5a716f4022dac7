"""Warnings filters that belong to a context instead of the process.

``warnings`` keeps its filters, and who is told of a warning, in module globals: a ``pytest.warns`` in one test would
take the warnings of its neighbours, and a ``simplefilter("error")`` would fail them. While the loop runs, every warning
reaches one function of ours, which applies the filters of the context that gave it; ``catch_warnings`` and what changes
filters act on these. Python 3.14's ``context_aware_warnings`` has the same meaning.

Code without filters of its own, such as a session fixture, has those that pytest's configuration says.
"""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ContextWarnings", "filters_in_force"]

_Filter = tuple[Any, ...]
_warnings: Any = warnings
_catch: Any = warnings.catch_warnings


class _Scope:
    """The filters in force in one context, who is told, and what was told already."""

    __slots__ = ("filters", "record", "told")

    def __init__(self, filters: list[_Filter], record: Callable[[warnings.WarningMessage], object] | None) -> None:
        self.filters = filters
        self.record = record
        self.told: set[tuple[object, ...]] = set()

    def inner(self, record: Callable[[warnings.WarningMessage], object] | None) -> _Scope:
        """A copy, to be changed without changing this one."""
        return _Scope(self.filters[:], record)


#: The filters in force in the present context, if it has its own.
filters_in_force: ContextVar[_Scope | None] = ContextVar("asynctest_kit_warnings", default=None)


class ContextWarnings:
    """The filters of one run.

    Args:
        tell: Is given every warning that the filters let through and no ``catch_warnings(record=True)`` takes.
    """

    def __init__(self, tell: Callable[[warnings.WarningMessage], None]) -> None:
        self._tell = tell
        self._base = _Scope([], None)
        self._modules: dict[str, str] = {}
        self._originals: dict[tuple[Any, str], Any] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Keep filters by context while the block runs; what is in force now holds where a context has none."""
        self._base = _Scope(list(_warnings.filters), None)
        self._install()
        try:
            yield
        finally:
            self._uninstall()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Let the module's own globals count while the block runs, for what runs alone."""
        self._uninstall()
        try:
            yield
        finally:
            self._install()

    def open_scope(self) -> None:
        """Give the present context filters of its own, for as long as it lives."""
        filters_in_force.set(self._base.inner(None))

    def _install(self) -> None:
        ours = {
            (_warnings, "filters"): [("always", None, Warning, None, 0)],
            (_warnings, "_showwarnmsg"): self._show,
            (_warnings, "_add_filter"): self._add_filter,
            (_warnings, "resetwarnings"): self._reset,
            (_catch, "__enter__"): self._entering(_catch.__enter__),
            (_catch, "__exit__"): self._leaving(_catch.__exit__),
        }
        self._originals = {(owner, name): getattr(owner, name) for owner, name in ours}
        for (owner, name), value in ours.items():
            setattr(owner, name, value)
        _warnings._filters_mutated()

    def _uninstall(self) -> None:
        for (owner, name), value in self._originals.items():
            setattr(owner, name, value)
        _warnings._filters_mutated()

    @property
    def _now(self) -> _Scope:
        return filters_in_force.get() or self._base

    def _own(self) -> _Scope:
        scope = filters_in_force.get()
        if scope is None:
            scope = self._base.inner(None)
            filters_in_force.set(scope)
        return scope

    def _entering(self, original: Any) -> Any:
        def enter(catching: Any) -> Any:
            if catching._module is not warnings:
                return original(catching)
            if catching._entered:
                raise RuntimeError(f"Cannot enter {catching!r} twice")
            catching._entered = True
            catching._filters = filters_in_force.get()
            log: list[warnings.WarningMessage] | None = [] if catching._record else None
            filters_in_force.set(self._now.inner(self._now.record if log is None else log.append))
            if catching._filter is not None:
                warnings.simplefilter(*catching._filter)
            return log

        return enter

    def _leaving(self, original: Any) -> Any:
        def leave(catching: Any, *error: object) -> None:
            outer = getattr(catching, "_filters", None)
            if catching._module is not warnings or isinstance(outer, list):
                original(catching, *error)
                return
            if not catching._entered:
                raise RuntimeError(f"Cannot exit {catching!r} without entering first")
            filters_in_force.set(outer)

        return leave

    def _add_filter(self, *item: Any, append: bool) -> None:
        filters = self._own().filters
        if append:
            if item not in filters:
                filters.append(item)
            return
        if item in filters:
            filters.remove(item)
        filters.insert(0, item)

    def _reset(self) -> None:
        self._own().filters.clear()

    def _show(self, message: warnings.WarningMessage) -> None:
        """Apply the context's filters to a warning that the module has let through.

        Raises:
            Warning: A filter says ``error``.
        """
        __tracebackhide__ = True
        scope = self._now
        action = self._action(scope, message)
        if action == "error":
            raise message.message if isinstance(message.message, Warning) else message.category(message.message)
        if action == "ignore" or (action != "always" and self._was_told(scope, action, message)):
            return
        (scope.record or self._tell)(message)

    def _action(self, scope: _Scope, message: warnings.WarningMessage) -> str:
        text = str(message.message)
        for action, pattern, category, module, line in scope.filters:
            if (
                (pattern is None or pattern.match(text))
                and issubclass(message.category, category)
                and (line in {0, message.lineno})
                and (module is None or module.match(self._module(message.filename)))
            ):
                return str(action)
        return str(_warnings.defaultaction)

    @staticmethod
    def _was_told(scope: _Scope, action: str, message: warnings.WarningMessage) -> bool:
        key: tuple[object, ...] = (action, str(message.message), message.category)
        if action != "once":
            key = (*key, message.filename)
        if action == "default":
            key = (*key, message.lineno)
        told = key in scope.told
        scope.told.add(key)
        return told

    def _module(self, file: str) -> str:
        """The name of the module whose file is ``file``, as its globals have it."""
        if file not in self._modules:
            self._modules |= {
                known: name
                for name, module in list(sys.modules.items())
                if isinstance(known := getattr(module, "__file__", None), str)
            }
            self._modules.setdefault(file, file.removesuffix(".py"))
        return self._modules[file]
