"""Which fixtures a test requests, which definition is in force, and what scope its value is kept for."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

import pytest
from _pytest.fixtures import (
    FixtureFunctionDefinition,
    FixtureLookupError,
    get_scope_node,
    get_scope_package,
    resolve_fixture_function,
)
from _pytest.scope import Scope

from asynctest_kit.engine.collection.requests import Parameter, Request, ScopeName, TestRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
    from types import ModuleType

__all__ = [
    "FirstInOrder",
    "all_definitions",
    "before_look_ups",
    "bound_function",
    "check_scope",
    "closure_key",
    "cut_short",
    "definition_of",
    "fixture_names",
    "fixtures_defined_in",
    "has_fixtures",
    "is_awaited",
    "leave_out_unless_requested",
    "parameter_of",
    "reached",
    "request_for",
    "request_like",
    "scope_instance",
    "set_function",
    "test_argument_names",
]


def has_fixtures(item: pytest.Item) -> bool:
    """Tell whether pytest has worked out a fixture closure for ``item``: functions and doctests have one."""
    return hasattr(item, "_fixtureinfo")


def fixture_names(item: pytest.Item) -> Sequence[str]:
    """The names of every fixture that ``item`` requests, widest scope first, as pytest would set them up."""
    return getattr(item, "fixturenames", ())


class FirstInOrder:
    """Has fixtures set up in one order, as soon as a test needs the first of them, whoever requests which.

    Args:
        names: The fixtures.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._closures: dict[Hashable, list[str]] = {}

    def apply(self, item: pytest.Item) -> None:
        """Order the fixtures of ``item``; no-op if it needs fewer than two of these."""
        closure = getattr(item, "fixturenames", [])
        ordered = [name for name in self._names if name in closure]
        if len(ordered) < 2:  # noqa: PLR2004 (an order)
            return
        definitions = cast("pytest.Function", item)._fixtureinfo.name2fixturedefs
        key = (*closure, *map(id, definitions.values()))  # of tests like this one
        if key not in self._closures:
            leading = _requesters(definitions, ordered)
            first = next(index for index, name in enumerate(closure) if name in leading)
            self._closures[key] = [*closure[:first], *ordered, *(one for one in closure[first:] if one not in ordered)]
        closure[:] = self._closures[key]  # in place: pytest's info on the function and its items hold the same list


def _requesters(definitions: Mapping[str, Sequence[pytest.FixtureDef[Any]]], names: Iterable[str]) -> set[str]:
    """The names, and those of all fixtures that need one of them, themselves or by others."""
    found = set(names)
    while more := {
        name
        for name, known in definitions.items()
        if name not in found and any(not found.isdisjoint(definition.argnames) for definition in known)
    }:
        found |= more
    return found


def closure_key(item: pytest.Function) -> Hashable | None:
    """What two tests have in common whose fixtures are looked up alike; None for a test with parameters."""
    if hasattr(item, "callspec"):
        return None
    info = item._fixtureinfo
    return item.parent, tuple(fixture_names(item)), tuple(map(id, info.name2fixturedefs.values()))


def test_argument_names(item: pytest.Function) -> tuple[str, ...]:
    """The names that the test function itself takes."""
    return item._fixtureinfo.argnames


def parameter_of(item: pytest.Function, name: str) -> Parameter | None:
    """The parameter that ``item`` gives to the fixture ``name``, if it gives one."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or name not in callspec.params:
        return None
    return Parameter(callspec.params[name], callspec.indices[name], callspec._arg2scope[name])


def definition_of(item: pytest.Function, name: str, parent: TestRequest | Request) -> pytest.FixtureDef[Any]:
    """The definition in force when ``parent`` requests ``name``.

    A fixture that requests its own name, or whose dependencies do, gets the one that it overrides.

    Raises:
        FixtureLookupError: No such fixture is visible from the item.
    """
    definitions = item._fixtureinfo.name2fixturedefs.get(name)
    if definitions is None:
        definitions = item.session._fixturemanager.getfixturedefs(name, item)
    depth = 1 + sum(1 for request in parent._iter_chain() if request.fixturename == name)
    if not definitions or depth > len(definitions):
        raise FixtureLookupError(name, parent)
    return definitions[-depth]


def all_definitions(session: pytest.Session) -> Iterator[pytest.FixtureDef[Any]]:
    """Every fixture that pytest knows, visible or not; on pytest 8, with which alone pytest-asyncio 0.x works."""
    for definitions in getattr(session._fixturemanager, "_arg2fixturedefs", {}).values():
        yield from definitions


def set_function(definition: pytest.FixtureDef[Any], function: Callable[..., Any], names: tuple[str, ...]) -> None:
    """Let a fixture call ``function`` with the fixtures ``names``."""
    changed = cast("Any", definition)
    changed.func, changed.argnames = function, names


def reached(item: pytest.Item, *, beyond: Collection[str] = ()) -> set[str]:
    """The fixtures that ``item`` requests, itself or by others, but not by those called ``beyond``."""
    info = cast("pytest.Function", item)._fixtureinfo
    found: set[str] = set()
    to_look_at = [*info.initialnames]
    while to_look_at:
        name = to_look_at.pop()
        if name not in found:
            found.add(name)
            known = () if name in beyond else info.name2fixturedefs.get(name, ())
            to_look_at += [requested for definition in known for requested in definition.argnames]
    return found


def leave_out_unless_requested(item: pytest.Item, name: str, plugin: object, *, asked_by: str) -> None:
    """Have ``item`` do without an autouse fixture of a plugin's that only gives a value; no-op if it is asked for.

    Args:
        item: The test.
        name: The fixture.
        plugin: Its module.
        asked_by: Another fixture that asks for it at run time.
    """
    closure = getattr(item, "fixturenames", [])
    if name not in closure or asked_by in closure or not isinstance(item, pytest.Function):
        return
    info = item._fixtureinfo
    definitions = info.name2fixturedefs
    own = definitions.get(name, ())
    if len(own) != 1 or own[0].func.__module__ != getattr(plugin, "__name__", None) or name in info.argnames:
        return
    if not any(name in definition.argnames for known in definitions.values() for definition in known):
        closure.remove(name)  # the info's list, too


def cut_short(items: Iterable[pytest.Item], names: Collection[str]) -> None:
    """Have the fixtures ``names`` request nothing and give None, so ``items`` don't need what only they requested."""
    cut: list[pytest.FixtureDef[Any]] = []
    for item in items:
        definitions = cast("pytest.Function", item)._fixtureinfo.name2fixturedefs
        gone = reached(item) - reached(item, beyond=names)
        closure = fixture_names(item)
        cast("list[str]", closure)[:] = [name for name in closure if name not in gone]  # the info's list, too
        cut += [definition for name in definitions.keys() & set(names) for definition in definitions[name]]
    for definition in cut:
        set_function(definition, _nothing, ())


