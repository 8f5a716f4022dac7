"""Fixtures that change the process's state in the same way for every test.

An autouse fixture of a conftest that patches a clock or a constant around each test would make a whole suite run one
by one. But where the change is the same for all of them, its tests may run beside each other while it holds, and beside
no other: it is made once, before the first of them, and undone after the last.

That is done only where it can be proved from the code: the fixture takes ``monkeypatch`` and nothing else, does nothing
but call its methods, and what it sets are constants and functions that refer to nothing.
"""

from __future__ import annotations

import dis
import inspect
from contextlib import contextmanager
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import CodeType

    from asynctest_kit.engine.graph import Case, LocalFixture

__all__ = ["Ambient", "ambient_of", "applied", "key_of"]

#: Definitions of such fixtures, in the order of their set-up; what tests must have in common to run beside each other.
Ambient = tuple[pytest.FixtureDef[Any], ...]

_METHODS: Final = frozenset({"delattr", "delenv", "delitem", "setattr", "setenv", "setitem"})
_OPERATIONS: Final = frozenset(
    {
        "CACHE", "CALL", "CALL_FUNCTION_EX", "CALL_KW", "COPY", "EXTENDED_ARG", "KW_NAMES", "LOAD_ATTR", "LOAD_CONST",
        "LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_GLOBAL", "LOAD_METHOD", "LOAD_SMALL_INT", "MAKE_FUNCTION", "NOP",
        "POP_TOP", "PRECALL", "PUSH_NULL", "RESUME", "RETURN_CONST", "RETURN_VALUE",
    }
)  # fmt: skip
_CALLS: Final = frozenset({"CALL", "CALL_FUNCTION_EX", "CALL_KW"})
_CONSTANTS: Final = (bool, bytes, complex, float, int, str, type(None))


def ambient_of(case: Case) -> tuple[LocalFixture, ...]:
    """The fixtures of ``case`` that are ambient, and their ``monkeypatch``; none if anything else uses that."""
    found = [fixture for fixture in case.local if _is_the_same_for_all(fixture.definition.func)]
    if not found or any(fixture.scope != "session" for fixture in case.shared):
        return ()
    patches = [fixture for fixture in case.local if fixture.name == "monkeypatch"]
    used = {id(argument) for fixture in case.local if fixture not in found for argument in fixture.arguments.values()}
    arguments = set(inspect.signature(case.item.obj).parameters) if isinstance(case.item, pytest.Function) else set()
    hidden = (*found, *patches)
    if any(id(fixture) in used or fixture.name in arguments for fixture in hidden):
        return ()
    return hidden


@contextmanager
def applied(ambient: Ambient) -> Iterator[None]:
    """Make the changes while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        for definition in ambient:
            definition.func(patch)
        yield


@cache
def _is_the_same_for_all(function: Callable[..., Any]) -> bool:
    if not isinstance(function, FunctionType) or inspect.isgeneratorfunction(function) or function.__closure__:
        return False
    code = function.__code__
    if list(inspect.signature(function).parameters) != ["monkeypatch"] or not _only_patches(code):
        return False
    recorder = _Recorder()
    try:
        function(recorder)
    except Exception:  # noqa: BLE001  # it fails for a test too, which will show it
        return False
    return all(_is_constant(value) for value in recorder.values)


def _only_patches(code: CodeType) -> bool:
    """Whether all that is called are methods of ``monkeypatch``."""
    instructions = list(dis.get_instructions(code))
    if any(one.opname not in _OPERATIONS for one in instructions):
        return False
    calls = sum(one.opname in _CALLS for one in instructions)
    own = sum(one.opname.startswith("LOAD_FAST") for one in instructions)
    methods = sum(one.opname in {"LOAD_ATTR", "LOAD_METHOD"} and one.argval in _METHODS for one in instructions)
    return 0 < calls == own == methods


class _Recorder:
    """Stands in for ``monkeypatch`` and keeps what would be set."""

    def __init__(self) -> None:
        self.values: list[object] = []

    def __getattr__(self, name: str) -> Any:
        def record(*arguments: object, **options: object) -> None:
            # The first says where; the last is the value, but for ``delattr`` and its like.
            values = [*arguments[1:], *options.values()]
            self.values += values if name.startswith("set") or arguments[1:] else []

        return record


def _is_constant(value: object) -> bool:
    if isinstance(value, tuple | frozenset):
        return all(_is_constant(one) for one in value)
    if isinstance(value, FunctionType):
        code = value.__code__
        refers = code.co_names or code.co_freevars or value.__defaults__ or value.__kwdefaults__
        return value.__name__ == "<lambda>" and not refers and not any(inspect.iscode(one) for one in code.co_consts)
    return type(value) in _CONSTANTS


def key_of(ambient: Sequence[LocalFixture]) -> Ambient:
    """What tests must have in common to run beside each other."""
    return tuple(fixture.definition for fixture in ambient if fixture.name != "monkeypatch")
