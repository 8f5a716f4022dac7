"""A program inside the container says so by its exit code."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynctest_kit.provision.readiness import NotReadyError, RejectedError, wait_ready

if TYPE_CHECKING:
    from asynctest_kit.provision.readiness import Note
    from asynctest_kit.provision.readiness.candidate import Candidate

__all__ = ["ExitCode", "try_to_run"]

#: Seconds for one run of it.
_RUN = 30.0

#: Seconds between two runs at most: each is a process of the engine's, a runtime's and its own.
_LONGEST = 0.5

#: How Docker tells that a program was not run. If its message names the program, there is none that could be: trying
#: again changes nothing. Otherwise the container is about to end.
_NOT_RUN = (126, 127)
_RUNTIME_FAILED = "OCI runtime exec failed"


@dataclass(frozen=True, slots=True)
class ExitCode:
    """Exit code 0 of a program in a container; a :class:`~asynctest_kit.provision.readiness.Waiting`."""

    candidate: Candidate
    argv: tuple[str, ...]

    @property
    def expectation(self) -> str:
        """What is waited for."""
        return f"`{shlex.join(self.argv)}` in the container to end with exit code 0"

    async def wait(self, note: Note) -> None:
        """See :class:`~asynctest_kit.provision.readiness.Waiting`."""
        await wait_ready(lambda: try_to_run(self.candidate, self.argv), note, limit=_RUN, longest=_LONGEST)


async def try_to_run(candidate: Candidate, argv: tuple[str, ...]) -> None:
    """Run it once.

    Raises:
        NotReadyError: Its exit code is another one.
        RejectedError: It can't be run at all.
    """
    code, output = await candidate.run(argv)
    if code in _NOT_RUN and output.startswith(_RUNTIME_FAILED) and argv[0] in output:
        raise RejectedError(f"can't run `{shlex.join(argv)}`: {output.strip()}")
    if code:
        raise NotReadyError(f"exit code {code}" + (f" and {output.strip()!r}" if output.strip() else ""))
