"""The hooks around a test's phases that conftest files and third-party plugins have.

pytest calls such a hook around code that blocks; ours awaits. So the hooks are called by hand, in pluggy's order: plain
ones before the phase, the first half of each wrapper before it and the second half after it, with the phase's result or
error. What a wrapper raises, or makes of an error, counts as in pytest.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import pluggy
import pytest

from asynctest_kit.engine import collection

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = [
    "Around",
    "FixtureHooks",
    "ForeignHooks",
    "Outcome",
    "fixture_hooks",
    "foreign_hooks",
    "has_foreign",
    "let_idle_go",
    "protocol_of_a_plugin",
]


_NOTHING: contextlib.AbstractContextManager[object] = contextlib.nullcontext()


@dataclass(slots=True)
class Outcome:
    """What a phase gives: set by the block, or by a hook that answers in its place."""

    result: object = None
    is_answered: bool = False


@dataclass(frozen=True, slots=True)
class Around:
    """The hooks of one name; call it with an item for a context manager around that item's phase.

    Attributes:
        config: pytest's configuration.
        impls: The hooks, in pluggy's order; those of a conftest file count for what lies beside or below it.
        answers: Whether the first that gives something is the only one to be asked.
    """

    config: pytest.Config
    impls: tuple[pluggy.HookImpl, ...]
    answers: bool = False
    _has_conftests: bool = field(init=False)

    def __post_init__(self) -> None:
        """Look once who they are: it is asked for in every phase of every test."""
        object.__setattr__(self, "_has_conftests", any(_is_conftest(impl.plugin) for impl in self.impls))

    def __call__(self, item: pytest.Item) -> contextlib.AbstractContextManager[object]:
        """Call the hooks around the block."""
        if not self.impls:
            return _NOTHING
        return self.given(item.path, item=item, nextitem=item, pyfuncitem=item)

    @contextlib.contextmanager
    def given(self, path: Path, **values: object) -> Iterator[Outcome]:
        """Call the hooks that count for ``path`` around the block; what they give takes the place of its result."""
        __tracebackhide__ = True
        entered: list[tuple[pluggy.HookImpl, Any]] = []
        outcome, error = Outcome(), None
        try:
            for impl in reversed(self._counting(path)):
                called: Any = impl.function(*(values[name] for name in impl.argnames))
                if impl.wrapper or impl.hookwrapper:
                    next(called)
                    entered.append((impl, called))
                elif called is not None and self.answers:
                    outcome.result, outcome.is_answered = called, True
                    break
            yield outcome
        except BaseException as raised:  # noqa: BLE001  # handed to the wrappers, and raised unless one swallows it
            error = raised
        for impl, generator in reversed(entered):
            error = _left(impl, generator, outcome, error)
        if error is not None:
            raise error

    def tell(self, path: Path, **values: object) -> None:
        """Call the hooks that count for ``path``; what they give counts for nothing."""
        __tracebackhide__ = True
        with self.given(path, **values):
            pass

    def _counting(self, path: Path) -> tuple[pluggy.HookImpl, ...]:
        if not self._has_conftests:
            return self.impls
        elsewhere = collection.conftests_elsewhere(self.config, path)
        return tuple(impl for impl in self.impls if impl.plugin not in elsewhere)


def _left(impl: pluggy.HookImpl, generator: Any, outcome: Outcome, error: BaseException | None) -> BaseException | None:
    """Run a wrapper's second half; give the error that stands after it, if any."""
    result: pluggy.Result[object] = pluggy.Result(None if error else outcome.result, error)
    try:
        if impl.hookwrapper:
            generator.send(result)
        elif error is None:
            generator.send(outcome.result)
        else:
            generator.throw(error)
    except StopIteration as stop:
        if impl.hookwrapper and result.exception is not None:
            return result.exception
        outcome.result = result.get_result() if impl.hookwrapper else stop.value
        return None
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
        protocol: The wrappers of ``pytest_runtest_protocol`` that are the suite's own. Those of installed plugins arm
            what knows of one test at a time, such as an alarm.
        reports: ``pytest_runtest_makereport``.
    """

    setup: Around
    call: Around
    teardown: Around
    protocol: Around
    reports: tuple[pluggy.HookImpl, ...]


@dataclass(frozen=True, slots=True)
class FixtureHooks:
    """The hooks around a fixture's life.

    Attributes:
        setup: ``pytest_fixture_setup``, but for plugins that run async fixtures on a loop of theirs.
        finalized: ``pytest_fixture_post_finalizer``.
    """

    setup: Around
    finalized: Around

    @property
    def is_empty(self) -> bool:
        """Whether nobody has any."""
        return not self.setup.impls and not self.finalized.impls

    @property
    def may_ask(self) -> bool:
        """Whether a hook is given the request by which it could ask for fixtures."""
        return any("request" in impl.argnames for impl in self.setup.impls)


_FIXTURE_HOOKS = pytest.StashKey[FixtureHooks]()

#: Modules of plugins that run async fixtures.
_RUNNERS_OF_FIXTURES = (
    "aiohttp.",
    "pytest_asyncio.",
    "pytest_asyncio_concurrent.",
    "pytest_trio.",
    "pytest_twisted",
)


def fixture_hooks(config: pytest.Config) -> FixtureHooks:
    """Find the hooks around fixtures that aren't pytest's own; that which shows them is asked for by an option."""
    if _FIXTURE_HOOKS not in config.stash:
        shown = ("_pytest.setuponly",) if config.getoption("setupshow", False) else ()
        setup, finalized = (
            tuple(impl for impl in _impls(config, name, but=shown) if not _runs_fixtures(impl.plugin))
            for name in ("pytest_fixture_setup", "pytest_fixture_post_finalizer")
        )
        config.stash[_FIXTURE_HOOKS] = FixtureHooks(Around(config, setup, answers=True), Around(config, finalized))
    return config.stash[_FIXTURE_HOOKS]


def _runs_fixtures(plugin: object) -> bool:
    return _module_of(plugin).startswith(_RUNNERS_OF_FIXTURES)


def foreign_hooks(config: pytest.Config) -> ForeignHooks:
    """Find the hooks around a test's phases that aren't pytest's own."""
    call = (*_impls(config, "pytest_pyfunc_call", wrappers=True), *_impls(config, "pytest_runtest_call"))
    protocol = _impls(config, "pytest_runtest_protocol", wrappers=True)
    return ForeignHooks(
        setup=Around(config, _impls(config, "pytest_runtest_setup")),
        call=Around(config, call),
        teardown=Around(config, _impls(config, "pytest_runtest_teardown")),
        protocol=Around(config, tuple(impl for impl in protocol if _is_of_the_suite(impl.plugin))),
        reports=_impls(config, "pytest_runtest_makereport"),
    )


