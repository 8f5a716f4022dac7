"""A process with a time limit, which ends with everything that it started, and whose output is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Ended", "TimeLimitError", "run"]


class TimeLimitError(Exception):
    """A process took longer than it may; the message has the end of its output."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that ended: its exit code, its wall time in seconds, and all that it wrote."""

    code: int
    seconds: float
    out: str

    @property
    def last_words(self) -> str:
        """The end of what it wrote."""
        return "\n".join(self.out.splitlines()[-40:])


def run(
    command: Sequence[str | Path], *, out: Path, limit: float, cwd: Path, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run ``command`` in a process group of its own, its output in the file ``out``.

    Raises:
        TimeLimitError: It took longer than ``limit`` seconds. Its group was killed.
    """
    start = time.perf_counter()
    with out.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(limit)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            words = Ended(process.returncode, limit, out.read_text(errors="replace")).last_words
            raise TimeLimitError(f"{_shown(command)} did not end within {limit:.0f} s; it wrote:\n{words}") from None
    return Ended(process.returncode, time.perf_counter() - start, out.read_text(errors="replace"))


def _shown(command: Sequence[str | Path]) -> str:
    return " ".join(map(str, command))
