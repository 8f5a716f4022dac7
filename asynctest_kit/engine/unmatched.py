"""Rules of the settings that match no test: a misspelt pattern would change nothing, and say nothing.

A run of a part of the suite says nothing of the rest. So a rule is judged if the run was told nothing less than the
whole suite, or a folder that all of what the rule may match is in; and before tests are deselected.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asynctest_kit.engine.events import FindingMade

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asynctest_kit.engine.events import Sink
    from asynctest_kit.engine.treatment import Rule

__all__ = ["UnmatchedRules"]

#: Options under which some files are not collected.
_PARTIAL_OPTIONS = ("lf",)

_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class UnmatchedRules:
    """A pytest plugin that makes findings of them.

    Attributes:
        rules: All of them.
        sink: Where findings go.
    """

    rules: Sequence[Rule]
    sink: Sink

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Look at what was collected, before anybody deselects any of it."""
        if session.testsfailed or any(config.getoption(name, False) for name in _PARTIAL_OPTIONS):
            return
        places = list(_places(config))
        for pattern in dict.fromkeys(rule.tests for rule in self.rules):
            certain = _WILDCARD.split(pattern, maxsplit=1)[0]
            is_judged = any(place == "" or certain.startswith((f"{place}/", f"{place}::")) for place in places)
            if is_judged and not any(fnmatchcase(item.nodeid, pattern) for item in items):
                text = "matches no test, so it changes nothing: a pattern is for the whole node id, its * for anything"
                self.sink(FindingMade(nodeid=f'overrides, tests = "{pattern}"', text=text))


def _places(config: pytest.Config) -> Iterator[str]:
    """The folders and files that were collected, as in node ids; empty for the whole suite."""
    named = {Path(os.path.abspath(config.invocation_params.dir / argument)) for argument in config.args}  # noqa: PTH100
    usual = {Path(os.path.abspath(config.rootpath / path)) for path in config.getini("testpaths")}  # noqa: PTH100
    if config.rootpath in named or (usual and usual <= named):
        yield ""
    for path in named:
        if path.exists() and path.is_relative_to(config.rootpath):
            yield path.relative_to(config.rootpath).as_posix()
