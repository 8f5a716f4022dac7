"""Calling a fixture's function: up to its value, and after its ``yield`` when it ends.

What a fixture (or the set of fixtures of one test) must do at its end is kept in :class:`Finalizers`, which run last
in, first out, each of them whatever the others raise. Sync functions see no running loop, so that they may start one.
A sync function that may ask for other fixtures while it runs is called while the loop stands still, so that an async
one can be set up for it; under pytest it could have that too. Async code that asks can't wait, there as here.
Who owns a fixture, and when it is set up and ended, is told in :mod:`asynctest_kit.engine.lifetimes`.
"""

from __future__ import annotations

import asyncio
import inspect
import textwrap
from asyncio import events
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import cache, partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pytest

from asynctest_kit.engine import collection
from asynctest_kit.engine.foreign_hooks import Outcome, fixture_hooks
from asynctest_kit.engine.own_values import own_value

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Hashable, Iterator
    from contextvars import ContextVar

    from asynctest_kit.engine.collection import Request
    from asynctest_kit.engine.foreign_hooks import Around
    from asynctest_kit.engine.graph import Case
    from asynctest_kit.engine.pausing_loop import PausingLoop
    from asynctest_kit.engine.time_limit import TimeLimit

__all__ = [
    "Finalizers",
    "Needless",
    "Outside",
    "asks_while_running",
    "may_ask_while_running",
    "no_running_loop",
    "not_from_running_code",
    "set_up",
    "set_up_now",
]

T = TypeVar("T")

#: From Python 3.12 on, where it is needed.
_swap_current_task: Callable[[asyncio.AbstractEventLoop, Any], Any] | None = getattr(
    asyncio.tasks, "_swap_current_task", None
)


#: Modules of this kit's fixtures.
_OURS = "asynctest_kit.fixtures."

_NOTHING: AbstractContextManager[None] = nullcontext()


class Finalizers:
    """What must run when a fixture, or a test's set of fixtures, ends: last in, first out."""

    __slots__ = ("_generator", "_pending")

    def __init__(self) -> None:
        self._pending: list[tuple[Callable[[], object], bool]] = []
        self._generator: AsyncGenerator[Any, None] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to run."""
        return not self._pending

    def add_generator(self, generator: AsyncGenerator[Any, None], leave: Callable[[], Awaitable[None]]) -> None:
        """Await ``leave()`` at the end, unless :meth:`interrupt` ends ``generator`` before."""
        self._generator = generator
        self._pending.append((leave, False))

    def add(self, finalizer: Callable[[], object]) -> None:
        """Run ``finalizer`` at the end; if it gives an awaitable, that is awaited."""
        self._pending.append((finalizer, True))

    def wrap_last(self, wrapper: Callable[[Callable[[], object]], Callable[[], object]]) -> None:
        """Put ``wrapper`` around what was added last."""
        last, _ = self._pending[-1]
        self._pending[-1] = wrapper(last), True

    async def run(self, title: str, limit: Callable[[], TimeLimit] | None = None) -> None:
        """Run all, in this task, each within a ``limit`` of its own: giving one up leaves none of the others out.

        Raises:
            BaseException: The one that failed, or a group named ``title`` of all that did.
        """
        __tracebackhide__ = True
        errors: list[BaseException] = []
        while self._pending:
            finalizer, is_sync = self._pending.pop()
            try:
                with no_running_loop() if is_sync else _NOTHING:
                    result = finalizer()
                if inspect.isawaitable(result):
                    await (result if limit is None else limit().run(partial(_itself, result)))
            except BaseException as error:  # noqa: BLE001  # every finalizer runs; all errors are raised below
                errors.append(error)
        self._generator = None  # else each one of a run is closed once more at the loop's end
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


def _itself(awaitable: Awaitable[T]) -> Awaitable[T]:
    return awaitable


def _raise_all(title: str, errors: list[BaseException]) -> NoReturn:
    # A frame of its own: pytest complains of an error all of whose frames are hidden.
    raise BaseExceptionGroup(title, errors)


class Needless(Exception):  # noqa: N818  # not an error: somebody else was faster
    """What was to be called has been called while its turn was waited for."""


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Outside:
    """Where to call sync functions that may ask for async fixtures: outside the loop, on behalf of an owner.

    Attributes:
        loop: The loop.
        owner: On whose behalf.
        is_needless: Tells, when its turn has come, whether to call nothing any more.
    """

    loop: PausingLoop
    owner: Hashable
    is_needless: Callable[[], bool] = _never

    async def call(self, function: Callable[[_ApartContext], T], finalizers: Finalizers) -> T:
        """Call ``function`` with a context of its own, through which it may add to ``finalizers``.

        Raises:
            Needless: It is needed no more.
        """
        __tracebackhide__ = True
        apart = _ApartContext(finalizers)

        def call() -> T:
            __tracebackhide__ = True
            if self.is_needless():
                raise Needless
            return apart.run(lambda: function(apart))

        try:
            return await self.loop.outside(call, self.owner)
        finally:
            apart.carry_over()


async def set_up(
    definition: pytest.FixtureDef[Any],
    request: Request,
    arguments: dict[str, Any],
    finalizers: Finalizers,
    outside: Outside | None = None,
) -> object:
    """Call a fixture's function up to its value; what follows its ``yield`` becomes a finalizer."""
    __tracebackhide__ = True
    if fixture_hooks(request.config).is_empty:
        return await _called(definition, request, arguments, finalizers, outside)

    async with _entered(_hooked(definition, request, finalizers), request, finalizers, outside) as outcome:
        if not outcome.is_answered:
            outcome.result = await _called(definition, request, arguments, finalizers, outside)
    return outcome.result


