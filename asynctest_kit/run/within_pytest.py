"""``pytest --atk``: the engine in a pytest that somebody else started, an editor for example.

Settings come from pyproject.toml and the environment; pytest's own options are pytest's. Services start with the
collection's end, not before pytest is imported, so ``atk run`` is a little faster.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from asynctest_kit.errors import AtkError
from asynctest_kit.run.clock import process_start
from asynctest_kit.run.record import Record
from asynctest_kit.run.reports import report

if TYPE_CHECKING:
    from asynctest_kit.engine.events import Event
    from asynctest_kit.settings import Settings

__all__ = ["RunWithinPytest"]


class RunWithinPytest:
    """One run of pytest with the engine in it.

    Raises:
        UsageError: A setting is wrong.
    """

    def __init__(self, config: pytest.Config) -> None:
        from asynctest_kit.run.engine import engine_for

        self._config = config
        self._events: list[Event] = []
        self._settings = _settings(config)
        self._engine = engine_for(self._settings, self._events.append)

    def register(self) -> None:
        """Put the engine in the place of pytest's own loop. Call it before pytest is configured."""
        from asynctest_kit.engine.events import RunStarted
        from asynctest_kit.run.wiring import Wiring

        started, arguments = process_start(), tuple(self._config.invocation_params.args)
        wall_clock = time.time() - (time.monotonic() - started)
        self._events.append(RunStarted(at=started, wall_clock=wall_clock, arguments=tuple(map(str, arguments))))
        record = Record(self._settings.root, tuple(map(str, arguments)))
        plugins = self._config.pluginmanager
        plugins.register(self._engine, "asynctest_kit-engine")
        plugins.register(Wiring(self._settings, None, self._events.append, record), "asynctest_kit-wiring")

    def report(self, code: int) -> int:
        """Say where the time went; give the run's exit code."""
        return report(self._events, self._settings, self._engine, code)


def _settings(config: pytest.Config) -> Settings:
    from asynctest_kit.settings import load

    directory = config.invocation_params.dir
    paths = [path for path in config.args if (directory / path.split("::", 1)[0]).exists()]
    try:
        return load(paths=paths, directory=directory, environ=os.environ, options={}, is_complete=False)
    except AtkError as error:
        raise pytest.UsageError(str(error)) from None
