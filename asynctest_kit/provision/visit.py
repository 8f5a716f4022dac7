"""How whoever uses no service looks at a project's supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.link import join
from asynctest_kit.provision.messages import Bye, End, Farewell, Hello, Over, Read, Survey, Surveyed, Wrote
from asynctest_kit.provision.service import Output
from asynctest_kit.provision.surroundings import come_from_here

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asynctest_kit.provision.link import Link
    from asynctest_kit.provision.messages import Request, Run

__all__ = ["Visit", "unreached"]

_ENDED = "The project's supervisor has ended meanwhile."

_Answer = TypeVar("_Answer", Surveyed, Farewell)


class Visit:
    """A look at a supervisor that is there already: one question at a time, each answer waited for; close it after.

    It uses no service, but counts as a client as long as it is open.
    """

    def __init__(self, link: Link) -> None:
        """Use :meth:`at`."""
        self._link = link
        self._replies = link.replies()

    @classmethod
    def at(cls, root: Path) -> Visit | None:
        """Go to the supervisor of the project at ``root``; None if there is none, or it is just ending."""
        link = join(root, come_from_here())
        if link is None:
            return None
        visit = cls(link)
        if isinstance(next(visit._replies, None), Hello):
            return visit
        link.close()
        return None

    @property
    def supervisor(self) -> int:
        """Its process id."""
        return self._link.peer

    def survey(self) -> Surveyed:
        """What it holds.

        Raises:
            ProvisionError: It has ended meanwhile.
        """
        return self._ask(Survey(), Surveyed)

    def reach(self, request: Read | Run, take: Callable[[Output], None]) -> int:
        """Read the log of a service, or run a program in it; returns the program's exit code.

        Raises:
            ProvisionError: It can't be done; the message says why.
        """
        self._link.send(request)
        for reply in self._replies:
            match reply:
                case Wrote():
                    take(Output(reply.stream, reply.data))
                case Over(problem=""):
                    return reply.code
                case Over(problem=problem):
                    raise ProvisionError(unreached(request, problem))
        if isinstance(request, Read) and request.follow:
            return 0  # the log has ended with all the rest
        raise ProvisionError(_ENDED)

    def end(self) -> None:
        """Have everything removed, whoever else uses it; returns when it is.

        Raises:
            ProvisionError: The supervisor ended without saying so.
        """
        self._ask(End(), Farewell)

    def close(self) -> None:
        """Leave."""
        self._link.send(Bye())
        self._replies.close()  # it has the socket open, too
        self._link.close()

    def _ask(self, request: Request, kind: type[_Answer]) -> _Answer:
        self._link.send(request)
        for reply in self._replies:
            if isinstance(reply, kind):
                return reply
        raise ProvisionError(_ENDED)


def unreached(request: Read | Run, problem: str) -> str:
    """What to tell of a service whose log can't be read, or in which nothing can be run."""
    what = "read the log of" if isinstance(request, Read) else f"run {request.program.argv[0]} in"
    return f"Nobody can {what} the service {request.service!r}: {problem}."
