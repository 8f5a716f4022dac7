"""What is installed, read once: pytest looks through all distributions four times before it collects.

It looks for its plugins, for those that ``-p`` names, and for the files of plugins, whose assertions it rewrites. Each
time it reads each distribution's files anew: 20 ms where a hundred are installed.
"""

from __future__ import annotations

import importlib.metadata
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["ReadOnce", "read_ahead"]

_GROUP = "pytest11"

#: What a distribution's entry points and files are read from, in its folder; that itself first.
_READ_FROM = ("", "entry_points.txt", "RECORD", "installed-files.txt", "SOURCES.txt")

_Stamp = tuple[int, ...]


class _Read(importlib.metadata.PathDistribution):
    """A distribution that reads its files when it is first asked."""

    @cached_property
    def entry_points(self) -> Any:
        return super().entry_points

    @cached_property
    def files(self) -> Any:
        return super().files


#: By the folder of its metadata, with when its files were last written.
_known: dict[str, tuple[_Stamp, _Read]] = {}


def read_ahead() -> None:
    """Read in this process what pytest will ask for."""
    for one in _distributions(importlib.metadata.distributions()):
        if any(point.group == _GROUP for point in one.entry_points):
            for file in one.files or ():
                str(file)  # which a path keeps


class ReadOnce:
    """The pytest plugin; from when it is made until pytest is configured, what is installed is read once."""

    def __init__(self) -> None:
        for path in [path for path, (stamp, _) in _known.items() if stamp != _stamp(path)]:
            del _known[path]  # it was read ahead, and written since
        self._original: Callable[..., Iterable[importlib.metadata.Distribution]] = importlib.metadata.distributions
        importlib.metadata.distributions = self._distributions

    def _distributions(self, **options: Any) -> Iterator[importlib.metadata.Distribution]:
        return _distributions(self._original(**options))

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self) -> None:
        """Have others read what there is."""
        self.end()

    def end(self) -> None:
        """Have others read what there is. No-op if they do."""
        if importlib.metadata.distributions == self._distributions:
            importlib.metadata.distributions = self._original
        _known.clear()


def _distributions(found: Iterable[importlib.metadata.Distribution]) -> Iterator[importlib.metadata.Distribution]:
    for one in found:
        yield _read(one)


def _read(one: importlib.metadata.Distribution) -> importlib.metadata.Distribution:
    path = getattr(one, "_path", None)
    if type(one) is not importlib.metadata.PathDistribution or not isinstance(path, Path):  # in an archive
        return one
    name = str(path)
    if name not in _known:
        _known[name] = _stamp(name), _Read(path)
    return _known[name][1]


def _stamp(folder: str) -> _Stamp:
    return tuple(_written(f"{folder}/{name}") for name in _READ_FROM)


def _written(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116  # hundreds of times
    except OSError:
        return 0
