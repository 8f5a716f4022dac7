"""How pytest imports plugins: through its own hook, which rewrites their asserts."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from _pytest.assertion import install_importhook
from _pytest.assertion.rewrite import AssertionRewritingHook
from _pytest.config import get_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest.config import Config

__all__ = ["importing_as_pytest"]


@contextmanager
def importing_as_pytest() -> Iterator[None]:
    """Import what is imported meanwhile as a session of pytest's would that loads all installed plugins.

    A session in this process then finds the modules, and does not warn that they were imported too early.
    """
    config = get_config()
    if not hasattr(config, "inicfg"):
        config.inicfg = {}  # type: ignore[misc, assignment]  # pytest 8 has none before it has read its settings
    hook = install_importhook(config)
    config._mark_plugins_for_rewrite(hook, bool(os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD")))
    try:
        yield
    finally:
        sys.meta_path.remove(hook)
        _excuse(frozenset(sys.modules))
        _hand_on(frozenset(hook._must_rewrite))


def _excuse(names: frozenset[str]) -> None:
    """Of what ``-p`` names, only the messages of its asserts are plainer than if it was imported later."""
    warn = AssertionRewritingHook._warn_already_imported

    def warn_of_others(self: AssertionRewritingHook, name: str) -> None:
        if name not in names:
            warn(self, name)

    AssertionRewritingHook._warn_already_imported = warn_of_others  # type: ignore[method-assign]


def _hand_on(names: frozenset[str]) -> None:
    """What these modules have asked pytest to rewrite when it is imported, a later session does."""
    begin = AssertionRewritingHook.__init__

    def begin_with_names(self: AssertionRewritingHook, config: Config) -> None:
        begin(self, config)
        self._must_rewrite |= names

    AssertionRewritingHook.__init__ = begin_with_names  # type: ignore[method-assign]
