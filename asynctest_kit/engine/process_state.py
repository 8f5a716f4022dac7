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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asynctest_kit.engine.code_reading import Reading
from asynctest_kit.engine.graph import LocalFixture
from asynctest_kit.engine.put_back import targets_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from asynctest_kit.engine.graph import Case, Source

__all__ = ["ProcessState"]

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
    "pact.testing.",  # whose autouse fixture tells its library, for the log, which test the thread is at
    "pytest_asyncio.",
    "respx.",
)


#: Modules of plugins whose fixtures change process-global state in ways that can't be read from their code.
_GLOBAL_MODULES = (
    "pyfakefs.",
    "pytest_django.",
    "pytest_freezegun",
    "pytest_freezer",
    "pytest_httpx.",
    "pytest_recording.",
    "pytest_socket",
    "requests_mock.",
    "vcr.",
)


class ProcessState:
    """What is known of the tests of one plan; what several of them have in common is read once."""

    def __init__(self) -> None:
        self._reading = Reading()
        self._fixtures: dict[tuple[pytest.FixtureDef[Any], bool, str], str | None] = {}

    def exclusive_reason(self, case: Case, ambient: Collection[Source] = ()) -> str | None:
        """Why ``case`` must run alone; None if it may run beside others, all of which have the same ``ambient``."""
        return self._of_fixtures(case, ambient) or self._of_code(case)

    def _of_fixtures(self, case: Case, ambient: Collection[Source]) -> str | None:
        folder = _folder(case.item.path)
        narrow: list[Source] = [fixture for fixture in case.shared if fixture.scope != "session"]
        for fixture in (*narrow, *case.local):
            if fixture in ambient:
                continue
            key = (fixture.definition, isinstance(fixture, LocalFixture), folder)
            if key not in self._fixtures:
                self._fixtures[key] = self._of_fixture(fixture, folder)
            if (reason := self._fixtures[key]) is not None:
                return reason
        return None

    def _of_fixture(self, fixture: Source, folder: str) -> str | None:
        function = fixture.definition.func
        module = function.__module__ or ""
        if fixture.name in _GLOBAL_FIXTURES and module.startswith("_pytest."):
            return f"fixture {fixture.name}"
        if module.startswith(_HARMLESS_MODULES):
            return None
        if module.startswith(_GLOBAL_MODULES):
            return f"fixture {fixture.name} of {module}, which changes the whole process"
        if isinstance(fixture, LocalFixture) and targets_of(function):
            return None
        beside = str(Path(inspect.unwrap(function).__code__.co_filename).parent) if _is_installed(function) else folder
        name = self._reading.touched_by(function, beside=beside)
        return None if name is None else f"fixture {fixture.name} uses {name}"

    def _of_code(self, case: Case) -> str | None:
        item = case.item
        if not isinstance(item, pytest.Function):
            return None
        name = self._reading.touched_by(item.function, beside=_folder(item.path))
        return None if name is None else f"its code uses {name}"


@cache
def _folder(path: Path) -> str:
    return str(path.parent)


def _is_installed(function: Any) -> bool:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and code.co_filename.startswith(_installed_folders())


@cache
def _installed_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return (*site.getsitepackages(), paths["purelib"], paths["platlib"], paths["stdlib"])
