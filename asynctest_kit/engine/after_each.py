"""What is awaited after each test of a run in which everything runs one by one, with its node id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["AFTER_EACH"]

#: Where pytest's config holds it.
AFTER_EACH: pytest.StashKey[list[Callable[[str], Awaitable[None]]]] = pytest.StashKey()
