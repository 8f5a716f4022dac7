"""respx's mocks, each for the test that opened it.

respx patches the transports of the whole process and asks every open router about every request; ``respx.mock`` is one
router for all. So of tests beside each other each would get the answers of others. Here the transports stay patched
from the first router on, and whose routers are asked is told by a context variable, which child tasks, jobs and
threads of a test inherit. A router that tests share, such as ``respx.mock`` or that of ``@respx.mock(...)``, has its
routes and calls once for each test. What no router concerns goes to the real transport as if nothing were patched.

What can't be divided runs alone, as by the guard: routers opened by a fixture of a module or class, and routes that
were made outside of any test. A router of a session fixture is for everybody, as under pytest.

A request made by a shared fixture, by a server that it runs, say, belongs to no test. If it is one that mocks of tests
beside each other would answer, nobody can tell which: it gets no connection, and these tests run again alone.
"""

from __future__ import annotations

import functools
import pkgutil
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock
from weakref import WeakKeyDictionary, ref

from asynctest_kit.engine.guard import Ward, guarded_by, stop_if_guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["OwnMocks"]

#: In a router's namespace: whether one test made it, and what each test that shares it has instead of its state.
_OF_ONE_TEST = "_asynctest_kit_of_one_test"
_STATES = "_asynctest_kit_states"

#: In a route's: the test that made it.
_MADE_BY = "_asynctest_kit_made_by"

_LOCK = threading.RLock()


class OwnMocks:
    """Divides respx's state while it is installed, from when respx is loaded."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    @contextmanager
    def installed(self) -> Iterator[OwnMocks]:
        """Divide as long as the block runs."""
        self.look_again()
        try:
            yield self
        finally:
            while self._undo:
                self._undo.pop()()

    def look_again(self) -> None:
        """Divide, if respx has been loaded since."""
        respx: Any = sys.modules.get("respx")
        if not self._undo and hasattr(respx, "options"):  # its last name: it is loaded to the end
            self._divide(respx)

    def _divide(self, respx: Any) -> None:
        from respx.mocks import Mocker
        from respx.models import CallList, RouteList

        for mocker in Mocker.registry.values():
            self._divide_mocker(mocker)
        self._set(Mocker, "start", classmethod(_start))
        self._set(Mocker, "handler", classmethod(_asked(Mocker.handler)))
        self._set(Mocker, "async_handler", classmethod(_asked(Mocker.async_handler)))
        self._set(respx.Router, "__init__", _making_router(respx.Router.__init__))
        self._set(respx.Router, "add", _adding(respx.Router.add))
        self._set(respx.Route, "__init__", _making_route(respx.Route.__init__))
        self._set(respx.MockRouter, "start", self._starting(respx.MockRouter.start))
        for name in ("routes", "calls", "_snapshots", "Mocker"):
            self._set(respx.MockRouter, name, _Divided(name))
        self._divide_list(respx.mock, "routes", RouteList)
        self._divide_list(respx.mock, "calls", CallList)

    def _set(self, owner: Any, name: str, value: object) -> None:
        there = name in vars(owner)
        before = vars(owner).get(name)
        self._undo.append(lambda: setattr(owner, name, before) if there else delattr(owner, name))
        setattr(owner, name, value)

    def _divide_mocker(self, mocker: Any) -> None:
        """Have one that patches transports ask the routers of the present test."""
        is_patched = bool(mocker._patches)  # noqa: SLF001  # respx has no other name for it
        if is_patched:
            mocker.stop(force=True)
        routers = _Routers(mocker.routers if is_patched else ())
        self._set(mocker, "routers", routers)
        self._undo.append(lambda: mocker.stop(force=True))
        if is_patched:
            _start(mocker)

    def _starting(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        from respx.mocks import Mocker

        @functools.wraps(original)
        def start(router: Any) -> None:
            __tracebackhide__ = True
            ward = guarded_by.get()
            if ward is not None and ward.is_shared:
                stop_if_guarded("respx")
            mocker: Any = Mocker.registry.get(router.using or "")
            if mocker is not None and not isinstance(mocker.routers, _Routers):
                self._divide_mocker(mocker)
            original(router)

        return start

    def _divide_list(self, router: Any, name: str, kind: Any) -> None:
        """``respx.calls`` and ``respx.routes`` are those of ``respx.mock``, by names that tests import."""
        shared = vars(router)[name]
        exchange = vars(object)["__class__"].__set__  # a CallList is a Mock, which tells another class than it has
        self._undo.append(lambda: exchange(shared, kind))
        exchange(shared, _present_list(kind, router, name))


class _Divided:
    """An attribute of a router: its own, or what the present test has instead."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, router: Any, owner: object = None) -> Any:
        if router is None:
            return self
        try:
            plain = router.__dict__
            return (plain if plain.get(_OF_ONE_TEST) else _state(router))[self._name]
        except KeyError:
            raise AttributeError(self._name) from None

    def __set__(self, router: Any, value: object) -> None:
        _state(router)[self._name] = value


