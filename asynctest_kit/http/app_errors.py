"""What an application raised that no call could tell: after a good answer, or in a WebSocket that nobody read on.

Who calls is told by the answer's status, by an exception or by how a WebSocket was closed. The rest is kept until the
test has ended, and fails it then, unless it was looked at or expected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asynctest_kit.http.responses import ExpectationError
from asynctest_kit.http.transcripts import raised

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["AppErrors"]

#: The first status that says that something is amiss.
_BAD: Final = 400

#: In the names of what frameworks and servers raise when a client has gone; there is no class that they share.
_LEFT: Final = "Disconnect"


@dataclass(slots=True)
class _Raised:
    error: Exception
    where: str
    is_told: bool


@dataclass(slots=True)
class _Expected:
    kind: type[Exception]
    match: re.Pattern[str]

    def __str__(self) -> str:
        return f"{self.kind.__name__}{f' with {self.match.pattern!r}' if self.match.pattern else ''}"

    def fits(self, error: Exception) -> bool:
        return isinstance(error, self.kind) and self.match.search(str(error)) is not None


class AppErrors:
    """Those of the calls of one :class:`~asynctest_kit.http.client.Api`."""

    def __init__(self) -> None:
        self._raised: list[_Raised] = []
        self._expected: list[_Expected] = []

    def note(self, error: BaseException, scope: Mapping[str, Any], status: int = 0) -> None:
        """Take note of what a request made the application raise.

        Args:
            error: That.
            scope: The request's.
            status: Of its answer; 0: there was none, so that the caller is told. A WebSocket's says nothing.
        """
        if not isinstance(error, Exception) or all(map(_is_of_one_that_left, _parts(error))):
            return
        if scope["type"] == "websocket":
            self._raised.append(_Raised(error, f"WebSocket {scope['path']}", is_told=False))
        else:
            where = f"{scope['method']} {scope['path']}, which was answered with {status}"
            self._raised.append(_Raised(error, where, is_told=not 0 < status < _BAD))

    def looked_at(self, error: BaseException | None) -> None:
        """Know that the test has been told of ``error``."""
        for one in self._raised:
            if one.error is error:
                one.is_told = True

    def expect(self, kind: type[Exception], match: str | re.Pattern[str]) -> None:
        """Expect such an error, once or more."""
        self._expected.append(_Expected(kind, re.compile(match)))

    def check(self) -> None:
        """Make sure that nothing was raised that nobody knows of, and that all was that is expected.

        Raises:
            ExpectationError: It isn't so.
        """
        __tracebackhide__ = True
        found = [
            one for one in self._raised if not one.is_told and not any(it.fits(one.error) for it in self._expected)
        ]
        if found:
            more = f" (and {len(found) - 1} more like it)" if len(found) > 1 else ""
            one = found[0]
            raise ExpectationError(
                f"The application raised what the test has not looked at, in {one.where}{more}:\n"
                f"{raised(one.error)}\n"
                f"If that is meant, say so: api.expect_app_error({type(one.error).__name__})."
            )
        for it in self._expected:
            if not any(it.fits(one.error) for one in self._raised):
                told = ", ".join(type(one.error).__name__ for one in self._raised) or "nothing"
                raise ExpectationError(f"The application was expected to raise {it}, and raised {told}.")


def _parts(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _parts(part)
    else:
        yield error


def _is_of_one_that_left(error: BaseException) -> bool:
    return any(_LEFT in kind.__name__ for kind in type(error).__mro__)
