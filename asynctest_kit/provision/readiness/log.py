"""A line of the log says so; the log is followed, nothing is polled."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asynctest_kit.provision.readiness import Note
    from asynctest_kit.provision.readiness.candidate import Candidate, Stream

__all__ = ["LogLine"]


@dataclass(frozen=True, slots=True)
class LogLine:
    """Lines of a container's log; a :class:`~asynctest_kit.provision.readiness.Waiting`.

    Attributes:
        candidate: Whose.
        pattern: A regular expression that is found in each.
        times: How many it takes.
        stream: In which stream; None for either.
    """

    candidate: Candidate
    pattern: str
    times: int
    stream: Stream | None

    @property
    def expectation(self) -> str:
        """What is waited for."""
        lines = "a line" if self.times == 1 else f"{self.times} lines"
        return f"{lines} matching {self.pattern!r} in its {self.stream or 'log'}"

    async def wait(self, note: Note) -> None:
        """See :class:`~asynctest_kit.provision.readiness.Waiting`."""
        wanted, found = re.compile(self.pattern), 0
        note("no line at all")
        async with aclosing(self.candidate.log()) as lines:
            async for stream, line in lines:
                if self.stream not in (None, stream):
                    continue
                found += wanted.search(line) is not None
                if found == self.times:
                    return
                note(f"{found} of them, and the line {line!r}" if self.times > 1 else f"the line {line!r}")
        await asyncio.Event().wait()  # it has ended: how is for its witness to tell
