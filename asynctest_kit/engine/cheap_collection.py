"""Makes plain coroutine tests into pytest's items for a fraction of what pytest spends on each.

pytest works out the closure of fixtures anew for every test, though nearly all tests of a module have the same one, and
makes a second node for each, only to ask plugins whether it is to be multiplied. Here the first test of a kind goes
pytest's own way, and the next ones get what came of it. A kind is: the same module or class, the same argument names,
the same marks as far as they request fixtures. Parameters of fixtures multiply all tests of a kind alike. Where two of
them could differ (parametrisation of the test itself; ``pytest_generate_tests`` anywhere; a decorated function; a
plugin's own kind of item) pytest does the work.

What comes of it is what pytest makes: the same classes, ids, marks, closures and order.
"""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import TYPE_CHECKING, Any

import pytest

from asynctest_kit.engine import collection

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["CheapCollection"]

_PLAIN = inspect.CO_COROUTINE | inspect.CO_OPTIMIZED | inspect.CO_NEWLOCALS | inspect.CO_NESTED


#: Whose hooks for making items may be left out for a test of a known kind: what they do is copied.
_KNOWN_MAKERS = frozenset(
    {
        "_pytest.python",
        "_pytest.unittest",
        "anyio.pytest_plugin",
        "asynctest_kit.engine.late_plugins",
        "pytest_asyncio.plugin",
        __name__,
    }
)

#: Who multiplies tests by their marks and fixtures only; pytest-asyncio those that it makes items of its own of.
_KNOWN_GENERATORS = frozenset(
    {
        "_pytest.fixtures",
        "_pytest.python",
        "asynctest_kit.fixtures.migrations",
        "asynctest_kit.fixtures.openapi",
        "pytest_asyncio.plugin",
    }
)

_KNOWN_MAKERS_OF_IDS = frozenset({"_pytest.python"})


class CheapCollection:
    """The pytest plugin; it lives as long as the collection's results do."""

    def __init__(self) -> None:
        self._grounds: dict[pytest.Collector, _Ground | None] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        """Let go of what was known for collecting."""
        self._grounds.clear()

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makeitem(
        self, collector: pytest.Module | pytest.Class, name: str, obj: object
    ) -> list[pytest.Item] | None:
        """Make the item of a plain coroutine test, if one of its kind has been made before."""
        if not isinstance(obj, FunctionType) or not _is_plain(obj):
            return None
        ground = self._ground(collector)
        if ground is None or not collector.istestfunction(obj, name):
            return None
        kind = ground.kind(name, obj)
        if kind is None:
            return None
        if kind.models is None:
            made: Any = collection.item_made_by_others(self, collector, name, obj)
            kind.learn(made, obj)
            return made  # type: ignore[no-any-return]
        return kind.made(name, obj) if kind.models else None

    def _ground(self, collector: pytest.Module | pytest.Class) -> _Ground | None:
        if collector not in self._grounds:
            self._grounds[collector] = _Ground(collector) if _is_ordinary(collector) else None
        return self._grounds[collector]


def _is_plain(function: FunctionType) -> bool:
    code = function.__code__
    return (
        bool(code.co_flags & inspect.CO_COROUTINE)
        and not code.co_flags & ~_PLAIN
        and not code.co_kwonlyargcount
        and not function.__defaults__
        and function.__dict__.keys() <= {"pytestmark"}
    )


def _is_ordinary(collector: pytest.Module | pytest.Class) -> bool:
    """Whether nobody multiplies the tests of a module or class, and pytest's own classes make its items."""
    if type(collector) not in {pytest.Module, pytest.Class, pytest.Package}:
        return False
    if not (
        collection.makers_of_items(collector) <= _KNOWN_MAKERS
        and collection.test_generators(collector) <= _KNOWN_GENERATORS
        and collection.makers_of_ids(collector) <= _KNOWN_MAKERS_OF_IDS
    ):
        return False
    return not any(mark.name == "parametrize" for mark in collector.iter_markers())


class _Kind:
    """Tests that differ in their names only.

    Attributes:
        models: Of the items of the first: one for each parameter of its fixtures. None before there is a first one,
            empty if others can't be made like it.
    """

    def __init__(self, marks: list[pytest.Mark]) -> None:
        self.models: list[collection.Model] | None = None
        self._marks = marks
        self._added: list[pytest.Mark] = []

    def learn(self, items: object, function: object) -> None:
        """Take the first test's items as models, and note the marks that plugins have added to its function."""
        self.models = []
        if isinstance(items, list) and collection.are_simple(items):
            marks = getattr(function, "pytestmark", [])
            self._added = marks[len(self._marks) :]
            self.models = [*map(collection.Model.of, items)]

    def made(self, name: str, function: Any) -> list[pytest.Item]:
        """Make the items of another test."""
        assert self.models  # noqa: S101  # there is one to make it like
        if self._added:
            function.pytestmark = [*getattr(function, "pytestmark", ()), *self._added]
        return collection.made_like(self.models, name, function)


class _Ground:
    """A module or class whose plain tests differ in their names, arguments and marks only."""

    def __init__(self, collector: pytest.Module | pytest.Class) -> None:
        self._collector = collector
        self._is_class = isinstance(collector, pytest.Class)
        self._kinds: dict[Hashable, _Kind] = {}

    def kind(self, name: str, function: FunctionType) -> _Kind | None:
        """The kind of a test; None if pytest has to make it."""
        marks = getattr(function, "pytestmark", [])
        if self._is_class and isinstance(inspect.getattr_static(self._collector.obj, name), staticmethod):
            return None
        if any(mark.name == "parametrize" for mark in marks):
            return None
        code = function.__code__
        requested = tuple((mark.name, mark.args if mark.name == "usefixtures" else ()) for mark in marks)
        key = (code.co_varnames[: code.co_argcount], code.co_posonlyargcount, requested)
        known = self._kinds.get(key)
        if known is None:
            known = self._kinds[key] = _Kind(marks)
        return known
