"""From pytest's items to what must be set up for each: a graph of fixtures shared by scope instance and parameter.

A fixture of a wider scope than one test is one :class:`SharedFixture` for each (definition, scope instance,
parameters): every test that needs the same one holds the same object. A fixture of one test is a
:class:`LocalFixture` of that test's :class:`Case`. The graph is built once, before the loop runs, so the number of
users of every shared fixture is known from the start.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from asynctest_kit.engine import collection
from asynctest_kit.engine.asyncio_fixtures import put_back

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from asynctest_kit.engine.collection import Owner, Request, ScopeName, TestRequest

__all__ = ["Case", "Graph", "LocalFixture", "Resolver", "SharedFixture", "Source", "build", "is_async"]

#: Scopes from widest to narrowest, as pytest orders them.
_SHARED_SCOPES = ("session", "package", "module", "class")


@dataclass(eq=False, slots=True)
class SharedFixture:
    """One value that several tests share.

    Attributes:
        id: Names it in events: the fixture's name, what it is shared by, its parameter.
        definition: pytest's definition.
        scope: ``session``, ``package``, ``module`` or ``class``.
        request: Its ``request``, on behalf of the first test that needs it.
        arguments: What its function takes, by name.
        needs: The shared fixtures that must be up before it; all of them, not only the direct ones.
        users: How many tests need it, directly or not.
        parameters: What tells it apart from its siblings with other parameters.
        resolver: Finds what it asks for while running, as the first test that needs it would.
    """

    id: str
    definition: pytest.FixtureDef[Any]
    scope: ScopeName
    request: Request
    arguments: dict[str, Source]
    needs: tuple[SharedFixture, ...]
    parameters: frozenset[Hashable]
    resolver: Resolver
    users: int = 0

    @property
    def name(self) -> str:
        """The name by which tests request it."""
        return self.definition.argname


@dataclass(eq=False, slots=True)
class LocalFixture:
    """A fixture that belongs to one test: set up and torn down in the test's own task."""

    definition: pytest.FixtureDef[Any]
    request: Request
    arguments: dict[str, Source]
    needs: tuple[SharedFixture, ...]
    parameters: frozenset[Hashable]

    @property
    def name(self) -> str:
        """The name by which the test requests it."""
        return self.definition.argname


Source = SharedFixture | LocalFixture


@dataclass(eq=False, slots=True)
class Case:
    """One test, with all that must be set up for it.

    Attributes:
        item: pytest's item.
        index: Its place in pytest's order.
        shared: Shared fixtures that it needs, dependencies first.
        local: Its own fixtures in the order of set-up.
        by_name: The fixture in force for each requested name.
        error: Why its fixtures can't be resolved (a lookup error or a scope mismatch), or None.
        resolver: Finds what is asked for while running; None for what isn't a Python function.
    """

    item: pytest.Item
    index: int
    shared: tuple[SharedFixture, ...] = ()
    local: tuple[LocalFixture, ...] = ()
    by_name: dict[str, Source] = field(default_factory=dict)
    error: BaseException | None = None
    resolver: Resolver | None = None

    @property
    def request(self) -> TestRequest | None:
        """The test's own ``request``; None for what isn't a Python function."""
        return None if self.resolver is None else self.resolver.request

    @property
    def nodeid(self) -> str:
        """Pytest's node id."""
        return self.item.nodeid

    @property
    def sources(self) -> Iterator[Source]:
        """Every fixture of the case."""
        yield from self.shared
        yield from self.local


@dataclass(frozen=True, slots=True)
class Graph:
    """All cases of a run and the fixtures that they share."""

    cases: tuple[Case, ...]
    shared: tuple[SharedFixture, ...]


def build(items: Iterable[pytest.Item]) -> Graph:
    """Resolve the fixtures of every item. An item that can't be resolved carries its error; nothing is raised."""
    items = list(items)
    if items:
        put_back(items[0].session)
    interned: dict[Hashable, SharedFixture] = {}
    known: dict[Hashable, Resolver] = {}
    cases = tuple(_case(item, index, interned, known) for index, item in enumerate(items))
    for case in cases:
        for shared in case.shared:
            shared.users += 1
    return Graph(cases, tuple(shared for shared in interned.values() if shared.users))


def _case(
    item: pytest.Item, index: int, interned: dict[Hashable, SharedFixture], known: dict[Hashable, Resolver]
) -> Case:
    if not collection.has_fixtures(item):
        return Case(item, index)
    function = cast("pytest.Function", item)
    resolver = Resolver(function, index, interned)
    key = collection.closure_key(function)
    model = None if key is None else known.get(key)
    if model is not None:
        return resolver.case_like(model)
    case = resolver.case()
    if key is not None and case.error is None and resolver.has_only_own_requests:
        known[key] = resolver
    return case


