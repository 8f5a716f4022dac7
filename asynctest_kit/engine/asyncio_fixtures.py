"""Async fixtures as their authors wrote them, where pytest-asyncio has replaced them.

Up to 0.26 it puts a sync wrapper in the place of every async fixture's function while pytest collects. The wrapper
runs the function on a loop that the fixture ``event_loop`` gives, or a fixture ``...<event_loop>`` of a wider scope.
Here every fixture runs on the one loop of the run, so the functions are put back, and a fixture that gives a loop
gives ours. For a test that starts its own loop through pytest-asyncio, the wrappers are put in again while it runs.

From 1.0 on it wraps a function only while pytest sets the fixture up, and there is nothing to do.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from asynctest_kit.engine import collection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["put_back", "replaced"]

_Function = tuple["Callable[..., Any]", tuple[str, ...]]
_REPLACED = pytest.StashKey[dict[pytest.FixtureDef[Any], _Function]]()
_PLUGIN = "pytest_asyncio.plugin"
_LOOPS = ("event_loop", "_session_event_loop")


def put_back(session: pytest.Session) -> None:
    """Put the functions of async fixtures back, for the whole run."""
    kept = session.stash.setdefault(_REPLACED, {})
    if not hasattr(sys.modules.get(_PLUGIN), "event_loop"):
        return
    for definition in collection.all_definitions(session):
        written = _as_written(definition)
        if written is not None:
            kept[definition] = (definition.func, tuple(definition.argnames))
            collection.set_function(definition, *written)


@contextmanager
def replaced(session: pytest.Session) -> Iterator[None]:
    """Let pytest-asyncio have its way as long as the block runs."""
    ours = {definition: (definition.func, definition.argnames) for definition in session.stash[_REPLACED]}
    for definition, theirs in session.stash[_REPLACED].items():
        collection.set_function(definition, *theirs)
    try:
        yield
    finally:
        for definition, (function, names) in ours.items():
            collection.set_function(definition, function, tuple(names))


def _as_written(definition: pytest.FixtureDef[Any]) -> _Function | None:
    if definition.argname in _LOOPS or definition.argname.endswith("<event_loop>"):
        return _loop_of_the_run, ()
    function = definition.func
    written = getattr(function, "__wrapped__", None)
    if written is None or function.__code__.co_filename != sys.modules[_PLUGIN].__file__:
        return None
    bound = inspect.ismethod(written)
    names = inspect.signature(written).parameters
    return written, tuple(names) if bound or not _is_method(definition, names) else tuple(names)[1:]


def _is_method(definition: pytest.FixtureDef[Any], names: Any) -> bool:
    # pytest has left out the instance, and pytest-asyncio has added names at the end.
    return next(iter(names), None) not in {None, *definition.argnames}


async def _loop_of_the_run() -> asyncio.AbstractEventLoop:
    loop = asyncio.get_running_loop()
    setattr(loop, "__pytest_asyncio", True)  # by which pytest-asyncio knows a loop not to be closed
    return loop


_loop_of_the_run._force_asyncio_fixture = True  # type: ignore[attr-defined]  # noqa: SLF001  # its mark in strict mode
