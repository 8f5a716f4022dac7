"""The states of a provider: what its consumers give, and what the test does to bring each about.

A handler is called with the state's parameters by name. It is

- an async function (or a plain one), which brings the state about, or
- an async generator (or a plain one), or a function that returns an async context manager: what comes after the
  ``yield`` takes the state away again, when the interaction is over.

What it returns or yields, if that is a mapping, the consumer's ``provider state`` generators get.

Handlers run one after the other in one task, that of the test, with its context and its leases. All states of an
interaction are taken away at once, the last first.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from asynctest_kit.contracts.errors import PactError
from asynctest_kit.http.own_frames import place_defined

__all__ = ["StateHandler", "States", "check_handlers", "place_of"]

StateHandler = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class _Asked:
    state: str
    action: str
    parameters: Mapping[str, Any]
    answer: asyncio.Future[Mapping[str, Any]]


class States:
    """Brings states about in the task that calls :meth:`work`.

    Args:
        handlers: By the names of states; ``""`` is asked for where an interaction is given none.
    """

    def __init__(self, handlers: Mapping[str, StateHandler]) -> None:
        self._handlers = handlers
        self._asked: asyncio.Queue[_Asked | None] = asyncio.Queue()

    async def ask(self, state: str, action: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have a state brought about (``setup``), or all of them taken away (``teardown``).

        Raises:
            PactError: Nobody knows how.
            Exception: What the handler raised.
        """
        asked = _Asked(state, action, parameters, asyncio.get_running_loop().create_future())
        self._asked.put_nowait(asked)
        return await asked.answer

    def end(self) -> None:
        """Nobody asks any more."""
        self._asked.put_nowait(None)

    async def work(self) -> None:
        """Do what is asked until the end; what is left then is taken away."""
        async with AsyncExitStack() as left:
            while (asked := await self._asked.get()) is not None:
                try:
                    answer = await self._do(asked, left)
                except Exception as error:  # noqa: BLE001  # who asked is told
                    if not asked.answer.done():
                        asked.answer.set_exception(error)
                else:
                    if not asked.answer.done():
                        asked.answer.set_result(answer)

    async def _do(self, asked: _Asked, left: AsyncExitStack) -> Mapping[str, Any]:
        if asked.action == "teardown":
            await left.aclose()
            return {}
        handler = self._handlers.get(asked.state)
        if handler is None:
            if not asked.state:
                return {}
            known = ", ".join(map(repr, sorted(filter(None, self._handlers)))) or "none"
            raise PactError(
                f"Nobody brings about the state {asked.state!r}. Give an async function for it: "
                f"states={{{asked.state!r}: ...}}. Known: {known}."
            )
        found = handler(**asked.parameters)
        if inspect.isgenerator(found):
            return _values(left.enter_context(contextmanager(lambda: found)()))
        if inspect.isasyncgen(found):
            found = asynccontextmanager(lambda: found)()
        if hasattr(found, "__aenter__"):
            found = await left.enter_async_context(found)
        elif isinstance(found, Awaitable):
            found = await found
        return _values(found)


def check_handlers(argument: str, handlers: object) -> None:
    """Refuse handlers that can't be called, before anything is asked for.

    Args:
        argument: What they were given as: ``states`` or ``messages``.
        handlers: By the names of states, or messages' descriptions.

    Raises:
        PactError: One can't.
    """
    if not isinstance(handlers, Mapping):
        raise PactError(f"{argument}={handlers!r}: give a dict, of a function for each name.")
    for name, handler in handlers.items():
        if not isinstance(name, str):
            raise PactError(f"{argument}={{{name!r}: ...}}: the name is no text.")
        if callable(handler):
            continue
        if inspect.iscoroutine(handler):
            handler.close()
        is_called = inspect.iscoroutine(handler) or inspect.isasyncgen(handler) or inspect.isgenerator(handler)
        how = "give the function itself, which was called" if is_called else "give an async function"
        raise PactError(f"{argument}={{{name!r}: {handler!r}}}: what can't be called does nothing; {how}.")


def place_of(handler: object) -> str:
    """Where a handler is defined, as ``file:line``; empty if nobody knows."""
    while isinstance(handler, partial):
        handler = handler.func
    if not inspect.isroutine(handler):
        handler = getattr(type(handler), "__call__", handler)  # noqa: B004  # it is callable
    code = getattr(inspect.unwrap(handler), "__code__", None)  # type: ignore[arg-type]
    return place_defined(code) if code is not None else ""


def _values(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}