def _state(router: Any) -> dict[str, Any]:
    """Routes, calls and snapshots of ``router`` for who runs in the present context."""
    __tracebackhide__ = True
    plain: dict[str, Any] = vars(router)
    ward = _test()
    if ward is None or plain.get(_OF_ONE_TEST) or _is_open_for_everybody(router, plain):
        return plain
    states: WeakKeyDictionary[Ward, dict[str, Any]] = plain.setdefault(_STATES, WeakKeyDictionary())
    own = states.get(ward)
    if own is None:
        if vars(plain["routes"])["_routes"]:  # respx.routes itself tells those of the present test
            stop_if_guarded("a route of respx that other tests have, too,")
        from respx.models import CallList, RouteList

        snapshots = [(RouteList(), CallList())]
        own = {"routes": RouteList(), "calls": CallList(), "_snapshots": snapshots, "Mocker": None}
        states[ward] = own
    return own


def _is_open_for_everybody(router: Any, plain: dict[str, Any]) -> bool:
    mocker = plain.get("Mocker")
    return mocker is not None and any(one is router for one in getattr(mocker.routers, "everybodys", ()))


def _test() -> Ward | None:
    """The test beside others that runs in the present context."""
    ward = guarded_by.get()
    return None if ward is None or ward.is_shared else ward


class _Routers:
    """The open routers, as a list of those that the present context is concerned with."""

    def __init__(self, everybodys: Any) -> None:
        self.everybodys = list(everybodys)
        self._of_tests: WeakKeyDictionary[Ward, list[Any]] = WeakKeyDictionary()

    def __iter__(self) -> Iterator[Any]:
        return iter([*self.everybodys, *self.of_present()])

    def __contains__(self, router: object) -> bool:
        return any(one is router for one in self)

    def __bool__(self) -> bool:
        """What respx asks before it lets transports go: they stay patched to the end of the run."""
        return True

    def append(self, router: Any) -> None:
        ward = _test()
        (self.everybodys if ward is None else self._of_tests.setdefault(ward, [])).append(router)

    def remove(self, router: Any) -> None:
        ward = _test()
        routers = self.everybodys if ward is None else self._of_tests.get(ward, [])
        (routers if any(one is router for one in routers) else self.everybodys).remove(router)

    def of_present(self) -> Sequence[Any]:
        """Those of the test that runs in the present context."""
        ward = _test()
        return () if ward is None else self._of_tests.get(ward, ())

    def concern_present(self) -> bool:
        """Whether a request made in the present context may be anybody's."""
        if self.everybodys or self.of_present():
            return True
        return _test() is None and any(self._of_tests.copy().values())

    def check(self, request: Any) -> None:
        """Let nobody's request get no answer that one of several tests gave for its own.

        Raises:
            httpx.ConnectError: It is such a one; the tests run again alone.
        """
        if _test() is not None:
            return
        wards = [ward for ward, routers in self._of_tests.copy().items() if _would_answer(ward, routers, request)]
        if not wards:
            return
        import httpx

        what = f"{request.method} {request.url.copy_with(query=None, userinfo=b'')}"
        for ward in wards:
            ward.touched = ward.touched or f"a mock for {what}, which a shared fixture's code called"
        message = f"{what} was called by a shared fixture's code, and mocked by tests that run beside each other"
        raise httpx.ConnectError(message, request=request)


