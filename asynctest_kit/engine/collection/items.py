"""What makes items, and items made like others."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from types import FunctionType
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.fixtures import FuncFixtureInfo
from _pytest.unittest import TestCaseFunction

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Model",
    "are_simple",
    "is_coroutine_item",
    "is_plain_coroutine_function",
    "item_made_by_others",
    "made_like",
    "makers_of_ids",
    "makers_of_items",
    "test_generators",
]


def is_coroutine_item(item: pytest.Item) -> bool:
    """Tell whether ``item`` is a coroutine function that the engine can call itself."""
    return (
        isinstance(item, pytest.Function)
        and not isinstance(item, TestCaseFunction)
        and (is_plain_coroutine_function(item.function) or inspect.iscoroutinefunction(item.function))
    )


def is_plain_coroutine_function(value: object) -> bool:
    """Whether ``value`` is one that ``async def`` makes; what else counts as one takes :mod:`inspect` long to say."""
    return type(value) is FunctionType and bool(value.__code__.co_flags & inspect.CO_COROUTINE)


def test_generators(collector: pytest.Module | pytest.Class) -> set[str]:
    """Whoever may multiply the tests of ``collector``: plugins by their modules, and its own functions."""
    module = collector.getparent(pytest.Module)
    own = {str(one) for one in (collector.obj, module and module.obj) if hasattr(one, "pytest_generate_tests")}
    return own | {_module_of(impl) for impl in collector.ihook.pytest_generate_tests.get_hookimpls()}


def makers_of_items(collector: pytest.Module | pytest.Class) -> set[str]:
    """The modules of the plugins that make items, or prepare for it."""
    implementations = collector.ihook.pytest_pycollect_makeitem.get_hookimpls()
    return {_module_of(impl) for impl in implementations if not impl.wrapper and not impl.hookwrapper}


def item_made_by_others(plugin: object, collector: pytest.Module | pytest.Class, name: str, obj: object) -> object:
    """What the plugins that are asked after ``plugin`` make of ``obj``; wrappers, which are around all, not called."""
    values = {"collector": collector, "name": name, "obj": obj}
    for impl in reversed(collector.ihook.pytest_pycollect_makeitem.get_hookimpls()):
        if impl.plugin is not plugin and not impl.wrapper and not impl.hookwrapper:
            made: object = impl.function(*(values[argument] for argument in impl.argnames))
            if made is not None:
                return made
    return None


def makers_of_ids(collector: pytest.Module | pytest.Class) -> set[str]:
    """The modules of the plugins that name parameters."""
    return {_module_of(impl) for impl in collector.ihook.pytest_make_parametrize_id.get_hookimpls()}


def _module_of(implementation: Any) -> str:
    plugin = implementation.plugin
    return plugin.__name__ if inspect.ismodule(plugin) else type(plugin).__module__


def are_simple(items: Sequence[Any]) -> bool:
    """Whether what a test was made into depends on the fixtures alone, so that another one can be made like it."""
    if not items or any(type(item) is not pytest.Function for item in items):
        return False
    definitions = (one for item in items for some in item._fixtureinfo.name2fixturedefs.values() for one in some)
    # No parameters at all are told as a skip that names the test, and functions that name parameters may count.
    return not any(one.params is not None and (not one.params or callable(one.ids)) for one in definitions)


@dataclass(frozen=True, slots=True)
class Model:
    """An item like which others are made: what pytest made it of, whatever becomes of the item."""

    item: pytest.Function
    info: FuncFixtureInfo
    callspec: Any
    suffix: str

    @classmethod
    def of(cls, item: pytest.Function) -> Model:
        """Take an item as it is now."""
        callspec = getattr(item, "callspec", None)
        suffix = item.name[len(item.originalname) :]
        return cls(item, _copied_info(item._fixtureinfo), callspec and _copied_callspec(callspec), suffix)


def made_like(models: Sequence[Model], name: str, function: FunctionType) -> list[pytest.Item]:
    """Items of another plain test that requests the same fixtures as that of ``models``."""
    model = models[0].item
    own = _copied_info(models[0].info)
    in_module = isinstance(model.parent, pytest.Module)
    is_beside = in_module and function.__code__.co_filename == model.function.__code__.co_filename
    made: list[pytest.Item] = []
    for one in models:
        item = _one_like(one, name, own)
        if is_beside:
            # A cached property, which pytest works out by looking for the file.
            item.__dict__["location"] = (model.location[0], function.__code__.co_firstlineno - 1, item.name)
        made.append(item)
    return made


def _one_like(model: Model, name: str, info: FuncFixtureInfo) -> pytest.Function:
    parent = model.item.parent
    if model.callspec is None:
        item: pytest.Function = pytest.Function.from_parent(parent, name=name, fixtureinfo=info)
        return item
    own = _copied_callspec(model.callspec)
    made: pytest.Function = pytest.Function.from_parent(
        parent,
        name=name + model.suffix,
        callspec=own,
        fixtureinfo=info,
        keywords={own.id: True},
        originalname=name,
    )
    return made


def _copied_info(info: FuncFixtureInfo) -> FuncFixtureInfo:
    return FuncFixtureInfo(info.argnames, info.initialnames, info.names_closure[:], dict(info.name2fixturedefs))


def _copied_callspec(callspec: Any) -> Any:
    return replace(callspec, params=dict(callspec.params), indices=dict(callspec.indices), marks=callspec.marks[:])