def has_foreign(config: pytest.Config, name: str) -> bool:
    """Whether anybody but pytest and this project has a hook of that name."""
    return bool(_impls(config, name))


def protocol_of_a_plugin(item: pytest.Item) -> str | None:
    """The plugin that will run ``item`` by a protocol of its own, if there is one; it can't be had around ours."""
    stash = item.config.stash
    if _PROTOCOLS not in stash:
        found = _impls(item.config, "pytest_runtest_protocol")
        stash[_PROTOCOLS] = tuple(impl for impl in reversed(found) if not impl.wrapper and not impl.hookwrapper)
    for impl in stash[_PROTOCOLS]:
        name = _module_of(impl.plugin).partition(".")[0]
        if name not in _ONLY_IF or _ONLY_IF[name](item):
            return impl.plugin_name
    return None


_PROTOCOLS = pytest.StashKey[tuple[pluggy.HookImpl, ...]]()


def let_idle_go(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Let go of plugins that run some tests by a protocol of their own, and are asked to by none of ``items``.

    Their other hooks look at every phase of every test, for nothing. A wrapper around the protocol may ask later.
    """
    if _impls(config, "pytest_runtest_protocol", wrappers=True):
        return
    for impl in _impls(config, "pytest_runtest_protocol"):
        asked = _ONLY_IF.get(_module_of(impl.plugin).partition(".")[0])
        if asked is not None and not any(map(asked, items)):
            config.pluginmanager.unregister(impl.plugin)


def _is_flaky(item: pytest.Item) -> bool:
    function, case = getattr(item, "function", None), getattr(item, "cls", None)
    marked = any(name.startswith("_flaky_") for name in getattr(function, "__dict__", ()))
    return (
        marked
        or (case is not None and _is_flaky_class(case))
        or item.get_closest_marker("flaky") is not None
        or _are_all_flaky(item.config)
    )


@cache
def _is_flaky_class(case: type) -> bool:
    return any(name.startswith("_flaky_") for name in dir(case))


def _are_all_flaky(config: pytest.Config) -> bool:
    if _FLAKY not in config.stash:
        asked = any(config.getoption(name, None) for name in ("reruns", "force_reruns", "force_flaky"))
        config.stash[_FLAKY] = asked or _reruns_of_ini(config)
    return config.stash[_FLAKY]


_FLAKY = pytest.StashKey[bool]()


def _reruns_of_ini(config: pytest.Config) -> bool:
    try:
        return bool(config.getini("reruns"))
    except ValueError:
        return False


def _is_forked(item: pytest.Item) -> bool:
    return bool(item.config.getoption("forked", False)) or item.get_closest_marker("forked") is not None


#: Plugins of which it is known which tests they run.
_ONLY_IF = {"flaky": _is_flaky, "pytest_forked": _is_forked, "pytest_rerunfailures": _is_flaky}


def _impls(
    config: pytest.Config, name: str, *, wrappers: bool = False, but: tuple[str, ...] = ()
) -> tuple[pluggy.HookImpl, ...]:
    manager = config.pluginmanager
    own = [plugin for plugin in manager.get_plugins() if _is_pytests_own(plugin) and _module_of(plugin) not in but]
    found = manager.subset_hook_caller(name, remove_plugins=own).get_hookimpls()
    return tuple(impl for impl in found if not wrappers or impl.wrapper or impl.hookwrapper)


def _is_pytests_own(plugin: object) -> bool:
    return _module_of(plugin).startswith(("_pytest.", "anyio.", "asynctest_kit."))


def _module_of(plugin: object) -> str:
    module: str = getattr(plugin, "__name__", None) or type(plugin).__module__
    return module


def _is_of_the_suite(plugin: object) -> bool:
    module = plugin if inspect.ismodule(plugin) else sys.modules.get(type(plugin).__module__)
    return "site-packages" not in (getattr(module, "__file__", None) or "site-packages")


def _is_conftest(plugin: object) -> bool:
    file = getattr(plugin, "__file__", None) if inspect.ismodule(plugin) else None
    return file is not None and file.endswith("conftest.py")
