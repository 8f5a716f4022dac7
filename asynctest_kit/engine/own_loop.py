"""Which tests start an event loop themselves, or ask for one of a kind that ours is not.

They get it: pytest's own protocol runs them, with the plugin that their suite has for it, which sets their async
fixtures up. What is sync down to the ground they share with everyone.
"""

from __future__ import annotations

import asyncio
import inspect
from functools import cache
from typing import TYPE_CHECKING

import pytest

from asynctest_kit.engine import collection
from asynctest_kit.engine.fixture_call import asks_while_running
from asynctest_kit.engine.foreign_hooks import protocol_of_a_plugin
from asynctest_kit.engine.graph import is_async

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctest_kit.engine.graph import Case, Source

__all__ = ["is_free_of_loops", "own_loop_of"]

#: Options of anyio's asyncio backend that make another loop.
_LOOP_OPTIONS = ("loop_factory", "policy", "use_uvloop")

#: What pytest-asyncio may be told to make a loop with, if it is to be like ours.
_OUR_KIND = (None, asyncio.new_event_loop, asyncio.SelectorEventLoop)


def own_loop_of(case: Case, *, is_coroutine: bool) -> str | None:
    """What kind of loop ``case`` must have to itself, or None if it runs on ours."""
    item = case.item
    if not isinstance(item, pytest.Function):
        return None
    plugin = protocol_of_a_plugin(item) if is_coroutine else None
    if plugin is not None:
        return f"that of its plugins, for {plugin} runs it"
    inner = getattr(getattr(item.obj, "hypothesis", None), "inner_test", None)
    if inner is not None and inspect.iscoroutinefunction(inner):
        return "hypothesis"
    return _by_pytest_trio(item) or _by_anyio(case, item) or _by_pytest_asyncio(case, item)


def is_free_of_loops(source: Source) -> bool:
    """Whether no part of a fixture runs on a loop, or is one, so that tests of any loop can have it."""
    definition = source.definition
    return not (
        is_async(definition.func)
        or asks_while_running(definition)
        or hasattr(definition.func, "_force_asyncio_fixture")
        or definition.func.__module__ == "pytest_asyncio.plugin"
    ) and all(is_free_of_loops(argument) for argument in source.arguments.values())


def _by_pytest_trio(item: pytest.Function) -> str | None:
    if item.config.pluginmanager.hasplugin("trio") and item.get_closest_marker("trio"):
        return "trio"
    return None


def _by_anyio(case: Case, item: pytest.Function) -> str | None:
    """The anyio backend that the test asks for, as far as it can be known before the run."""
    source = case.by_name.get("anyio_backend")
    if source is None:
        return None
    parameter = collection.parameter_of(item, "anyio_backend")
    function = source.definition.func
    if parameter is not None:
        backend: object = parameter.value
    elif source.definition.argnames or not _returns_at_once(function):
        return None
    else:
        backend = function()
    name, options = backend if isinstance(backend, tuple) else (backend, {})
    if name != "asyncio":
        return str(name)
    return next((f"asyncio with {option}" for option in _LOOP_OPTIONS if options.get(option)), None)


@cache
def _returns_at_once(function: Callable[..., object]) -> bool:
    return not is_async(function) and not inspect.isgeneratorfunction(function)


def _by_pytest_asyncio(case: Case, item: pytest.Function) -> str | None:
    factory = collection.parameter_of(item, "_asyncio_loop_factory")
    if factory is not None and factory.value not in _OUR_KIND:
        return "of pytest_asyncio_loop_factories"
    policy = case.by_name.get("event_loop_policy")
    if policy is None or policy.definition.func.__module__ == "pytest_asyncio.plugin":
        return None
    is_its = item.get_closest_marker("asyncio") or any(is_async(source.definition.func) for source in case.sources)
    return "of an event_loop_policy" if is_its else None