def set_up_now(
    definition: pytest.FixtureDef[Any], request: Request, arguments: dict[str, Any], finalizers: Finalizers
) -> object:
    """Call a sync fixture's function as :func:`set_up` does, from running code."""
    __tracebackhide__ = True
    with _hooked(definition, request, finalizers) as outcome:
        if not outcome.is_answered:
            function = collection.bound_function(definition, request)
            outcome.result = _called_sync(function, definition, arguments, finalizers)
    return outcome.result


@asynccontextmanager
async def _entered(
    hooked: AbstractContextManager[Outcome], request: Request, finalizers: Finalizers, outside: Outside | None
) -> AsyncIterator[Outcome]:
    """Enter a context whose hooks may ask for fixtures, as those of the lazy-fixture plugins do."""
    __tracebackhide__ = True
    if outside is None or not fixture_hooks(request.config).may_ask:
        with hooked as outcome:
            yield outcome
        return
    outcome = await outside.call(lambda _: hooked.__enter__(), finalizers)
    try:
        yield outcome
    except BaseException as error:
        if not hooked.__exit__(type(error), error, error.__traceback__):
            raise
    else:
        hooked.__exit__(None, None, None)


@contextmanager
def _hooked(definition: pytest.FixtureDef[Any], request: Request, finalizers: Finalizers) -> Iterator[Outcome]:
    """Call the hooks of others around a fixture's set-up, and after its tear-down.

    As in pytest they find its value in ``cached_result``, and what they leave there is what tests get.
    """
    __tracebackhide__ = True
    hooks = fixture_hooks(request.config)
    if hooks.is_empty:
        yield Outcome()
        return
    given: dict[str, Any] = {"fixturedef": definition, "request": request}
    ended = _Ended()
    before = definition.cached_result
    try:
        with hooks.setup.given(request.node.path, **given) as outcome:
            finalizers.add(lambda: ended.tell(hooks.finalized, given))
            with collection.failure_kept(definition):
                yield outcome
            if not outcome.is_answered:
                definition.cached_result = (outcome.result, None, None)
        assert definition.cached_result is not None  # noqa: S101  # pytest's own complaint of a hook that answered
        outcome.result = definition.cached_result[0]
    finally:
        ended.result, ended.shown = definition.cached_result, collection.shown_parameter(definition)
        definition.cached_result = before


class _Ended:
    """What hooks are to find of a fixture when it has ended."""

    def __init__(self) -> None:
        self.result: Any = None
        self.shown: object = None

    def tell(self, hooks: Around, given: dict[str, Any]) -> None:
        """Call the hooks."""
        with collection.as_if_cached(given["fixturedef"], self.result, self.shown):
            hooks.tell(given["request"].node.path, **given)


async def _called(
    definition: pytest.FixtureDef[Any],
    request: Request,
    arguments: dict[str, Any],
    finalizers: Finalizers,
    outside: Outside | None,
) -> object:
    __tracebackhide__ = True
    function = collection.bound_function(definition, request)
    try:
        if _is_async_generator(function):
            return await _enter_async(function(**arguments), definition, finalizers)
        if inspect.iscoroutinefunction(function):
            return await function(**arguments)
    except pytest.skip.Exception as skipped:
        raise collection.skipped_at_test(skipped)  # noqa: B904  # the same exception
    if outside is None or not asks_while_running(definition):
        return _called_sync(function, definition, arguments, finalizers)
    return await outside.call(partial(_called_sync, function, definition, arguments), finalizers)


def _is_async_generator(function: Callable[..., Any]) -> bool:
    if type(function) is FunctionType:  # most are, and inspect unwraps what is none
        return bool(function.__code__.co_flags & inspect.CO_ASYNC_GENERATOR)
    return inspect.isasyncgenfunction(function)


