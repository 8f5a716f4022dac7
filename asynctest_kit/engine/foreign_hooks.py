"""The hooks around a test's phases that conftest files and third-party plugins have.

pytest calls such a hook around code that blocks; ours awaits. So the hooks are called by hand, in pluggy's order: plain
ones before the phase, the first half of each wrapper before it and the second half after it, with the phase's result or
error. What a wrapper raises, or makes of an error, counts as in pytest.
"""

from __future__ import annotations

import contextlib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

__all__ = ["Around", "ForeignHooks", "foreign_hooks"]


@dataclass(frozen=True, slots=True)
class Around:
    """The hooks of one name; call it with an item for a context manager around that item's phase."""

    impls: tuple[pluggy.HookImpl, ...]

    @contextlib.contextmanager
    def __call__(self, item: pytest.Item) -> Iterator[None]:
        """Call the hooks around the block."""
        __tracebackhide__ = True
        entered: list[tuple[pluggy.HookImpl, Any]] = []
        error: BaseException | None = None
        try:
            for impl in reversed(self.impls):
                called: Any = impl.function(*(item for _ in impl.argnames))
                if impl.wrapper or impl.hookwrapper:
                    next(called)
                    entered.append((impl, called))
            yield
        except BaseException as raised:  # noqa: BLE001  # handed to the wrappers, and raised unless one swallows it
            error = raised
        for impl, generator in reversed(entered):
            error = _left(impl, generator, error)
        if error is not None:
            raise error


def _left(impl: pluggy.HookImpl, generator: Any, error: BaseException | None) -> BaseException | None:
    """Run a wrapper's second half; give the error that stands after it, if any."""
    result: pluggy.Result[None] = pluggy.Result(None, error)
    try:
        if impl.hookwrapper:
            generator.send(result)
        elif error is None:
            generator.send(None)
        else:
            generator.throw(error)
    except StopIteration:
        return result.exception if impl.hookwrapper else None
    except BaseException as raised:  # noqa: BLE001  # it takes the place of the phase's own
        return raised
    generator.close()
    return RuntimeError(f"the hook wrapper {impl.plugin_name}: {impl.function.__name__} yielded twice")


@dataclass(frozen=True, slots=True)
class ForeignHooks:
    """For each phase a function of an item that gives the context manager to run the phase in.

    Attributes:
        setup: ``pytest_runtest_setup``.
        call: ``pytest_runtest_call``, and within it the wrappers of ``pytest_pyfunc_call``.
        teardown: ``pytest_runtest_teardown``; the next item is the item itself, since what comes next isn't known.
        protocol: The wrappers of ``pytest_runtest_protocol`` in conftest files. Those of plugins arm what knows of one
            test at a time, such as an alarm.
    """

    setup: Around
    call: Around
    teardown: Around
    protocol: Around


def foreign_hooks(config: pytest.Config) -> ForeignHooks:
    """Find the hooks around a test's phases that aren't pytest's own."""
    call = (*_impls(config, "pytest_pyfunc_call", wrappers=True), *_impls(config, "pytest_runtest_call"))
    protocol = _impls(config, "pytest_runtest_protocol", wrappers=True)
    return ForeignHooks(
        setup=Around(_impls(config, "pytest_runtest_setup")),
        call=Around(call),
        teardown=Around(_impls(config, "pytest_runtest_teardown")),
        protocol=Around(tuple(impl for impl in protocol if _is_conftest(impl.plugin))),
    )


def _impls(config: pytest.Config, name: str, *, wrappers: bool = False) -> tuple[pluggy.HookImpl, ...]:
    manager = config.pluginmanager
    own = [plugin for plugin in manager.get_plugins() if _is_pytests_own(plugin)]
    found = manager.subset_hook_caller(name, remove_plugins=own).get_hookimpls()
    return tuple(impl for impl in found if not wrappers or impl.wrapper or impl.hookwrapper)


def _is_pytests_own(plugin: object) -> bool:
    module = getattr(plugin, "__name__", None) or type(plugin).__module__
    return module.startswith(("_pytest.", "anyio.", "asynctest_kit.engine."))


def _is_conftest(plugin: object) -> bool:
    file = getattr(plugin, "__file__", None) if inspect.ismodule(plugin) else None
    return file is not None and file.endswith("conftest.py")
