"""What a test expects of a value, and how a value differs from it.

| Expected | Holds for |
|---|---|
| a dict | a dict with at least these keys, whose values match |
| a list | a list of the same length, whose elements match one by one |
| a type: ``int``, ``str``, ``bool``, ``float`` | a value of it; ``True`` is no ``int``, and 1 is a ``float`` |
| a compiled pattern | a text in which it is found |
| ``...`` | anything that is there |
| ``each(x)`` | a list of one or more, each of which matches ``x`` |
| ``some(x)`` | a list of which at least one matches ``x`` |
| ``exactly(x)`` | what matches ``x`` without any further key, at any depth |
| a function | what it returns something true for; one that raises doesn't hold |
| anything else | what equals it |
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asynctest_kit.errors import AtkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["MISSING", "Difference", "differences", "each", "exactly", "shown", "some"]

#: Characters of a value that are shown.
_SHOWN: Final = 200

_NAME: Final = re.compile(r"[A-Za-z_]\w*")


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


#: In place of a value that isn't there.
MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True)
class each:  # noqa: N801  # it reads as a function
    """A list of at least ``least``, each of which matches ``expected``."""

    expected: Any
    least: int = 1

    def __repr__(self) -> str:
        return f"each({shown(self.expected)})"


@dataclass(frozen=True, slots=True)
class some:  # noqa: N801
    """A list of which at least one matches ``expected``."""

    expected: Any

    def __repr__(self) -> str:
        return f"some({shown(self.expected)})"


@dataclass(frozen=True, slots=True)
class exactly:  # noqa: N801
    """What matches ``expected`` and has no further key."""

    expected: Any

    def __repr__(self) -> str:
        return f"exactly({shown(self.expected)})"


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where a value is not what was expected.

    Attributes:
        path: The keys and indices that lead there.
        expected: What was expected; :data:`MISSING`: nothing.
        received: What is there; :data:`MISSING`: nothing.
        error: What the expectation raised when it was asked, if it did.
    """

    path: tuple[str | int, ...]
    expected: Any
    received: Any
    error: Exception | None = None

    @property
    def place(self) -> str:
        """The path as JSONPath writes it."""
        return "$" + "".join(map(_step, self.path))


def differences(
    expected: Any, received: Any, path: tuple[str | int, ...] = (), *, is_exact: bool = False
) -> Iterator[Difference]:
    """Where ``received`` is not what was expected; none if it is."""
    if isinstance(expected, exactly):
        yield from differences(expected.expected, received, path, is_exact=True)
    elif received is MISSING:
        yield Difference(path, expected, received)
    elif expected is ...:
        return
    elif isinstance(expected, dict):
        yield from _of_dict(expected, received, path, is_exact=is_exact)
    elif isinstance(expected, (list, tuple)):
        yield from _of_list(expected, received, path, is_exact=is_exact)
    elif isinstance(expected, each):
        yield from _of_each(expected, received, path, is_exact=is_exact)
    elif isinstance(expected, some):
        yield from _of_some(expected, received, path, is_exact=is_exact)
    else:
        yield from _of_value(expected, received, path)


def shown(value: Any) -> str:
    """A value for people."""
    if value is ...:
        return "anything"
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, re.Pattern):
        text = f"/{value.pattern}/"
    elif callable(value) and hasattr(value, "__name__"):
        text = f"what {value.__name__} holds for" if value.__name__ != "<lambda>" else "what the lambda holds for"
    else:
        text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def _of_dict(
    expected: dict[Any, Any], received: Any, path: tuple[str | int, ...], *, is_exact: bool
) -> Iterator[Difference]:
    if not isinstance(received, dict):
        yield Difference(path, expected, received)
        return
    for key, value in expected.items():
        yield from differences(value, received.get(key, MISSING), (*path, key), is_exact=is_exact)
    if is_exact:
        yield from (Difference((*path, key), MISSING, received[key]) for key in received if key not in expected)


def _of_list(expected: Any, received: Any, path: tuple[str | int, ...], *, is_exact: bool) -> Iterator[Difference]:
    if not isinstance(received, list):
        yield Difference(path, expected, received)
        return
    for index, value in enumerate(expected):
        there = received[index] if index < len(received) else MISSING
        yield from differences(value, there, (*path, index), is_exact=is_exact)
    for index in range(len(expected), len(received)):
        yield Difference((*path, index), MISSING, received[index])


def _of_each(expected: each, received: Any, path: tuple[str | int, ...], *, is_exact: bool) -> Iterator[Difference]:
    if not isinstance(received, list) or len(received) < expected.least:
        yield Difference(path, expected, received)
        return
    for index, value in enumerate(received):
        yield from differences(expected.expected, value, (*path, index), is_exact=is_exact)


def _of_some(expected: some, received: Any, path: tuple[str | int, ...], *, is_exact: bool) -> Iterator[Difference]:
    if not isinstance(received, list):
        yield Difference(path, expected, received)
        return
    found = [
        list(differences(expected.expected, value, (*path, index), is_exact=is_exact))
        for index, value in enumerate(received)
    ]
    if all(found):  # each of them differs
        yield Difference(path, expected, received)
        if found:
            yield from min(found, key=len)


def _of_value(expected: Any, received: Any, path: tuple[str | int, ...]) -> Iterator[Difference]:
    try:
        holds = _holds(expected, received)
    except AtkError:  # the expectation itself is wrong, whatever is there
        raise
    except Exception as error:  # noqa: BLE001  # of the test's own function, or of a comparison
        yield Difference(path, expected, received, error)
    else:
        if not holds:
            yield Difference(path, expected, received)


def _holds(expected: Any, received: Any) -> bool:
    if isinstance(expected, type):
        return _is_of(expected, received)
    if isinstance(expected, re.Pattern):
        return isinstance(received, str) and expected.search(received) is not None
    if callable(expected) and hasattr(expected, "__name__"):
        return bool(_answer(expected, received))
    if isinstance(expected, bool) or isinstance(received, bool):
        return expected is received or (not isinstance(expected, (int, float)) and bool(expected == received))
    return bool(expected == received)


def _answer(function: Callable[[Any], Any], received: Any) -> Any:
    answer = function(received)
    if inspect.iscoroutine(answer):  # true, whatever it would return
        answer.close()
        raise AtkError(f"{shown(function)}: an async function can't say what is expected. Give a plain one.")
    return answer


def _is_of(kind: type, received: Any) -> bool:
    if isinstance(received, bool):
        return issubclass(kind, bool) or kind is object
    if kind is float:
        return isinstance(received, (int, float))
    return isinstance(received, kind)


def _step(step: str | int) -> str:
    if isinstance(step, str) and _NAME.fullmatch(step):
        return f".{step}"
    return f"[{step!r}]"