def _would_answer(ward: Ward, routers: list[Any], request: Any) -> bool:
    states = [vars(router).get(_STATES, {}).get(ward, vars(router)) for router in routers]
    routes = [route for state in states for route in state["routes"] if not route.is_pass_through]
    return any(bool(route.pattern.match(request)) for route in routes)


def _start(mocker: Any) -> None:
    """Patch the transports, as :meth:`respx.mocks.Mocker.start`, for those whom an open router concerns."""
    with _LOCK:
        if mocker._patches:  # noqa: SLF001
            return
        token = guarded_by.set(None)
        try:
            for target in mocker.targets:
                for method in mocker.target_methods:
                    original = getattr(pkgutil.resolve_name(target), method, None)
                    if original is not None:
                        patch: Any = mock.patch(f"{target}.{method}", new=_routed(mocker, original))
                        patch.start()
                        mocker._patches.append(patch)  # noqa: SLF001
        finally:
            guarded_by.reset(token)


def _routed(mocker: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    mocked = mocker.mock(original)

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        routers = mocker.routers
        concerned = not isinstance(routers, _Routers) or routers.concern_present()
        return (mocked if concerned else original)(*args, **kwargs)

    return call


def _asked(original: Any) -> Callable[..., Any]:
    from respx.models import PassThrough

    answer = original.__func__

    @functools.wraps(answer)
    def handle(mocker: Any, request: Any) -> Any:
        routers = mocker.routers
        if isinstance(routers, _Routers) and not routers.of_present():
            routers.check(request)
            if not routers.everybodys:
                raise PassThrough("no router concerns it", request=request, origin=None)  # type: ignore[arg-type]
        return answer(mocker, request)

    return handle


def _making_router(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def init(router: Any, *args: Any, **kwargs: Any) -> None:
        vars(router)[_OF_ONE_TEST] = _test() is not None
        original(router, *args, **kwargs)

    return init


def _making_route(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def init(route: Any, *args: Any, **kwargs: Any) -> None:
        ward = guarded_by.get()
        vars(route)[_MADE_BY] = None if ward is None else ref(ward)
        original(route, *args, **kwargs)

    return init


def _adding(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def add(router: Any, route: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        made_by = vars(route).get(_MADE_BY)
        if (made_by and made_by()) is not guarded_by.get():
            stop_if_guarded("a route of respx that other tests have, too,")
        return original(router, route, **kwargs)

    return add


def _present_list(kind: Any, router: Any, name: str) -> type:
    """A class whose instance stands for a router's list of the present test."""

    def present(shared: Any) -> Any:
        own = _state(router)[name]
        return shared if own is shared else own

    def delegating(method: str) -> Callable[..., Any]:
        original = getattr(kind, method)

        @functools.wraps(original)
        def call(shared: Any, *args: Any, **kwargs: Any) -> Any:
            return original(present(shared), *args, **kwargs)

        return call

    methods = [method for method in _LIST_METHODS if hasattr(kind, method)]
    return type(kind.__name__, (kind,), {method: delegating(method) for method in methods})


_LIST_METHODS = (
    "__bool__", "__contains__", "__eq__", "__getitem__", "__iter__", "__len__", "__ne__", "__repr__", "__reversed__",
    "__setitem__", "add", "append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse",
    "sort",
)  # fmt: skip