def _nothing() -> None:
    pass


def request_for(
    item: pytest.Function,
    definition: pytest.FixtureDef[Any],
    parent: TestRequest | Request,
) -> tuple[Request, ScopeName]:
    """Make the ``request`` of one fixture, and tell the scope that its value is kept for.

    Raises:
        Failed: ``definition`` has a narrower scope than its requester (pytest's own message).
    """
    parameter = parameter_of(item, definition.argname)
    if parameter is None:
        _check_without_parameter(item, definition, parent)
        scope = definition._scope
        request = Request(parent, scope, _pytest_notset(), 0, definition, _ispytest=True)
    else:
        scope = parameter.scope
        request = Request(parent, scope, parameter.value, parameter.index, definition, _ispytest=True)
    parent._check_scope(definition, definition._scope)
    return request, scope.value


def request_like(request: Request, parent: TestRequest | Request) -> Request:
    """The ``request`` of the same fixture on behalf of another test, neither of which has parameters."""
    return Request(parent, request._scope, _pytest_notset(), 0, request._fixturedef, _ispytest=True)


def _check_without_parameter(
    item: pytest.Function, definition: pytest.FixtureDef[Any], parent: TestRequest | Request
) -> None:
    """Refuse a fixture that lacks its parameter, at the line that asked for it."""
    try:
        parent._check_fixturedef_without_param(definition)
    except pytest.fail.Exception as failed:
        frame = sys._getframe()
        while frame.f_back is not None and _is_of_the_engine(frame.f_code.co_filename):
            frame = frame.f_back
        place = Path(frame.f_code.co_filename)
        root = item.config.rootpath
        shown = place.relative_to(root) if place.is_relative_to(root) else place
        head, _, _ = str(failed.msg).partition("Requested here:")
        failed.msg = f"{head}Requested here:\n{shown}:{frame.f_lineno}"
        raise


def _is_of_the_engine(file: str) -> bool:
    return Path(file).is_relative_to(Path(__file__).parent.parent)


def is_awaited(item: pytest.Item, definition: pytest.FixtureDef[Any]) -> bool:
    """Whether a plugin of the suite's would run an async fixture for ``item``, which pytest alone refuses to do.

    Fixtures of this kit are for tests of every kind.
    """
    config = item.config
    if definition.func.__module__.startswith("asynctest_kit."):
        return True
    if _has_plugin(config, "pytest_asyncio.plugin") and (
        hasattr(definition.func, "_force_asyncio_fixture")
        or str(config.getoption("asyncio_mode", None) or config.getini("asyncio_mode")) in {"auto", "Mode.AUTO"}
    ):
        return True
    return not _has_plugin(config, "anyio.pytest_plugin") or "anyio_backend" in fixture_names(item)


def _has_plugin(config: pytest.Config, module: str) -> bool:
    return module in sys.modules and config.pluginmanager.is_registered(sys.modules[module])


def _pytest_notset() -> Any:
    from _pytest.compat import NOTSET

    return NOTSET


def scope_instance(item: pytest.Item, definition: pytest.FixtureDef[Any], scope: ScopeName) -> object:
    """The session, package, module or class for which ``scope`` means one value; the item where there is none."""
    value = Scope(scope)
    if value is Scope.Package:
        return get_scope_package(item, definition)
    return get_scope_node(item, value) or item


def check_scope(definition: pytest.FixtureDef[Any], parent: TestRequest | Request) -> None:
    """Refuse a fixture of narrower scope than its requester, with pytest's own message."""
    parent._check_scope(definition, definition._scope)


def bound_function(definition: pytest.FixtureDef[Any], request: Request) -> Callable[..., Any]:
    """The fixture's function, bound to the test's instance where it is a method."""
    if type(definition.func) is FunctionType:  # pytest binds no other than a method, and looks the instance up
        return definition.func
    return cast("Callable[..., Any]", resolve_fixture_function(definition, request))


def fixtures_defined_in(module: ModuleType) -> set[str]:
    """Names of the fixtures that a module, such as a conftest file, defines."""
    return {
        value.name if isinstance(value.name, str) else name
        for name, value in vars(module).items()
        if isinstance(value, FixtureFunctionDefinition)
    }


def before_look_ups(session: pytest.Session, look_up: Callable[[str], None]) -> None:
    """Have ``look_up`` called with each name of a fixture before pytest looks it up, in collecting and in running."""
    manager = session._fixturemanager
    get = manager.getfixturedefs

    def getfixturedefs(argname: str, node: Any) -> Any:
        look_up(argname)
        return get(argname, node)

    manager.getfixturedefs = getfixturedefs  # type: ignore[method-assign]
