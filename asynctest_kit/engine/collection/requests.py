"""``request``, as the engine answers it instead of pytest, and the parameter of a fixture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from _pytest.fixtures import SubRequest, TopRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from _pytest.scope import Scope

__all__ = [
    "Owner",
    "Parameter",
    "Request",
    "ScopeName",
    "TestRequest",
    "parent_of",
]

ScopeName = Literal["session", "package", "module", "class", "function"]


class Owner(Protocol):
    """What a request needs from whoever sets its fixture up."""

    def add_finalizer(self, finalizer: Callable[[], object]) -> None:
        """Run ``finalizer`` when the fixture is torn down."""

    def dynamic_value(self, name: str, request: Any) -> object:
        """Give the value of a fixture asked for while running."""


class _EngineRequest:
    """The part of ``request`` that the engine answers instead of pytest."""

    owner: Owner

    def getfixturevalue(self, argname: str) -> Any:
        """Give the value of ``argname``, setting it up if it can be set up from running code."""
        return self.owner.dynamic_value(argname, self)

    def addfinalizer(self, finalizer: Callable[[], object]) -> None:
        """Run ``finalizer`` when the fixture (or the test) is torn down."""
        self.owner.add_finalizer(finalizer)


class Request(_EngineRequest, SubRequest):  # type: ignore[misc]  # final in name; a request has no other constructor
    """The ``request`` of a fixture that the engine sets up."""


class TestRequest(_EngineRequest, TopRequest):  # type: ignore[misc]  # final in name; a request has no other constructor
    """The ``request`` of a test that the engine runs."""

    __test__ = False


# Messages of Python's name them, and are to read as pytest's.
Request.__name__, Request.__qualname__ = SubRequest.__name__, SubRequest.__qualname__


TestRequest.__name__, TestRequest.__qualname__ = TopRequest.__name__, TopRequest.__qualname__


for _method in (_EngineRequest.getfixturevalue, _EngineRequest.addfinalizer):
    _method.__qualname__ = f"FixtureRequest.{_method.__name__}"


class Parameter:
    """A fixture's parameter for one item: its value, its index and the scope it is cached for."""

    __slots__ = ("index", "scope", "value")

    def __init__(self, value: object, index: int, scope: Scope) -> None:
        self.value = value
        self.index = index
        self.scope = scope

    def key(self) -> Hashable:
        """What makes two parameters one: equality where it can be told, else identity."""
        return _ParameterKey(self.value)


class _ParameterKey:
    """A parameter's value as a dictionary's key, whatever its own ``__hash__`` and ``__eq__`` do."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __hash__(self) -> int:
        try:
            return hash((type(self._value), self._value))
        except Exception:  # noqa: BLE001  # the user's code; identity is what is left
            return id(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _ParameterKey) or type(self._value) is not type(other._value):
            return False
        try:
            return self._value is other._value or bool(self._value == other._value)
        except Exception:  # noqa: BLE001  # as above
            return False


def parent_of(request: Any) -> TestRequest | Request:
    """The request that made pytest's ``request``: it serves to look fixtures up as ours do."""
    return cast("Request", request._parent_request)