class Resolver:
    """Finds the fixtures of one item: those in its closure at once, those asked for while running later."""

    __slots__ = ("_owner", "_request", "found", "index", "interned", "item", "local", "resolved")

    def __init__(self, item: pytest.Function, index: int, interned: dict[Hashable, SharedFixture]) -> None:
        self.item = item
        self.index = index
        self.interned = interned
        self._request: TestRequest | None = None
        self._owner: Owner | None = None
        self.found: Case
        self.local: list[LocalFixture] = []
        self.resolved: dict[pytest.FixtureDef[Any], Source] = {}

    @property
    def request(self) -> TestRequest:
        """The test's own ``request``."""
        if self._request is None:
            self._request = collection.TestRequest(self.item, _ispytest=True)
            if self._owner is not None:
                self._request.owner = self._owner
        return self._request

    def serve(self, owner: Owner) -> None:
        """Have the test's ``request`` answered by ``owner``; it is made when somebody asks for it."""
        self._owner = owner
        if self._request is not None:
            self._request.owner = owner

    def over(self) -> None:
        """Nobody answers a ``request`` that is made from now on."""
        self._owner = None

    @property
    def has_only_own_requests(self) -> bool:
        """Whether all its local fixtures were asked for by the test itself, or by another of them."""
        own: set[object] = {self.request, *(local.request for local in self.local)} if self.local else set()
        return all(collection.parent_of(local.request) in own for local in self.local)

    def case_like(self, model: Resolver) -> Case:
        """The item's case, if its fixtures are those of the item of ``model``: the same, or for local ones twins."""
        case = model.found
        if not case.local:
            self.resolved = dict(model.resolved)
            self.found = Case(self.item, self.index, case.shared, by_name=case.by_name, resolver=self)
            return self.found
        requests: dict[object, TestRequest | Request] = {model.request: self.request}
        twins: dict[LocalFixture, LocalFixture] = {}

        def request_like(request: Request) -> TestRequest | Request:
            twin = requests.get(request)
            if twin is None:
                twin = requests[request] = collection.request_like(
                    request, request_like(cast("Request", collection.parent_of(request)))
                )
            return twin

        def like(source: Source) -> Source:
            return source if isinstance(source, SharedFixture) else twins[source]

        for local in case.local:  # what one needs comes before it
            arguments = {name: like(source) for name, source in local.arguments.items()}
            request = cast("Request", request_like(local.request))
            twins[local] = LocalFixture(local.definition, request, arguments, local.needs, local.parameters)
        self.local = list(twins.values())
        self.resolved = {definition: like(source) for definition, source in model.resolved.items()}
        by_name = {name: like(source) for name, source in case.by_name.items()}
        self.found = Case(self.item, self.index, case.shared, tuple(self.local), by_name, resolver=self)
        return self.found

    def case(self) -> Case:
        """The item's case, with its whole closure resolved."""
        self.found = self._resolve()
        return self.found

    def _resolve(self) -> Case:
        by_name: dict[str, Source] = {}
        error: BaseException | None = None
        try:
            for name in collection.fixture_names(self.item):
                if name != "request":
                    by_name[name] = self.source(name, self.request)
        except (LookupError, pytest.fail.Exception) as caught:
            error = caught
        if error is not None:
            return Case(self.item, self.index, error=error, resolver=self)
        needed: dict[SharedFixture, None] = {}
        for source in self.resolved.values():
            _add_with_needs(needed, source)
        return Case(self.item, self.index, tuple(needed), tuple(self.local), by_name, resolver=self)

    def source(self, name: str, parent: TestRequest | Request) -> Source:
        """The fixture in force when ``parent`` requests ``name``.

        Raises:
            FixtureLookupError: There is none.
            Failed: Its scope is narrower than its requester's, or it lacks a parameter.
        """
        definition = collection.definition_of(self.item, name, parent)
        known = self.resolved.get(definition)
        if known is not None:
            collection.check_scope(definition, parent)
            return known
        request, scope = collection.request_for(self.item, definition, parent)
        arguments = {
            argument: self.source(argument, request) for argument in definition.argnames if argument != "request"
        }
        source = self._node(definition, request, scope, arguments)
        self.resolved[definition] = source
        return source

    def _node(
        self,
        definition: pytest.FixtureDef[Any],
        request: Request,
        scope: ScopeName,
        arguments: dict[str, Source],
    ) -> Source:
        needed: dict[SharedFixture, None] = {}
        for argument in arguments.values():
            _add_with_needs(needed, argument)
        parameters = self._parameters(definition, arguments)
        instance = collection.scope_instance(self.item, definition, scope)
        # A wide fixture over a parameter that changes with every test is one value a test, as in pytest.
        per_test = instance is self.item or any(isinstance(source, LocalFixture) for source in arguments.values())
        if scope not in _SHARED_SCOPES or per_test:
            local = LocalFixture(definition, request, arguments, tuple(needed), parameters)
            self.local.append(local)
            return local
        key = self._key(definition, instance, parameters)
        if key not in self.interned:
            self.interned[key] = SharedFixture(
                _identifier(definition, scope, instance, request),
                definition,
                scope,
                request,
                arguments,
                tuple(needed),
                parameters,
                self,
            )
        return self.interned[key]

    def _key(
        self, definition: pytest.FixtureDef[Any], instance: object, parameters: frozenset[Hashable]
    ) -> tuple[Hashable, ...]:
        """What makes a fixture one; a class inside another has the one that the outer class has asked for before."""
        if isinstance(instance, pytest.Class):
            for outer in instance.listchain():
                if isinstance(outer, pytest.Class) and (definition, outer, parameters) in self.interned:
                    return definition, outer, parameters
        return definition, instance, parameters

    def _parameters(self, definition: pytest.FixtureDef[Any], arguments: dict[str, Source]) -> frozenset[Hashable]:
        found: set[Hashable] = set()
        parameter = collection.parameter_of(self.item, definition.argname)
        if parameter is not None:
            found.add((definition.argname, parameter.key()))
        for argument in arguments.values():
            found |= argument.parameters
        return frozenset(found)


def _add_with_needs(needed: dict[SharedFixture, None], source: Source) -> None:
    for shared in source.needs:
        needed[shared] = None
    if isinstance(source, SharedFixture):
        needed[source] = None


def _identifier(
    definition: pytest.FixtureDef[Any],
    scope: ScopeName,
    instance: object,
    request: Request,
) -> str:
    parameter = f"[{request.param_index}]" if hasattr(request, "param") else ""
    where = "" if scope == "session" else f" ({getattr(instance, 'nodeid', '') or scope})"
    return f"{definition.argname}{parameter}{where}"


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether a fixture's function is a coroutine function or an async generator function."""
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
