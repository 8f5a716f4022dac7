"""Which tests were found not to run beside others, or not beside each other, kept in pytest's cache.

They touched process-global state, or failed beside others only, and were run again alone. The next run puts such a
test into the exclusive lane from the start, as long as its file is what it was: after a change it gets another chance.
A lost or wrong record costs one more attempt, no more.

Pairs that waited for each other's locks are kept apart, as long as both files are what they were, and for
:data:`_RUNS` runs; then they are let together once more, to see.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pytest

__all__ = ["Memory"]

_KEY = "asynctest_kit/exclusive"
_PAIRS_KEY = "asynctest_kit/apart"

#: So many runs keep a pair apart, and so many pairs are remembered: the latest.
_RUNS = 20
_MOST_PAIRS = 2000


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

    def keep(self) -> None:
        """Write what was learnt, if anything was."""
        if self._cache is None:
            return
        if self._changed:
            self._cache.set(_KEY, dict(sorted(self._known.items())))
        if self._pairs_changed:
            latest = list(self._pairs.items())[-_MOST_PAIRS:]
            self._cache.set(_PAIRS_KEY, [[*pair, *values] for pair, values in latest])

    def _mark(self, file: Path) -> int:
        if file not in self._marks:
            try:
                self._marks[file] = zlib.crc32(file.read_bytes())
            except OSError:
                self._marks[file] = 0
        return self._marks[file]


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
