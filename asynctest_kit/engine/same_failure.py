"""Whether two attempts at a test failed in the same way.

They did if the same kind of error was raised at the same line and its message differs at most in what differs each
time: ports, addresses, identifiers, folders made for the attempt, times and durations. Small numbers are no such thing:
``assert 3 == 1`` is not ``assert 2 == 1``.
"""

from __future__ import annotations

import re
import tempfile
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asynctest_kit.engine.executor import Execution

__all__ = ["is_same_failure", "likeness"]

#: What differs in each message of the same failure.
_VARYING = (
    r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?",
    r"\b\d\d:\d\d:\d\d(?:[.,]\d+)?\b",
    r"\b0x[0-9a-f]+\b",
    r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",
    r"\b(?=[a-f]*\d)[0-9a-f]{8,}(?![a-z])",  # hex digits that are no word
    r"(?<=[\w.\]]:)\d{2,5}\b(?=[/?#'\"\s),;.\]]|$)",  # host:port
    r"(?i:\bport\b\W{0,3})\d+\b",
    r"(?<=127\.0\.0\.1', )\d+",
    r"\b\d{5,}\b",
    r"(?<=/)\d+\b",  # a row's in a path
    r"\b\d+(?:\.\d+)? ?(?:ns|us|µs|ms|s|sec|seconds?|minutes?)\b",
    r"\b\d+\.\d+(?:e[+-]?\d+)?\b",
)

#: What :mod:`tempfile` calls things.
_RANDOM_NAME = re.compile(r"^tmp[a-z0-9_]{8}")


def is_same_failure(one: Execution, other: Execution) -> bool:
    """Whether ``other`` failed as ``one`` did."""
    return one.crash == other.crash and likeness(one.reason) == likeness(other.reason)


def likeness(message: str) -> str:
    """What two messages of the same failure have in common."""
    return _varying().sub("", _in_temporary_folder().sub(_name, message))


@cache
def _varying() -> re.Pattern[str]:
    return re.compile("|".join(_VARYING))


@cache
def _in_temporary_folder() -> re.Pattern[str]:
    folders = "|".join(re.escape(folder) for folder in (tempfile.gettempdir(), "/tmp"))  # noqa: S108  # read in messages
    return re.compile(rf"(?:{folders})/[^\s'\"]+")


def _name(path: re.Match[str]) -> str:
    """The name of a temporary file; what stands right below the folder is made for one attempt, name and all."""
    folder, _, name = path[0].rpartition("/")
    return "" if folder in (tempfile.gettempdir(), "/tmp") else _RANDOM_NAME.sub("", name)  # noqa: S108
