"""What the setting ``warm-imports`` names in vain, told once at a run's end."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from typing import TYPE_CHECKING

from asynctest_kit.cli.warm.recipe import failed_imports

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from asynctest_kit.settings import Settings

__all__ = ["ToldImports"]


@dataclass(frozen=True, eq=False, slots=True)
class ToldImports:
    """A plugin of pytest that tells of the names which are no module's, or whose import failed before the run."""

    settings: Settings

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """While the session's paths are still searched."""
        for line in self._lines():
            terminalreporter.write_line(f"asynctest_kit: warm-imports ({self._source}): {line}", yellow=True)

    @property
    def _source(self) -> str:
        return self.settings.sources.get("warm-imports", "default")

    def _lines(self) -> Iterator[str]:
        failed = failed_imports()
        for name in self.settings.warm_imports:
            if name in failed:
                yield f'"{name}" can\'t be imported before a run: {failed[name]}. Take it out.'
            elif name not in sys.modules and not _is_there(name):
                meant = get_close_matches(name, {known.partition(".")[0] for known in sys.modules}, n=1)
                yield f'no module is called "{name}".{f" Did you mean {meant[0]}?" if meant else ""}'


def _is_there(name: str) -> bool:
    """Whether it may be: to look into a package that isn't imported would run the user's code."""
    top, _, part = name.partition(".")
    known = name if not part or name.rpartition(".")[0] in sys.modules else top
    try:
        return find_spec(known) is not None
    except (ImportError, ValueError):
        return False
