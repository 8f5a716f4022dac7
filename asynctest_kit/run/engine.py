"""The engine as the settings want it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctest_kit.engine.runtestloop import Engine
from asynctest_kit.fixtures.rungs import options_of

if TYPE_CHECKING:
    from asynctest_kit.engine.events import Sink
    from asynctest_kit.settings import Settings

__all__ = ["engine_for"]


def engine_for(settings: Settings, sink: Sink) -> Engine:
    """Make the pytest plugin that runs the tests."""
    return Engine(options_of(settings), sink)
