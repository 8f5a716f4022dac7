"""Which tests were found not to run beside others, kept in pytest's cache.

They touched process-global state, or failed beside others only, and were run again alone. The next run puts such a
test into the exclusive lane from the start, as long as its file is what it was: after a change it gets another chance.
A lost or wrong record costs one more attempt, no more.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

__all__ = ["Memory"]

_KEY = "asynctest_kit/exclusive"


class Memory:
    """The record of one project.

    Args:
        config: pytest's; without its cache plugin nothing is remembered.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._cache = getattr(config, "cache", None)
        self._marks: dict[Path, int] = {}
        self._changed = False
        known = self._cache.get(_KEY, {}) if self._cache is not None else {}
        self._known: dict[str, list[object]] = known if isinstance(known, dict) else {}

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

    def keep(self) -> None:
        """Write what was learnt, if anything was."""
        if self._changed and self._cache is not None:
            self._cache.set(_KEY, dict(sorted(self._known.items())))

    def _mark(self, file: Path) -> int:
        if file not in self._marks:
            try:
                self._marks[file] = zlib.crc32(file.read_bytes())
            except OSError:
                self._marks[file] = 0
        return self._marks[file]