class _ApartContext:
    """A copy of a task's context for sync code that is called outside the task.

    What the code sets reaches the task; what follows its ``yield`` runs in the same copy, where its tokens are valid.
    """

    def __init__(self, finalizers: Finalizers) -> None:
        self._finalizers = finalizers
        self._context = copy_context()
        self._changes: dict[ContextVar[Any], Any] = {}

    def add(self, finalizer: Callable[[], object]) -> None:
        """Run ``finalizer`` in this context at the end of the fixture."""

        def in_context() -> None:
            __tracebackhide__ = True
            try:
                self.run(finalizer)
            finally:
                self.carry_over()

        self._finalizers.add(in_context)

    def run(self, function: Callable[[], T]) -> T:
        """Call ``function`` in this context."""
        __tracebackhide__ = True
        before = dict(self._context)
        try:
            return self._context.run(function)
        finally:
            for variable, value in self._context.items():
                if variable not in before or before[variable] is not value:
                    self._changes[variable] = value

    def carry_over(self) -> None:
        """Set in the task's context what was set in this one."""
        for variable, value in self._changes.items():
            variable.set(value)
        self._changes.clear()


#: Helpers that a fixture calls are followed this far.
_DEPTH = 3


@cache
def asks_while_running(definition: pytest.FixtureDef[Any]) -> bool:
    """Whether a fixture's code, or that of the helpers it names, may call ``request.getfixturevalue``."""
    return "request" in definition.argnames and _names_it(definition.func, _DEPTH, set())


def may_ask_while_running(case: Case) -> bool:
    """Whether a test or one of its fixtures may call ``request.getfixturevalue``, for what its closure doesn't hold."""
    item = case.item
    if any(asks_while_running(source.definition) for source in case.sources):
        return True
    takes_it = isinstance(item, pytest.Function) and "request" in collection.test_argument_names(item)
    return takes_it and _names_it(getattr(item, "function", None), _DEPTH, set())


def _names_it(function: object, depth: int, seen: set[CodeType]) -> bool:
    function = inspect.unwrap(function) if isinstance(function, (FunctionType, MethodType)) else None
    plain = getattr(function, "__func__", function)
    if not isinstance(plain, FunctionType) or plain.__code__ in seen:
        return False
    seen.add(plain.__code__)
    names = _names(plain.__code__)
    if "getfixturevalue" in names:
        return True
    return depth > 0 and any(_names_it(helper, depth - 1, seen) for helper in _named(names, plain, function))


def _named(names: set[str], plain: FunctionType, function: object) -> Iterator[object]:
    """What a function's names may mean: globals, what it closes over, attributes of those and of its ``self``."""
    places = [plain.__globals__, *(vars(kind) for kind in type(getattr(function, "__self__", None)).__mro__)]
    places += [vars(value) for name in names if isinstance(value := places[0].get(name), (ModuleType, type))]
    for name in names:
        yield from (place[name] for place in places if name in place)
    for cell in plain.__closure__ or ():
        with suppress(ValueError):  # not filled yet
            yield cell.cell_contents


def _names(code: CodeType) -> set[str]:
    nested = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, nested))


def _called_sync(
    function: Callable[..., Any],
    definition: pytest.FixtureDef[Any],
    arguments: dict[str, Any],
    finalizers: Finalizers | _ApartContext,
) -> object:
    __tracebackhide__ = True
    is_ours = (getattr(function, "__module__", None) or "").startswith(_OURS)  # which starts no loop
    try:
        with _NOTHING if is_ours else no_running_loop():
            if inspect.isgeneratorfunction(function):
                return _enter_sync(function(**arguments), definition, finalizers)
            return own_value(definition, function(**arguments))
    except pytest.skip.Exception as skipped:
        raise collection.skipped_at_test(skipped)  # noqa: B904  # the same exception


class no_running_loop:  # noqa: N801  # used as a function; a generator would cost as much as most fixtures
    """Let sync code see no running loop, as under plain pytest: a sync fixture may start one of its own.

    ``asyncio.get_event_loop()`` gives the loop that its test runs on, as it does there. That it was set as the thread's
    is made as if it had never been: else sync tests could get no loop made.
    """

    __slots__ = ("_before", "_loop", "_state", "_task")

    def __enter__(self) -> None:
        loop = self._loop = events._get_running_loop()  # noqa: SLF001  # exported by asyncio.events, as the setter is
        if loop is None:
            return

        self._task = _swap_current_task(loop, None) if _swap_current_task is not None else None
        events._set_running_loop(None)  # noqa: SLF001
        # None for a policy with rules of its own.
        self._state = getattr(asyncio.get_event_loop_policy(), "_local", None)
        if self._state is not None:
            self._before = dict(vars(self._state))
            asyncio.set_event_loop(loop)

    def __exit__(self, *_: object) -> None:
        loop = self._loop
        if loop is None:
            return

        if self._state is not None and vars(self._state).get("_loop") is loop:
            vars(self._state).clear()
            vars(self._state).update(self._before)
        events._set_running_loop(loop)  # noqa: SLF001
        if _swap_current_task is not None:
            _swap_current_task(loop, self._task)


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
    finalizers: Finalizers | _ApartContext,
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
