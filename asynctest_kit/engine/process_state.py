"""Which tests touch state that the whole process shares, and so must run alone.

Three places tell: a mark, a fixture of the closure, and the names that a test's or a fixture's code uses. Only what
lasts through a test counts: a session fixture that sets an environment variable once harms nobody.
"""

from __future__ import annotations

import dis
import inspect
import site
import sysconfig
from functools import cache
from types import CodeType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asynctest_kit.engine.graph import Case

__all__ = ["exclusive_reason"]

#: pytest's own fixtures that change process-global state for one test.
_GLOBAL_FIXTURES = frozenset(
    {
        "capfd",
        "capfdbinary",
        "caplog",
        "capsys",
        "capsysbinary",
        "capteesys",
        "doctest_namespace",
        "monkeypatch",
        "pytester",
        "recwarn",
        "testdir",
    }
)

#: Modules whose fixtures hold nothing that another test could see.
_HARMLESS_MODULES = (
    "_pytest.",
    "anyio.",
    "asynctest_kit.",
    "faker.",
    "pytest_asyncio.",
)

#: With ``os.environ`` in the same code, what may change it; reading it harms nobody.
_CHANGES = frozenset({"STORE_SUBSCR", "DELETE_SUBSCR"})
_CHANGING_METHODS = frozenset({"clear", "pop", "popitem", "setdefault", "update"})

#: Names that, used in a test's code, change process-global state.
_GLOBAL_NAMES = frozenset(
    {
        "catch_warnings",
        "chdir",
        "filterwarnings",
        "freeze_time",
        "freezegun",
        "putenv",
        "set_exception_handler",
        "setlocale",
        "simplefilter",
        "time_machine",
        "tzset",
        "umask",
        "unsetenv",
    }
)


def exclusive_reason(case: Case) -> str | None:
    """Why ``case`` must run alone, or None if it may run beside others."""
    return _marked(case) or _fixtures(case) or _test_code(case)


def _marked(case: Case) -> str | None:
    mark = case.item.get_closest_marker("atk")
    if mark is not None and mark.kwargs.get("exclusive"):
        return "marked atk(exclusive=True)"
    if case.item.get_closest_marker("filterwarnings") is not None:
        return "marked filterwarnings, which is process-global"
    return None


def _fixtures(case: Case) -> str | None:
    for fixture in case.local:
        function = fixture.definition.func
        if fixture.name in _GLOBAL_FIXTURES and function.__module__.startswith("_pytest."):
            return f"fixture {fixture.name}"
        if _is_installed(function) and not function.__module__.startswith(_HARMLESS_MODULES):
            return f"fixture {fixture.name} of {function.__module__}, which is not known to be harmless"
        name = None if _is_installed(function) else _global_name(function)
        if name is not None:
            return f"fixture {fixture.name} uses {name}"
    return None


def _test_code(case: Case) -> str | None:
    item = case.item
    if not isinstance(item, pytest.Function):
        return None
    name = _global_name(item.function)
    return None if name is None else f"its code uses {name}"


def _is_installed(function: Any) -> bool:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and code.co_filename.startswith(_installed_folders())


@cache
def _installed_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return (*site.getsitepackages(), paths["purelib"], paths["platlib"], paths["stdlib"])


def _global_name(function: Any) -> str | None:
    function = getattr(function, "__func__", function)
    if hasattr(function, "patchings"):
        return "mock.patch"
    function = inspect.unwrap(function)
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    names = set(_names(code))
    # ``patch`` alone may be an HTTP method: it counts where the name is mock's.
    module_patch = getattr(function, "__globals__", {}).get("patch")
    if "patch" in names and (names & {"mock", "unittest.mock"} or _is_mock(module_patch)):
        return "mock.patch"
    if "environ" in names and _changes_a_mapping(code, names):
        return "os.environ"
    return min(names & _GLOBAL_NAMES, default=None)


def _changes_a_mapping(code: CodeType, names: set[str]) -> bool:
    if names & _CHANGING_METHODS:
        return True
    nested = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return any(instruction.opname in _CHANGES for instruction in dis.get_instructions(code)) or any(
        _changes_a_mapping(constant, names) for constant in nested
    )


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_mock(value: object) -> bool:
    return getattr(value, "__module__", "") in {"unittest.mock", "mock.mock"}
