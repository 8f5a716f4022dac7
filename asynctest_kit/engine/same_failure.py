"""Whether two attempts at a test failed in the same way.

They did if the same kind of error was raised at the same line and its message differs at most in what clearly differs
each time: ports of hosts, addresses in memory, identifiers, folders made for the attempt, durations, and times that are
about now. Other numbers and dates are no such thing: ``assert 10001 == 20000`` is not ``assert 10000 == 20000``. Where
an assertion shows its operands, identifiers and durations may be what it is about, and count too.
"""

from __future__ import annotations

import re
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asynctest_kit.engine.executor import Execution

__all__ = ["is_same_failure", "likeness"]

_HOST = r"(?:(?://|@)[\w.-]+|\blocalhost|\b\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f]*:[0-9a-f:]*\])"

#: What differs in each message of the same failure, whatever it is about; of a host its port.
_VARYING = (
    r"\bat 0x[0-9a-f]+\b",
    r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",
    rf"(?P<host>{_HOST}:|'(?:localhost|127(?:\.\d+){{3}}|::1)', )\d{{2,5}}\b(?=[/?#'\"\s),;.\]]|$)",
    r"(?i:\b(?:port|pid)\b\W{0,3})\d+\b",
)

#: What differs too, in a message that shows no operands.
_NO_OPERANDS = (
    r"\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{8,}(?![a-z])",  # hex digits that are neither a word nor a number
    r"(?<=[A-Za-z_-]/)\d+\b",  # a row's in a path
    r"\b\d+(?:\.\d+)? ?(?:ns|us|µs|ms|s|sec|seconds?|minutes?)\b",
)

_TIME = re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,6})?)?(?:Z|[+-]\d\d:?\d\d)?")

#: A time without a zone may be any zone's.
_ABOUT_NOW = timedelta(days=1)

#: As pytest tells an assertion without a message.
_OPERANDS = re.compile(r"(?:AssertionError: )?assert\b")

#: What :mod:`tempfile` calls things.
_RANDOM_NAME = re.compile(r"^tmp[a-z0-9_]{8}")


def is_same_failure(one: Execution, other: Execution) -> bool:
    """Whether ``other`` failed as ``one`` did."""
    return one.crash == other.crash and likeness(one.reason) == likeness(other.reason)


def likeness(message: str) -> str:
    """What two messages of the same failure have in common."""
    message = _TIME.sub(_time, _in_temporary_folder().sub(_name, message))
    return _varying(has_operands=_OPERANDS.match(message) is not None).sub(r"\g<host>", message)


@cache
def _varying(*, has_operands: bool) -> re.Pattern[str]:
    return re.compile("|".join(_VARYING if has_operands else _VARYING + _NO_OPERANDS))


def _time(told: re.Match[str]) -> str:
    """A time that isn't about now, as it is."""
    try:
        time = datetime.fromisoformat(told[0].replace(",", "."))
    except ValueError:  # no such day
        return told[0]
    since = datetime.now(UTC) - (time if time.tzinfo else time.replace(tzinfo=UTC))
    return "" if abs(since) < _ABOUT_NOW else told[0]


@cache
def _in_temporary_folder() -> re.Pattern[str]:
    folders = "|".join(re.escape(folder) for folder in (tempfile.gettempdir(), "/tmp"))  # noqa: S108  # read in messages
    return re.compile(rf"(?:{folders})/[^\s'\"]+")


def _name(path: re.Match[str]) -> str:
    """The name of a temporary file; what stands right below the folder is made for one attempt, name and all."""
    folder, _, name = path[0].rpartition("/")
    return "" if folder in (tempfile.gettempdir(), "/tmp") else _RANDOM_NAME.sub("", name)  # noqa: S108
