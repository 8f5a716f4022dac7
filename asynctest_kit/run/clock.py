"""When this process began."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["process_start"]


def process_start() -> float:
    """When this process began, in seconds on ``CLOCK_MONOTONIC``; now where the system doesn't say.

    Source: field 22 of ``/proc/self/stat``, see proc(5), in clock ticks since boot.
    """
    now = time.monotonic()
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot
    except (OSError, ValueError, IndexError, AttributeError):
        return now
    return now - max(age, 0.0)
