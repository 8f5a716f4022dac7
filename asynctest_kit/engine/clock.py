"""Time that a test can't change.

freezegun and time-machine replace ``time.monotonic`` for everybody in the process, and with it the loop's clock. What
the engine measures, and how long a test may take, goes by the system's clock, read past them.
"""

from __future__ import annotations

import time
from typing import Final

__all__ = ["monotonic", "wall"]

#: Kept in a tuple: freezegun replaces the functions that it finds as attributes of modules.
_FALLBACK: Final = (time.monotonic,)
_ID: Final = getattr(time, "CLOCK_MONOTONIC", None)


def monotonic() -> float:
    """Seconds on ``CLOCK_MONOTONIC``."""
    return _FALLBACK[0]() if _ID is None else time.clock_gettime(_ID)


_WALL_MINUS_MONOTONIC: Final = time.time() - monotonic()


def wall() -> float:
    """Seconds since the Unix epoch, as if nobody had set the clock since this module was loaded."""
    return _WALL_MINUS_MONOTONIC + monotonic()
