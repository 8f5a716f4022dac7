"""When this process, and our program in it, began; in seconds on ``CLOCK_MONOTONIC``."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["count_for", "process_start", "program_start"]

#: Seconds of a process's life in which it didn't want to run, beyond which another program is thought to have had them.
_ANOTHERS = 1.0

_process = "self"


def count_for(process: int) -> None:
    """Have this process's program be one that ``process`` began."""
    global _process  # noqa: PLW0603  # of a process there is one
    _process = str(process)


def process_start() -> float:
    """When this process began; now where the system doesn't say.

    Source: field 22 of ``/proc/self/stat``, see proc(5), in clock ticks since boot.
    """
    now = time.monotonic()
    try:
        fields = Path(f"/proc/{_process}/stat").read_text().rpartition(")")[2].split()
        since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot
    except (OSError, ValueError, IndexError, AttributeError):
        return now
    return now - max(age, 0.0)


def program_start() -> float:
    """When this process began to run our program; for a program that has not waited for anything yet.

    A shell that runs ``sleep 9 && atk run`` may become ``atk`` at the end, so that the process is older than the
    program, and nothing tells by how much. But what a shell does before is to wait, and a program that starts wants to
    run all the time: its own time is what the process ran, or waited to run.

    Source: ``/proc/self/schedstat``, in nanoseconds, see Documentation/scheduler/sched-stats in the kernel.
    """
    now, start = time.monotonic(), process_start()
    try:
        ran, waited, _ = Path(f"/proc/{_process}/schedstat").read_text().split()
    except (OSError, ValueError):
        return start
    own = now - (int(ran) + int(waited)) / 1e9
    return own if own - start > _ANOTHERS else start
