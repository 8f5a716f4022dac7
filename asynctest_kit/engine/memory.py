"""What earlier runs have found out about tests, kept in pytest's cache.

Which were found not to run beside others, or not beside each other, and which deadlines are met with ease.

They touched process-global state, or failed beside others only, and were run again alone. The next run puts such a
test into the exclusive lane from the start, as long as its file is what it was: after a change it gets another chance.
A lost or wrong record costs one more attempt, no more.

Pairs that waited for each other's locks are kept apart, as long as both files are what they were, and for
:data:`_RUNS` runs; then they are let together once more, to see. As long, and as long as its file is what it was, a
deadline of a test is not doubted that it has met alone in less than half the time.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pytest

    from asynctest_kit.engine.deadlines import Doubt

__all__ = ["Memory"]

_KEY = "asynctest_kit/exclusive"
_PAIRS_KEY = "asynctest_kit/apart"
_MET_KEY = "asynctest_kit/deadlines"

#: For so many runs a pair is kept apart, and a deadline not doubted.
_RUNS = 20

#: So many pairs, and tests whose deadlines are not doubted, are remembered: the latest.
_MOST_PAIRS = 2000
_MOST_MET = 5000


class Memory:
    """The record of one project.

    Args:
        config: pytest's; without its cache plugin nothing is remembered.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._cache = getattr(config, "cache", None)
        self._marks: dict[Path, int] = {}
        self._changed = self._pairs_changed = False
        known = self._cache.get(_KEY, {}) if self._cache is not None else {}
        self._known: dict[str, list[object]] = known if isinstance(known, dict) else {}
        pairs = self._cache.get(_PAIRS_KEY, []) if self._cache is not None else []
        met = self._cache.get(_MET_KEY, {}) if self._cache is not None else {}
        self._met: dict[str, list[object]] = met if isinstance(met, dict) else {}
        self._met_changed = False
        self._asked: set[str] = set()
        self._pairs = dict(map(_pair, filter(_is_pair, pairs if isinstance(pairs, list) else ())))

    def reason(self, item: pytest.Item) -> str:
        """Why ``item`` has to run alone, as it showed in an earlier run; empty if it may run beside others."""
        match self._known.get(item.nodeid):
            case [str(reason), int(mark)] if mark == self._mark(item.path):
                return f"in an earlier run it {reason}"
            case _:
                return ""

    def learn(self, item: pytest.Item, reason: str) -> None:
        """Note what ``item`` did, to be read after its name."""
        self._known[item.nodeid] = [reason, self._mark(item.path)]
        self._changed = True

    def apart(self, items: Iterable[pytest.Item]) -> dict[tuple[str, str], str]:
        """The pairs of ``items``, by their node ids, that are to be kept apart, and why; counts this run for each."""
        if not self._pairs:
            return {}
        marks = {item.nodeid: self._mark(item.path) for item in items}
        kept: dict[tuple[str, str], str] = {}
        for pair, (reason, mark, other_mark, runs) in list(self._pairs.items()):
            if pair[0] not in marks or pair[1] not in marks:
                continue
            if (mark, other_mark) != (marks[pair[0]], marks[pair[1]]) or runs >= _RUNS:
                del self._pairs[pair]
            else:
                kept[pair] = reason
                self._pairs[pair] = (reason, mark, other_mark, runs + 1)
            self._pairs_changed = True
        return kept

    def keep_apart(self, item: pytest.Item, other: pytest.Item, reason: str) -> None:
        """Note that two tests are better not run beside each other: what ``item`` did, to be read before the other."""
        if (other.nodeid, item.nodeid) in self._pairs:
            return
        self._pairs.pop((item.nodeid, other.nodeid), None)
        self._pairs[item.nodeid, other.nodeid] = (reason, self._mark(item.path), self._mark(other.path), 0)
        self._pairs_changed = True

    def is_met(self, item: pytest.Item, doubt: Doubt) -> bool:
        """Whether ``item`` has met a deadline alone with ease; counts this run for all that it has met."""
        was_asked = item.nodeid in self._asked
        match self._met.get(item.nodeid):
            case [int(mark), int(runs), list(deadlines)] if mark == self._mark(item.path) and runs < _RUNS + was_asked:
                if not was_asked:
                    self._asked.add(item.nodeid)
                    self._met[item.nodeid] = [mark, runs + 1, deadlines]
                    self._met_changed = True
                at = _place(item, doubt)
                return any(_is_deadline(one) and one[:2] == at and doubt.allows(one[2]) for one in deadlines)
            case _:
                return False

    def learn_met(self, item: pytest.Item, doubts: Iterable[Doubt]) -> None:
        """Note deadlines that ``item`` has met alone with ease."""
        new = [[*_place(item, doubt), doubt.seconds] for doubt in doubts if doubt.place is not None]
        if not new:
            return
        match self._met.pop(item.nodeid, None):
            case [int(mark), int(runs), list(known)] if mark == self._mark(item.path) and runs < _RUNS:
                self._met[item.nodeid] = [mark, runs, known + [one for one in new if one not in known]]
            case _:
                self._met[item.nodeid] = [self._mark(item.path), 0, new]
        self._met_changed = True

    def forget_met(self, item: pytest.Item) -> None:
        """Doubt all deadlines of ``item`` again."""
        if self._met.pop(item.nodeid, None) is not None:
            self._met_changed = True

    def keep(self) -> None:
        """Write what was learnt, if anything was."""
        if self._cache is None:
            return
        if self._changed:
            self._cache.set(_KEY, dict(sorted(self._known.items())))
        if self._pairs_changed:
            latest = list(self._pairs.items())[-_MOST_PAIRS:]
            self._cache.set(_PAIRS_KEY, [[*pair, *values] for pair, values in latest])

        if self._met_changed:
            self._cache.set(_MET_KEY, dict(list(self._met.items())[-_MOST_MET:]))

    def _mark(self, file: Path) -> int:
        if file not in self._marks:
            try:
                self._marks[file] = zlib.crc32(file.read_bytes())
            except OSError:
                self._marks[file] = 0
        return self._marks[file]


def _place(item: pytest.Item, doubt: Doubt) -> list[object]:
    """Where a deadline is: the file, as seen from the test's, and the line."""
    place = doubt.place
    return [] if place is None else [os.path.relpath(place.file, item.path.parent), place.line]


def _is_deadline(entry: object) -> TypeGuard[list[Any]]:
    match entry:
        case [str(), int(), int() | float()]:
            return True
        case _:
            return False


#: Why, the two files' marks, and for how many runs so far.
_Kept = tuple[str, int, int, int]


def _is_pair(entry: object) -> bool:
    match entry:
        case [str(), str(), str(), int(), int(), int()]:
            return True
        case _:
            return False


def _pair(entry: list[Any]) -> tuple[tuple[str, str], _Kept]:
    one, other, reason, mark, other_mark, runs = entry
    return (one, other), (reason, mark, other_mark, runs)
