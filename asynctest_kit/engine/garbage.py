"""How often garbage is looked for while pytest collects, while tests run, and at the end.

Every test leaves much that stays to the end: its item, its reports. Looking through all of that again and again for
cycles that nobody holds would take a third of the time of a large suite. What is young is looked through as often as
Python 3.13 does it, so that what one test leaves is found soon; what is old, rarely.

What was there before the first test is put out of the collector's sight, and back into it as soon as anybody asks the
collector anything: a test may look for what refers to an object, or for what is left of one. What the engine itself and
pytest have made is kept until the last look is over, so that this look is for what tests have left.
"""

from __future__ import annotations

import gc
import sys
from contextlib import contextmanager
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

__all__ = ["Garbage"]

#: What shows the collector's sight, or depends on it.
_QUESTIONS = ("collect", "get_objects", "get_referrers")

#: Modules that look for garbage at the end of a run: for what tests have left.
_LAST_LOOKS = frozenset({__name__, "_pytest.unraisableexception"})

#: How many objects are made from one look for what is young to the next, at least; before Python 3.13 700.
_YOUNG = 2000

#: How often what is of middle age is looked through before what is old is; Python's own number is 10.
_OLD = 100


class Garbage:
    """The pytest plugin. What it changes is as before when pytest has ended."""

    def __init__(self) -> None:
        self._kept: list[object] = []
        self._thresholds = gc.get_threshold()
        self._originals: dict[str, Callable[..., Any]] = {}
        for name in _QUESTIONS:  # now: a conftest file may keep one of them under a name of its own
            self._originals[name] = getattr(gc, name)
            setattr(gc, name, _Seeing(self._originals[name]))

    def keep(self, value: object) -> None:
        """Don't let ``value`` become garbage before the last look is over."""
        self._kept.append(value)

    @pytest.hookimpl
    def pytest_configure(self, config: pytest.Config) -> None:
        """Leave the collector as it was, after what pytest does at its end."""
        config.add_cleanup(gc.unfreeze)
        config.add_cleanup(self._answer_no_more)

    def _answer_no_more(self) -> None:
        while self._originals:
            setattr(gc, *self._originals.popitem())

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self, session: pytest.Session) -> Generator[None, object, object]:
        """Collect without looking for garbage."""
        self.keep(session)
        with self.unlooked():
            return (yield)

    @contextmanager
    def unlooked(self, *, is_ours: bool = False) -> Iterator[None]:
        """Look at what the block makes once, at its end, and not even then if it is all ours: almost all stays."""
        was_enabled = gc.isenabled()
        gc.disable()
        gc.freeze()
        try:
            yield
        finally:
            if not is_ours:
                self._originals.get("collect", gc.collect)(0)  # what was made in the block
            gc.freeze()
            if was_enabled:
                gc.enable()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Look less often for what is young, and rarely for what is old."""
        young, middle, old = before = gc.get_threshold()
        if young and before == self._thresholds:  # else the suite has its own
            gc.set_threshold(max(young, _YOUNG), middle, max(old, _OLD))
        try:
            return (yield)
        finally:
            gc.set_threshold(*before)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_unconfigure(self) -> Generator[None, object, object]:
        """Look once for what finalizers raise, and not again."""
        before = _full_passes()
        try:
            return (yield)
        finally:
            if _full_passes() == before:  # pytest 8 comes to that later, and does it five times
                gc.collect()
            gc.freeze()


class _Seeing:
    """A question to the collector that it answers with everything in sight. No function: it is no method of a class."""

    def __init__(self, question: Callable[..., Any]) -> None:
        update_wrapper(self, question)
        self._question = question

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if sys._getframe(1).f_globals.get("__name__") not in _LAST_LOOKS:  # noqa: SLF001  # the fast way
            gc.unfreeze()
        return self._question(*arguments, **options)


def _full_passes() -> int:
    count: int = gc.get_stats()[-1]["collections"]
    return count
