"""Rules of the settings that match no test: a misspelt pattern would change nothing, and say nothing.

A run of a part of the suite says nothing of the rest. So a rule is judged if the run was told nothing less than the
whole suite, or a folder that all of what the rule may match is in; if nothing that it may match was ignored or skipped
before its tests were known; and before tests are deselected.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asynctest_kit.engine.events import FindingMade

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from asynctest_kit.engine.events import Sink
    from asynctest_kit.engine.treatment import Rule

__all__ = ["UnmatchedRules"]

#: Options under which some files are not collected.
_PARTIAL_OPTIONS = ("lf",)

_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True, eq=False)
class UnmatchedRules:
    """A pytest plugin that makes findings of them.

    Attributes:
        rules: All of them.
        sink: Where findings go.
    """

    rules: Sequence[Rule]
    sink: Sink
    _left_out: set[str] = field(default_factory=set)

    @pytest.hookimpl(wrapper=True)
    def pytest_ignore_collect(
        self, collection_path: Path, config: pytest.Config
    ) -> Generator[None, bool | None, bool | None]:
        """Note what is not looked into, as options, conftest files and plugins have it."""
        is_ignored = yield
        is_in_suite = collection_path.is_relative_to(config.rootpath)
        if is_ignored and is_in_suite and not _is_never_collected(collection_path, config):
            self._left_out.add(_relative(collection_path, config))
        return is_ignored

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note what is skipped as a whole."""
        if report.skipped:
            self._left_out.add(report.nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None]:
        """Look at what was collected, before anybody deselects any of it."""
        if not session.testsfailed and not any(config.getoption(name, False) for name in _PARTIAL_OPTIONS):
            for pattern in self._unmatched([item.nodeid for item in items], config):
                text = "matches no test, so it changes nothing: a pattern is for the whole node id, its * for anything"
                self.sink(FindingMade(nodeid=f'overrides, tests = "{pattern}"', text=text))
        return (yield)

    def _unmatched(self, nodeids: Iterable[str], config: pytest.Config) -> Iterator[str]:
        for pattern in dict.fromkeys(rule.tests for rule in self.rules):
            if any(fnmatchcase(nodeid, pattern) for nodeid in nodeids) or not _is_collected(pattern, config):
                continue
            if not any(_may_match(pattern, start) for start in self._left_out):
                yield pattern


def _is_collected(pattern: str, config: pytest.Config) -> bool:
    """Whether the run was told to collect all that ``pattern`` may match."""
    root, named = config.rootpath, {_absolute(config.invocation_params.dir / argument) for argument in config.args}
    certain = _WILDCARD.split(pattern, maxsplit=1)[0]
    places = [_relative(path, config) for path in named if path.is_relative_to(root) and path.exists()]
    if root in named or any(certain.startswith((f"{place}/", f"{place}::")) for place in places):
        return True
    usual = {_absolute(root / path) for path in config.getini("testpaths")}
    where = certain.partition("::")[0] if "::" in certain else certain.rpartition("/")[0]
    is_elsewhere = where != "" and (root / where).exists()
    return bool(usual) and usual <= named and not is_elsewhere


def _may_match(pattern: str, start: str) -> bool:
    """Whether ``pattern`` may match a node id that begins with ``start``: some beginning of it matches all of that.

    The name of a file in it is that of the test's file, though its ``*`` might match more.
    """
    file, its_file = pattern.partition("::")[0], start.partition("::")[0]
    if file.endswith(".py") and its_file.endswith(".py"):
        return fnmatchcase(its_file, file)
    return any(fnmatchcase(start, pattern[:length]) for length in range(len(pattern) + 1))


def _is_never_collected(path: Path, config: pytest.Config) -> bool:
    """Whether no run looks into the path, unless it is named: caches, hidden folders, virtual environments."""
    never = ("__pycache__", *config.getini("norecursedirs"))
    return path.is_dir() and (any(path.match(name) for name in never) or (path / "pyvenv.cfg").is_file())


def _relative(path: Path, config: pytest.Config) -> str:
    return path.relative_to(config.rootpath).as_posix()


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  # as pytest does: links stay
