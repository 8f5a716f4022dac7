"""Time that a test can't change.

freezegun and time-machine replace ``time.monotonic`` for everybody in the process, and with it the loop's clock. What
the engine measures, and how long a test may take, goes by the system's clock, read past them.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["monotonic", "wall"]

_ID: Final = getattr(time, "CLOCK_MONOTONIC", None)

#: Seconds on ``CLOCK_MONOTONIC``. A partial object, since freezegun replaces functions that are attributes of modules.
monotonic: Final[Callable[[], float]] = partial(time.monotonic) if _ID is None else partial(time.clock_gettime, _ID)


_WALL_MINUS_MONOTONIC: Final = time.time() - monotonic()


def wall(at: float | None = None) -> float:
    """Seconds since the Unix epoch, now or ``at``, as if nobody had set the clock since this module was loaded."""
    return _WALL_MINUS_MONOTONIC + (monotonic() if at is None else at)
