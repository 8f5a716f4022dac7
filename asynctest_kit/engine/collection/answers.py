"""Values handed to pytest's own protocol, and left where pytest keeps them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

__all__ = [
    "Answers",
    "as_if_cached",
    "failure_kept",
    "fixtures_answered",
    "forget_value",
    "shown_parameter",
]


class Answers(Protocol):
    """Who gives pytest the values of fixtures that are not pytest's."""

    def answer(self, definition: pytest.FixtureDef[Any], request: Any) -> Callable[[], object] | None:
        """What gives the value when pytest asks for it; None if pytest is to set the fixture up."""

    def is_answered(self, definition: pytest.FixtureDef[Any]) -> bool:
        """Whether the value was given."""


@contextmanager
def fixtures_answered(session: pytest.Session, answers: Answers) -> Iterator[None]:
    """While the block runs, let ``answers`` be asked before pytest's hooks are, and by no way round them."""
    original = session.gethookproxy
    attributes = vars(session)
    before = attributes.get("gethookproxy")

    def proxy(path: Any) -> Any:
        return _AnsweringHooks(original(path), answers)

    cast("Any", session).gethookproxy = proxy
    try:
        yield
    finally:
        del attributes["gethookproxy"]
        if before is not None:
            attributes["gethookproxy"] = before


class _AnsweringHooks:
    """pytest's hooks for a path, with the two that surround a fixture's life passed by for fixtures of others."""

    def __init__(self, hooks: Any, answers: Answers) -> None:
        self._hooks = hooks
        self._answers = answers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hooks, name)

    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any], request: Any) -> object:
        """Give the value, and leave it where pytest keeps values."""
        answer = self._answers.answer(fixturedef, request)
        if answer is None:
            return self._hooks.pytest_fixture_setup(fixturedef=fixturedef, request=request)
        __tracebackhide__ = True
        key = fixturedef.cache_key(request)
        try:
            value = answer()
        except BaseException as error:
            fixturedef.cached_result = (None, key, (error, error.__traceback__))
            raise
        fixturedef.cached_result = (value, key, None)
        return value

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any], request: Any) -> None:
        """Tell nobody of an end that isn't one."""
        if not self._answers.is_answered(fixturedef):
            self._hooks.pytest_fixture_post_finalizer(fixturedef=fixturedef, request=request)


def forget_value(definition: pytest.FixtureDef[Any]) -> None:
    """Let pytest neither keep the value of a fixture that isn't its own, nor end what it thinks depends on it."""
    definition.cached_result = None
    definition._finalizers.clear()


@contextmanager
def failure_kept(definition: pytest.FixtureDef[Any]) -> Iterator[None]:
    """Note where pytest does what a fixture raised."""
    __tracebackhide__ = True
    try:
        yield
    except BaseException as error:
        definition.cached_result = (None, None, (error, error.__traceback__))
        raise


@contextmanager
def as_if_cached(definition: pytest.FixtureDef[Any], result: Any, shown: object) -> Iterator[None]:
    """While the block runs, let hooks find the value and the shown parameter of a fixture where pytest keeps them."""
    before = definition.cached_result
    definition.cached_result = result
    if shown is not None:
        cast("Any", definition).cached_param = shown
    try:
        yield
    finally:
        definition.cached_result = before


def shown_parameter(definition: pytest.FixtureDef[Any]) -> object:
    """The parameter that ``--setup-show`` has noted for the end of a fixture."""
    return getattr(definition, "cached_param", None)
