"""What the engine shares with plugins, by pytest's config: light to import, for plugins are loaded in every run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asynctest_kit.engine.leaked_tasks import TaskLedger
    from asynctest_kit.engine.waits import Waits

__all__ = ["AFTER_EACH", "TASKS", "WAITS", "waits_now"]

#: What is awaited after each test of a run in which everything runs one by one, with its node id.
AFTER_EACH: pytest.StashKey[list[Callable[[str], Awaitable[None]]]] = pytest.StashKey()

#: Knows which test made which task, and where.
TASKS: pytest.StashKey[TaskLedger] = pytest.StashKey()

#: The board of tests that wait for each other.
WAITS: pytest.StashKey[Waits] = pytest.StashKey()


def waits_now(config: pytest.Config) -> list[tuple[str, float]]:
    """The waits that there are just now, in words, and since when each; may be asked from any thread."""
    board = config.stash.get(WAITS, None)
    return [] if board is None else [(str(one.wait), one.start) for one in board.now]
