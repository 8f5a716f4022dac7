"""What is said between us and the process that makes cases: one JSON object a line."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = [
    "Answer",
    "Broken",
    "Case",
    "Fault",
    "FromMaker",
    "Judge",
    "Judged",
    "Made",
    "Make",
    "Read",
    "Send",
    "Smaller",
    "Smallest",
    "ToMaker",
]


class Fault(msgspec.Struct, frozen=True):
    """What ``check`` found in an answer; ``place`` tells faults of one title apart."""

    check: str
    title: str
    message: str
    place: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What is one fault, however it was found."""
        return (self.title, self.place)


class Case(msgspec.Struct, frozen=True):
    """A request to be sent."""

    number: int
    phase: str
    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def size(self) -> tuple[int, int]:
        """For finding the smallest."""
        return (len(self.url) + len(self.body), len(self.headers))

    @property
    def sent(self) -> tuple[str, str, tuple[tuple[str, str], ...], bytes]:
        """What is sent: equal for two cases that can't be told apart."""
        return (self.method, self.url, self.headers, self.body)


class Answer(msgspec.Struct, frozen=True, tag=True):
    """What a case was answered; or ``fault``, where it got no answer."""

    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    seconds: float = 0.0
    fault: Fault | None = None


class Make(msgspec.Struct, frozen=True, tag=True):
    """Make the cases of an operation."""

    operation: str
    base: str
    headers: dict[str, str]


class Read(msgspec.Struct, frozen=True, tag=True):
    """The document, whose operations are asked for from now on."""

    document: dict[str, Any]


class Judge(msgspec.Struct, frozen=True, tag=True):
    """Tell what is wrong with answers, by the numbers of their cases."""

    answers: dict[int, Answer]


class Smaller(msgspec.Struct, frozen=True, tag=True):
    """Find a smaller case than ``number`` with the same fault."""

    number: int
    fault: Fault


class Made(msgspec.Struct, frozen=True, tag=True):
    """The cases that were asked for."""

    cases: tuple[Case, ...]


class Judged(msgspec.Struct, frozen=True, tag=True):
    """The faults of answers, by the numbers of their cases."""

    faults: dict[int, tuple[Fault, ...]]


class Send(msgspec.Struct, frozen=True, tag=True):
    """Send this one, and say what the answer was."""

    case: Case


class Smallest(msgspec.Struct, frozen=True, tag=True):
    """The smallest case that was found, and its fault."""

    case: Case
    fault: Fault


class Broken(msgspec.Struct, frozen=True, tag=True):
    """It can't be done; ``what`` is ``check`` for one that doesn't exist, else ``document``."""

    what: str
    message: str


ToMaker = Read | Make | Judge | Smaller | Answer
FromMaker = Made | Judged | Send | Smallest | Broken
