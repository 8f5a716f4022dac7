"""``caplog.set_level`` for one test beside others.

The level of a logger belongs to the process: a test that lowers it would fill its neighbours' ``caplog`` with records
that they never asked for, and one that raises it would empty theirs. So a test's levels are kept with the test. The
logger itself is only ever lowered, as far as somebody needs, and what reaches a test's handlers is what the levels of
this test let through.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asynctest_kit.engine import collection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ContextLevels", "TestLevels"]

#: A logger's name (None: the root) and the level that a test has set for it.
TestLevels = dict[str | None, int]


class ContextLevels:
    """The levels of the loggers that tests have changed.

    Args:
        present: Gives the levels of the test that runs in the present context; None for one that runs alone, whose
            changes are real.
    """

    def __init__(self, present: Callable[[], TestLevels | None]) -> None:
        self._present = present
        self._originals: dict[str | None, int] = {}
        self._wanted: dict[str | None, list[int]] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let ``caplog`` of a test beside others change its own levels only, while the block runs."""
        fixture: Any = collection.caplog_class()
        set_level, at_level = fixture.set_level, fixture.at_level
        ours = self

        def set_own_level(caplog: Any, level: int | str, logger: str | None = None) -> None:
            levels = ours._present()
            if levels is None or logging.root.manager.disable:
                set_level(caplog, level, logger)
            else:
                ours._set(levels, logger, level)
                caplog.handler.setLevel(level)

        @contextmanager
        def at_own_level(caplog: Any, level: int | str, logger: str | None = None) -> Iterator[None]:
            levels = ours._present()
            if levels is None or logging.root.manager.disable:
                with at_level(caplog, level, logger):
                    yield
                return
            before, handler_level = levels.get(logger), caplog.handler.level
            ours._set(levels, logger, level)
            caplog.handler.setLevel(level)
            try:
                yield
            finally:
                ours._unset(levels, logger)
                if before is not None:
                    ours._set(levels, logger, before)
                caplog.handler.setLevel(handler_level)

        fixture.set_level, fixture.at_level = set_own_level, at_own_level
        try:
            yield
        finally:
            fixture.set_level, fixture.at_level = set_level, at_level

    def lets_through(self, record: logging.LogRecord, levels: TestLevels) -> bool:
        """Tell whether ``record`` would have been made, had only the test with ``levels`` changed any."""
        if not self._originals:
            return True
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            name = None if logger is logging.root else logger.name
            level = levels.get(name, self._originals.get(name, logger.level))
            if level:
                return record.levelno >= level
            logger = logger.parent
        return True

    def release(self, levels: TestLevels) -> None:
        """Forget the levels of a test that is over."""
        for name in list(levels):
            self._unset(levels, name)

    def _set(self, levels: TestLevels, name: str | None, level: int | str) -> None:
        self._unset(levels, name)
        levels[name] = logging._checkLevel(level)  # type: ignore[attr-defined]  # noqa: SLF001  # what setLevel calls
        self._wanted.setdefault(name, []).append(levels[name])
        self._apply(name)

    def _unset(self, levels: TestLevels, name: str | None) -> None:
        if name in levels:
            self._wanted[name].remove(levels.pop(name))
            self._apply(name)

    def _apply(self, name: str | None) -> None:
        """Set a logger to the lowest level that anybody needs."""
        logger = logging.getLogger(name)
        original = self._originals.setdefault(name, logger.level)
        wanted = self._wanted.get(name)
        if not wanted:
            del self._originals[name]
            logger.setLevel(original)
            return
        effective = original or (logger.parent.getEffectiveLevel() if logger.parent is not None else 0)
        logger.setLevel(min(effective, *wanted) or 1)
