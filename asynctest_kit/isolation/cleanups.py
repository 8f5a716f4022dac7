"""Clean-ups of a test for what no transaction takes back: files, buckets, queues, rows committed elsewhere."""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Cleanups"]

#: A failure is shown where the clean-up itself failed; our own frames say nothing about it.
__tracebackhide__ = True

P = ParamSpec("P")


class Cleanups:
    """What is to be called at the end; the last that was registered comes first."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], Any]] = []

    def __call__(self, function: Callable[P, Any], *args: P.args, **options: P.kwargs) -> None:
        """Have ``function``, which may be a coroutine function, called with these arguments at the end."""
        self._calls.append(lambda: function(*args, **options))

    async def run(self) -> None:
        """Call all, also those after one that fails or is cancelled, and those that they register themselves.

        Raises:
            BaseExceptionGroup: Several failed; the error of a single one is raised as it is.
        """
        errors: list[BaseException] = []
        while self._calls:
            try:
                result = self._calls.pop()()
                if isawaitable(result):
                    await result
            except GeneratorExit:  # closed where it stands: nothing can be awaited any more
                raise
            except BaseException as error:  # noqa: BLE001  # raised below, when the others have run
                errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup("several clean-ups failed", errors)
