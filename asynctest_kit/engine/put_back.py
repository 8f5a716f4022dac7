"""Fixtures that only put back what a test may have changed.

``yield`` and then ``Registry.tasks = {}``: such an autouse fixture changes nothing as long as no test does. Judged by
its code alone it would make a whole suite run one by one. So beside others it is let through, and watched: where what
it puts back is what is there already, nothing has happened, and the very object that was there stays; where it is not,
the test has changed process-global state, and runs again alone. A dictionary, list or set that such a fixture puts
back is guarded meanwhile, so that most tests are stopped before they change it.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asynctest_kit.engine.code_reading import put_back_by
from asynctest_kit.engine.guard import stop_if_guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from asynctest_kit.engine.guard import Ward

__all__ = ["Target", "guarded", "targets_of", "watched"]


_ABSENT: Final = object()


@dataclass(frozen=True)
class Target:
    """An attribute of something global.

    Attributes:
        owner: The module, class or object.
        name: The attribute.
        path: How the code names it.
    """

    owner: Any
    name: str
    path: str

    def __hash__(self) -> int:
        return hash((id(self.owner), self.name))


@functools.cache
def targets_of(function: Callable[..., Any]) -> tuple[Target, ...]:
    """What a fixture's function puts back after its ``yield``; nothing if it does anything else to global state."""
    found = []
    for path in put_back_by(function):
        owner: Any = function.__globals__.get(path[0])
        for part in path[1:-1]:
            owner = getattr(owner, part, None)
        if owner is None:
            return ()
        found.append(Target(owner, path[-1], ".".join(path)))
    return tuple(found)


def watched(leave: Callable[[], object], targets: tuple[Target, ...], ward: Ward) -> Callable[[], None]:
    """Wrap what follows a fixture's ``yield``: tell the ward of a change, and undo what was none."""

    def leave_watched() -> None:
        __tracebackhide__ = True
        before = [getattr(target.owner, target.name, _ABSENT) for target in targets]
        leave()
        for target, value in zip(targets, before, strict=True):
            if value is _ABSENT:
                continue  # under pytest too it is there from the end of the first test on
            if _is_same(value, getattr(target.owner, target.name)):
                setattr(target.owner, target.name, value)
            else:
                ward.touched = ward.touched or f"{target.path}, which a fixture had to put back"

    return leave_watched


def _is_same(one: object, other: object) -> bool:
    return one is other or (type(other) in {*_GUARDED, bool, bytes, float, int, str, tuple} and one == other)


@contextmanager
def guarded(targets: Iterable[Target]) -> Iterator[None]:
    """Stop who is guarded from changing the containers among ``targets``, while the block runs."""
    originals = {target: getattr(target.owner, target.name, _ABSENT) for target in targets}
    copies: dict[Target, object] = {
        target: _GUARDED[type(value)](value) for target, value in originals.items() if type(value) in _GUARDED
    }
    for target, copy in copies.items():
        copy.path = target.path  # type: ignore[attr-defined]  # each has it
        setattr(target.owner, target.name, copy)
    try:
        yield
    finally:
        for target, copy in copies.items():
            if getattr(target.owner, target.name) is copy:
                setattr(target.owner, target.name, originals[target])


def _guard_methods(names: str) -> Callable[[type], type]:
    def decorate(kind: type) -> type:
        for name in names.split():
            original = getattr(kind, name)

            def method(self: Any, *args: Any, _original: Any = original, **kwargs: Any) -> Any:
                __tracebackhide__ = True
                stop_if_guarded(self.path)
                return _original(self, *args, **kwargs)

            setattr(kind, name, method)
        return kind

    return decorate


@_guard_methods("__setitem__ __delitem__ __ior__ clear pop popitem setdefault update")
class _Dict(dict[Any, Any]):
    path = ""


@_guard_methods("__setitem__ __delitem__ __iadd__ __imul__ append clear extend insert pop remove reverse sort")
class _List(list[Any]):
    path = ""


@_guard_methods(
    "__ior__ __iand__ __isub__ __ixor__ add clear difference_update discard intersection_update pop remove "
    "symmetric_difference_update update"
)
class _Set(set[Any]):
    path = ""


_GUARDED: Final[dict[type, Any]] = {dict: _Dict, list: _List, set: _Set}
