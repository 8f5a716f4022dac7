"""Which tests touch state that the whole process shares, and so must run alone.

Three places tell: a mark, a fixture of the closure, and the code of a test and its fixtures. Only what lasts through a
test counts: a session fixture that sets an environment variable does so for the whole session, as in pytest; one of a
module or class must not reach the tests of others.
"""

from __future__ import annotations

import inspect
import site
import sysconfig
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from asynctest_kit.engine.code_reading import touched_by

if TYPE_CHECKING:
    from asynctest_kit.engine.graph import Case, Source

__all__ = ["exclusive_reason"]

#: pytest's own fixtures that change process-global state for one test.
_GLOBAL_FIXTURES = frozenset(
    {
        "capfd",
        "capfdbinary",
        "capsys",
        "capsysbinary",
        "capteesys",
        "doctest_namespace",
        "monkeypatch",
        "pytester",
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


def exclusive_reason(case: Case) -> str | None:
    """Why ``case`` must run alone, or None if it may run beside others."""
    return _marked(case) or _fixtures(case) or _test_code(case)


def _marked(case: Case) -> str | None:
    mark = case.item.get_closest_marker("atk")
    if mark is not None and mark.kwargs.get("exclusive"):
        return "marked atk(exclusive=True)"
    return None


def _fixtures(case: Case) -> str | None:
    fixtures: list[Source] = [fixture for fixture in case.shared if fixture.scope != "session"]
    for fixture in (*fixtures, *case.local):
        function = fixture.definition.func
        if fixture.name in _GLOBAL_FIXTURES and function.__module__.startswith("_pytest."):
            return f"fixture {fixture.name}"
        if _is_installed(function) and not function.__module__.startswith(_HARMLESS_MODULES):
            return f"fixture {fixture.name} of {function.__module__}, which is not known to be harmless"
        name = None if _is_installed(function) else touched_by(function, beside=case.item.path.parent)
        if name is not None:
            return f"fixture {fixture.name} uses {name}"
    return None


def _test_code(case: Case) -> str | None:
    item = case.item
    if not isinstance(item, pytest.Function):
        return None
    name = touched_by(item.function, beside=item.path.parent)
    return None if name is None else f"its code uses {name}"


def _is_installed(function: Any) -> bool:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and code.co_filename.startswith(_installed_folders())


@cache
def _installed_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return (*site.getsitepackages(), paths["purelib"], paths["platlib"], paths["stdlib"])
