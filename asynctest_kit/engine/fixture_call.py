"""Calling a fixture's function: up to its value, and after its ``yield`` when it ends.

What a fixture (or the set of fixtures of one test) must do at its end is kept in :class:`Finalizers`, which run last
in, first out, each of them whatever the others raise. Sync functions see no running loop, so that they may start one.
Who owns a fixture, and when it is set up and ended, is told in :mod:`asynctest_kit.engine.lifetimes`.
"""

from __future__ import annotations

import asyncio
import inspect
import textwrap
from asyncio import events
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from asynctest_kit.engine import collection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator

    from asynctest_kit.engine.collection import Request

__all__ = ["Finalizers", "no_running_loop", "not_from_running_code", "set_up", "set_up_sync"]


class Finalizers:
    """What must run when a fixture, or a test's set of fixtures, ends: last in, first out."""

    def __init__(self) -> None:
        self._pending: list[Callable[[], object]] = []
        self._generator: AsyncGenerator[Any, None] | None = None

    def add_generator(self, generator: AsyncGenerator[Any, None], leave: Callable[[], object]) -> None:
        """Run ``leave`` at the end, unless :meth:`interrupt` ends ``generator`` before."""
        self._generator = generator
        self.add(leave)

    def add(self, finalizer: Callable[[], object]) -> None:
        """Run ``finalizer`` at the end; if it gives an awaitable, that is awaited."""
        self._pending.append(finalizer)

    async def run(self, title: str) -> None:
        """Run all, in this task.

        Raises:
            BaseException: The one that failed, or a group named ``title`` of all that did.
        """
        __tracebackhide__ = True
        errors: list[BaseException] = []
        while self._pending:
            try:
                with no_running_loop():
                    result = self._pending.pop()()
                if inspect.isawaitable(result):
                    await result
            except BaseException as error:  # noqa: BLE001  # every finalizer runs; all errors are raised below
                errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            _raise_all(title, errors[::-1])

    async def interrupt(self, cancelled: asyncio.CancelledError) -> BaseException | None:
        """Throw a cancellation that hit a held fixture into its generator; give the error that comes out, if any."""
        generator = self._generator
        if generator is None:
            return None
        self._pending.pop()
        try:
            await generator.athrow(cancelled)
        except StopAsyncIteration:
            return None
        except BaseException as error:  # noqa: BLE001  # handed to the caller, who reports it
            return error
        await generator.aclose()
        return None


def _raise_all(title: str, errors: list[BaseException]) -> NoReturn:
    # A frame of its own: pytest complains of an error all of whose frames are hidden.
    raise BaseExceptionGroup(title, errors)


async def set_up(
    definition: pytest.FixtureDef[Any],
    request: Request,
    arguments: dict[str, Any],
    finalizers: Finalizers,
) -> object:
    """Call a fixture's function up to its value; what follows its ``yield`` becomes a finalizer."""
    __tracebackhide__ = True
    function = collection.bound_function(definition, request)
    try:
        if inspect.isasyncgenfunction(function):
            return await _enter_async(function(**arguments), definition, finalizers)
        if inspect.iscoroutinefunction(function):
            return await function(**arguments)
    except pytest.skip.Exception as skipped:
        raise collection.skipped_at_test(skipped)  # noqa: B904  # the same exception
    return set_up_sync(function, definition, arguments, finalizers)


def set_up_sync(
    function: Callable[..., Any],
    definition: pytest.FixtureDef[Any],
    arguments: dict[str, Any],
    finalizers: Finalizers,
) -> object:
    """Call a sync fixture's function, already bound, as :func:`set_up` does."""
    __tracebackhide__ = True
    try:
        with no_running_loop():
            if inspect.isgeneratorfunction(function):
                return _enter_sync(function(**arguments), definition, finalizers)
            return function(**arguments)
    except pytest.skip.Exception as skipped:
        raise collection.skipped_at_test(skipped)  # noqa: B904  # the same exception


@contextmanager
def no_running_loop() -> Iterator[None]:
    """Let sync code see no running loop, as under plain pytest: a sync fixture may start one of its own."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        yield
        return
    swap = getattr(asyncio.tasks, "_swap_current_task", None)  # from Python 3.12 on, where it is needed
    task = None if swap is None else swap(loop, None)
    events._set_running_loop(None)  # noqa: SLF001  # exported for this by asyncio.events
    try:
        yield
    finally:
        events._set_running_loop(loop)  # noqa: SLF001
        if swap is not None:
            swap(loop, task)


async def _enter_async(
    generator: AsyncGenerator[Any, None],
    definition: pytest.FixtureDef[Any],
    finalizers: Finalizers,
) -> object:
    __tracebackhide__ = True
    try:
        value = await anext(generator)
    except StopAsyncIteration:
        _refuse_no_value(definition)

    async def leave() -> None:
        __tracebackhide__ = True
        try:
            await anext(generator)
        except StopAsyncIteration:
            return
        await generator.aclose()
        _refuse_second_value(definition)

    finalizers.add_generator(generator, leave)
    return value


def _enter_sync(
    generator: Generator[Any, None, None],
    definition: pytest.FixtureDef[Any],
    finalizers: Finalizers,
) -> object:
    __tracebackhide__ = True
    try:
        value = next(generator)
    except StopIteration:
        _refuse_no_value(definition)

    def leave() -> None:
        __tracebackhide__ = True
        try:
            next(generator)
        except StopIteration:
            return
        generator.close()
        _refuse_second_value(definition)

    finalizers.add(leave)
    return value


def _refuse_no_value(definition: pytest.FixtureDef[Any]) -> NoReturn:
    raise ValueError(f"{definition.argname} did not yield a value") from None


def _refuse_second_value(definition: pytest.FixtureDef[Any]) -> NoReturn:
    code = definition.func.__code__
    try:
        source = inspect.getsource(definition.func)
    except OSError:
        source = definition.argname
    pytest.fail(
        f"fixture function has more than one 'yield':\n\n{textwrap.indent(textwrap.dedent(source), ' ' * 4)}"
        f"{code.co_filename}:{code.co_firstlineno}",
        pytrace=False,
    )


def not_from_running_code(name: str) -> RuntimeError:
    """The error of ``request.getfixturevalue(name)`` where it would have to wait on the loop that runs."""
    return RuntimeError(
        f"request.getfixturevalue({name!r}) can't set up an async fixture from running code: "
        f"name it in the signature, or add @pytest.mark.usefixtures({name!r}), so that it is up before"
    )
