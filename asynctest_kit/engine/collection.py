"""The one module that touches pytest's private names.

pytest declares and collects; the engine needs a few things of what it found that have no public name: the fixture
definitions in force for an item, the instance that a scope means, skip and xfail marks, the comparison hook of
rewritten asserts, and the cache through which a fixture's value is handed to pytest's own protocol. Everything else in
the engine sees pytest through the functions here, so a new pytest version is a change to this file alone.

Tried with pytest 8.4, 9.0 and 9.2.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO, cast

import pytest
from _pytest import assertion, skipping
from _pytest._io import TerminalWriter
from _pytest.assertion import util as assertion_util
from _pytest.config import parse_warning_filter
from _pytest.fixtures import (
    FixtureFunctionDefinition,
    FixtureLookupError,
    FuncFixtureInfo,
    SubRequest,
    TopRequest,
    get_scope_node,
    get_scope_package,
    resolve_fixture_function,
)
from _pytest.logging import LogCaptureFixture, LogCaptureHandler, caplog_handler_key, caplog_records_key
from _pytest.runner import check_interactive_exception, runtestprotocol, show_test_item
from _pytest.scope import Scope
from _pytest.terminal import TerminalReporter
from _pytest.threadexception import collect_thread_exception, thread_exceptions
from _pytest.tmpdir import tmppath_result_key
from _pytest.unittest import TestCaseFunction
from _pytest.unraisableexception import collect_unraisable, unraisable_exceptions
from _pytest.warnings import catch_warnings_for_item

if TYPE_CHECKING:
    from collections import deque
    from types import ModuleType

__all__ = [
    "Model",
    "Owner",
    "Parameter",
    "PassedReports",
    "Request",
    "TestRequest",
    "UncaughtQueue",
    "all_definitions",
    "apply_mark_filters",
    "are_simple",
    "before_look_ups",
    "bound_function",
    "call_info",
    "caplog_class",
    "capture_manager",
    "caught_warnings",
    "clear_runtime_state",
    "comparison_of",
    "count_passed",
    "count_quietly",
    "definition_of",
    "evaluate_marks",
    "fixture_names",
    "fixtures_defined_in",
    "forget_value",
    "has_fixtures",
    "has_plainly_passed",
    "is_coroutine_item",
    "item_made_by_others",
    "log_handler",
    "made_like",
    "makers_of_ids",
    "makers_of_items",
    "mark_names",
    "parameter_of",
    "parent_of",
    "routed_comparison",
    "scope_instance",
    "set_function",
    "share_caplog",
    "tear_down_pytests_own",
    "test_argument_names",
    "test_generators",
    "uncaught_queues",
    "wants_interaction",
    "writes_letters",
    "written_at_once",
]

ScopeName = Literal["session", "package", "module", "class", "function"]
_NOTSET = object()


class Owner(Protocol):
    """What a request needs from whoever sets its fixture up."""

    def add_finalizer(self, finalizer: Callable[[], object]) -> None:
        """Run ``finalizer`` when the fixture is torn down."""

    def dynamic_value(self, name: str, request: Any) -> object:
        """Give the value of a fixture asked for while running."""


class _EngineRequest:
    """The part of ``request`` that the engine answers instead of pytest."""

    owner: Owner

    def getfixturevalue(self, argname: str) -> Any:
        """Give the value of ``argname``, setting it up if it can be set up from running code."""
        return self.owner.dynamic_value(argname, self)

    def addfinalizer(self, finalizer: Callable[[], object]) -> None:
        """Run ``finalizer`` when the fixture (or the test) is torn down."""
        self.owner.add_finalizer(finalizer)


class Request(_EngineRequest, SubRequest):  # type: ignore[misc]  # final in name; a request has no other constructor
    """The ``request`` of a fixture that the engine sets up."""


class TestRequest(_EngineRequest, TopRequest):  # type: ignore[misc]  # final in name; a request has no other constructor
    """The ``request`` of a test that the engine runs."""

    __test__ = False


# Messages of Python's name them, and are to read as pytest's.
Request.__name__, Request.__qualname__ = SubRequest.__name__, SubRequest.__qualname__
TestRequest.__name__, TestRequest.__qualname__ = TopRequest.__name__, TopRequest.__qualname__
for _method in (_EngineRequest.getfixturevalue, _EngineRequest.addfinalizer):
    _method.__qualname__ = f"FixtureRequest.{_method.__name__}"


class Parameter:
    """A fixture's parameter for one item: its value, its index and the scope it is cached for."""

    __slots__ = ("index", "scope", "value")

    def __init__(self, value: object, index: int, scope: Scope) -> None:
        self.value = value
        self.index = index
        self.scope = scope

    def key(self) -> Hashable:
        """What makes two parameters one: equality where it can be told, else identity."""
        return _ParameterKey(self.value)


class _ParameterKey:
    """A parameter's value as a dictionary's key, whatever its own ``__hash__`` and ``__eq__`` do."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __hash__(self) -> int:
        try:
            return hash((type(self._value), self._value))
        except Exception:  # noqa: BLE001  # the user's code; identity is what is left
            return id(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _ParameterKey) or type(self._value) is not type(other._value):
            return False
        try:
            return self._value is other._value or bool(self._value == other._value)
        except Exception:  # noqa: BLE001  # as above
            return False


def is_coroutine_item(item: pytest.Item) -> bool:
    """Tell whether ``item`` is a coroutine function that the engine can call itself."""
    return (
        isinstance(item, pytest.Function)
        and not isinstance(item, TestCaseFunction)
        and (is_plain_coroutine_function(item.function) or inspect.iscoroutinefunction(item.function))
    )


def is_plain_coroutine_function(value: object) -> bool:
    """Whether ``value`` is one that ``async def`` makes; what else counts as one takes :mod:`inspect` long to say."""
    return type(value) is FunctionType and bool(value.__code__.co_flags & inspect.CO_COROUTINE)


def has_fixtures(item: pytest.Item) -> bool:
    """Tell whether pytest has worked out a fixture closure for ``item``: functions and doctests have one."""
    return hasattr(item, "_fixtureinfo")


def fixture_names(item: pytest.Item) -> Sequence[str]:
    """The names of every fixture that ``item`` requests, widest scope first, as pytest would set them up."""
    return getattr(item, "fixturenames", ())


def closure_key(item: pytest.Function) -> Hashable | None:
    """What two tests have in common whose fixtures are looked up alike; None for a test with parameters."""
    if hasattr(item, "callspec"):
        return None
    info = item._fixtureinfo
    return item.parent, tuple(info.names_closure), tuple(map(id, info.name2fixturedefs.values()))


def test_argument_names(item: pytest.Function) -> tuple[str, ...]:
    """The names that the test function itself takes."""
    return item._fixtureinfo.argnames


def parameter_of(item: pytest.Function, name: str) -> Parameter | None:
    """The parameter that ``item`` gives to the fixture ``name``, if it gives one."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or name not in callspec.params:
        return None
    return Parameter(callspec.params[name], callspec.indices[name], callspec._arg2scope[name])


def definition_of(item: pytest.Function, name: str, parent: TestRequest | Request) -> pytest.FixtureDef[Any]:
    """The definition in force when ``parent`` requests ``name``.

    A fixture that requests its own name, or whose dependencies do, gets the one that it overrides.

    Raises:
        FixtureLookupError: No such fixture is visible from the item.
    """
    definitions = item._fixtureinfo.name2fixturedefs.get(name)
    if definitions is None:
        definitions = item.session._fixturemanager.getfixturedefs(name, item)
    depth = 1 + sum(1 for request in parent._iter_chain() if request.fixturename == name)
    if not definitions or depth > len(definitions):
        raise FixtureLookupError(name, parent)
    return definitions[-depth]


def conftests_elsewhere(config: pytest.Config, path: Path) -> set[object]:
    """The conftest files whose hooks don't count for ``path``."""
    manager = config.pluginmanager
    return set(manager._conftest_plugins.difference(manager._getconftestmodules(path)))


def all_definitions(session: pytest.Session) -> Iterator[pytest.FixtureDef[Any]]:
    """Every fixture that pytest knows, visible or not; on pytest 8, with which alone pytest-asyncio 0.x works."""
    for definitions in getattr(session._fixturemanager, "_arg2fixturedefs", {}).values():
        yield from definitions


def set_function(definition: pytest.FixtureDef[Any], function: Callable[..., Any], names: tuple[str, ...]) -> None:
    """Let a fixture call ``function`` with the fixtures ``names``."""
    changed = cast("Any", definition)
    changed.func, changed.argnames = function, names


def request_for(
    item: pytest.Function,
    definition: pytest.FixtureDef[Any],
    parent: TestRequest | Request,
) -> tuple[Request, ScopeName]:
    """Make the ``request`` of one fixture, and tell the scope that its value is kept for.

    Raises:
        Failed: ``definition`` has a narrower scope than its requester (pytest's own message).
    """
    parameter = parameter_of(item, definition.argname)
    if parameter is None:
        _check_without_parameter(item, definition, parent)
        scope = definition._scope
        request = Request(parent, scope, _pytest_notset(), 0, definition, _ispytest=True)
    else:
        scope = parameter.scope
        request = Request(parent, scope, parameter.value, parameter.index, definition, _ispytest=True)
    parent._check_scope(definition, definition._scope)
    return request, scope.value


def _check_without_parameter(
    item: pytest.Function, definition: pytest.FixtureDef[Any], parent: TestRequest | Request
) -> None:
    """Refuse a fixture that lacks its parameter, at the line that asked for it."""
    try:
        parent._check_fixturedef_without_param(definition)
    except pytest.fail.Exception as failed:
        frame = sys._getframe()
        while frame.f_back is not None and Path(frame.f_code.co_filename).parent == Path(__file__).parent:
            frame = frame.f_back
        place = Path(frame.f_code.co_filename)
        root = item.config.rootpath
        shown = place.relative_to(root) if place.is_relative_to(root) else place
        head, _, _ = str(failed.msg).partition("Requested here:")
        failed.msg = f"{head}Requested here:\n{shown}:{frame.f_lineno}"
        raise


def is_awaited(item: pytest.Item, definition: pytest.FixtureDef[Any]) -> bool:
    """Whether a plugin of the suite's would run an async fixture for ``item``, which pytest alone refuses to do.

    Fixtures of this kit are for tests of every kind.
    """
    config = item.config
    if definition.func.__module__.startswith("asynctest_kit."):
        return True
    if _has_plugin(config, "pytest_asyncio.plugin") and (
        hasattr(definition.func, "_force_asyncio_fixture")
        or str(config.getoption("asyncio_mode", None) or config.getini("asyncio_mode")) in {"auto", "Mode.AUTO"}
    ):
        return True
    return not _has_plugin(config, "anyio.pytest_plugin") or "anyio_backend" in fixture_names(item)


def _has_plugin(config: pytest.Config, module: str) -> bool:
    return module in sys.modules and config.pluginmanager.is_registered(sys.modules[module])


def _pytest_notset() -> Any:
    from _pytest.compat import NOTSET

    return NOTSET


def scope_instance(item: pytest.Item, definition: pytest.FixtureDef[Any], scope: ScopeName) -> object:
    """The session, package, module or class for which ``scope`` means one value; the item where there is none."""
    value = Scope(scope)
    if value is Scope.Package:
        return get_scope_package(item, definition)
    return get_scope_node(item, value) or item


def check_scope(definition: pytest.FixtureDef[Any], parent: TestRequest | Request) -> None:
    """Refuse a fixture of narrower scope than its requester, with pytest's own message."""
    parent._check_scope(definition, definition._scope)


def parent_of(request: Any) -> TestRequest | Request:
    """The request that made pytest's ``request``: it serves to look fixtures up as ours do."""
    return cast("Request", request._parent_request)


def bound_function(definition: pytest.FixtureDef[Any], request: Request) -> Callable[..., Any]:
    """The fixture's function, bound to the test's instance where it is a method."""
    return cast("Callable[..., Any]", resolve_fixture_function(definition, request))


def mark_names(item: pytest.Item) -> set[str]:
    """The names of all marks of ``item`` and of what it is in."""
    names: set[str] = set()
    node: Any = item
    while node is not None:
        for mark in node.own_markers:
            names.add(mark.name)
        node = node.parent
    return names


def evaluate_marks(item: pytest.Item) -> None:
    """Apply skip, skipif and ``xfail(run=False)`` marks, and note xfail marks for the report.

    Raises:
        Skipped: A skip mark holds.
        XFailed: An xfail mark says not to run.
    """
    skipping.pytest_runtest_setup(item)


def refresh_xfail(item: pytest.Item) -> None:
    """Note xfail marks that were added while the test ran."""
    if "xfail" in mark_names(item) and item.stash.get(skipping.xfailed_key, None) is None:
        item.stash[skipping.xfailed_key] = skipping.evaluate_xfail_marks(item)


def call_info(
    when: Literal["setup", "call", "teardown"],
    error: BaseException | None,
    *,
    start: float,
    duration: float,
) -> pytest.CallInfo[None]:
    """Pytest's record of one phase; ``start`` in seconds since the Unix epoch, ``duration`` in seconds."""
    excinfo = None if error is None else _visible(error)
    return pytest.CallInfo(
        None,
        excinfo,
        start=start,
        stop=start + duration,
        duration=duration,
        when=when,
        _ispytest=True,
    )


def _own_keywords(node: Any) -> int:
    """How many it has, beside those of what it is in."""
    return len(node.keywords._markers)


_ABOVE = pytest.StashKey[tuple[int, dict[str, Literal[1]]]]()


def _keywords(item: Any) -> dict[str, Literal[1]]:
    """Those of an item's report. What its module has is looked up once, until it has more."""
    count, node = 0, item.parent
    while node is not None:
        count += len(node.keywords._markers)
        node = node.parent
    known = item.parent.stash.get(_ABOVE, None)
    if known is None or known[0] != count:
        known = item.parent.stash[_ABOVE] = (count, dict.fromkeys(item.parent.keywords, 1))
    return {**known[1], **dict.fromkeys(item.keywords._markers, 1)}


class PassedReports:
    """Makes what pytest's own hooks would make of the phases of one test that pass, for a third of what that costs."""

    __slots__ = ("_first", "_item", "_own_keywords")

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._own_keywords = 0
        self._first: pytest.TestReport | None = None

    def report(
        self, when: Literal["setup", "call", "teardown"], *, start: float, duration: float
    ) -> pytest.TestReport | None:
        """The report; None where an xfail mark has a say."""
        item = self._item
        if skipping.xfailed_key in item.stash and item.stash[skipping.xfailed_key] is not None:
            return None
        item.stash.setdefault(tmppath_result_key, {})[when] = True
        captured = item._report_sections
        sections = [(f"Captured {key} {phase}", text) for phase, key, text in captured] if captured else []
        if self._first is None:
            self._own_keywords = _own_keywords(item)
            self._first = pytest.TestReport(
                getattr(item, "id", item.nodeid),  # an object from pytest 9.2 on
                item.location,
                _keywords(item),
                "passed",
                None,
                when,
                sections,
                duration,
                start,
                start + duration,
                user_properties=item.user_properties,
            )
            return self._first
        report = object.__new__(pytest.TestReport)
        vars(report).update(vars(self._first))
        # Marks may have come since.
        has_grown = _own_keywords(item) != self._own_keywords
        report.keywords = _keywords(item) if has_grown else dict(self._first.keywords)
        report.when, report.sections, report.user_properties = when, sections, list(item.user_properties)
        report.duration, report.start, report.stop = duration, start, start + duration
        return report


def count_quietly(reporter: Any, report: pytest.TestReport) -> None:
    """What the terminal's reporter makes of a set-up or tear-down that passed."""
    reporter._tests_ran = True
    reporter._add_stats("", [report])


_LOGREPORT = TerminalReporter.pytest_runtest_logreport


def has_plainly_passed(report: pytest.TestReport, reporters: object) -> bool:
    """Whether the terminal's hook is pytest's own, and is about to be told of a phase that simply passed."""
    is_pytests = getattr(reporters, "__func__", None) is _LOGREPORT
    return is_pytests and report.outcome == "passed" and not hasattr(report, "wasxfail")


def count_passed(reporter: Any, report: pytest.TestReport) -> None:
    """What the terminal's reporter makes of a test that passed, where it :func:`writes_letters`."""
    reporter._tests_ran = True
    reporter._current_logreport = report
    reporter._add_stats("passed", [report])
    reporter._progress_nodeids_reported.add(getattr(report, "id", report.nodeid))  # an object from pytest 9.2 on
    reporter._tw.write(".", green=True)
    if reporter._show_progress_info and not reporter._is_last_item:
        reporter._write_progress_information_if_past_edge()


@contextmanager
def written_at_once(reporter: Any) -> Iterator[None]:
    """Write what the terminal's reporter writes meanwhile in one piece, when the block ends."""
    writer = reporter._tw
    file, writer._file = writer._file, _Kept(writer._file)
    try:
        yield
    finally:
        kept, writer._file = writer._file, file
        file.write(kept.getvalue())
        file.flush()


class _Kept(StringIO):
    """What is to be written to ``file``, which refuses what that would refuse."""

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self._encoding = getattr(file, "encoding", None) or "utf-8"
        self._errors = getattr(file, "errors", None) or "strict"

    def write(self, text: str) -> int:
        if not text.isascii():
            text.encode(self._encoding, self._errors)
        return super().write(text)


def writes_letters(reporter: Any) -> bool:
    """Whether the terminal's reporter is pytest's own, and writes one letter a test."""
    if type(reporter) is not TerminalReporter or type(reporter._tw) is not TerminalWriter:
        return False
    return reporter.config.get_verbosity(pytest.Config.VERBOSITY_TEST_CASES) <= 0


def wants_interaction(call: pytest.CallInfo[None], report: pytest.TestReport) -> bool:
    """Tell whether pytest would let debuggers and others see the failure."""
    return check_interactive_exception(call, report)


def _visible(error: BaseException) -> pytest.ExceptionInfo[BaseException]:
    """Give an error that has no frames, or hidden ones only, one to be shown with: pytest can't print it without."""
    if error.__traceback__ is not None:
        excinfo = pytest.ExceptionInfo.from_exception(error)
        if excinfo.traceback.filter(excinfo):
            return excinfo
    try:
        raise error  # noqa: TRY301  # for the frame
    except BaseException as shown:  # noqa: BLE001  # the same error
        return pytest.ExceptionInfo.from_exception(shown)


def clear_runtime_state(item: pytest.Item) -> None:
    """Let go of what a finished item held, as pytest does, so that values of fixtures can be freed."""
    if isinstance(item, pytest.Function):
        item._request = False  # type: ignore[assignment]  # pytest's own way to say "not running"
        item.funcargs = None  # type: ignore[assignment]


def start_afresh(item: pytest.Item) -> None:
    """Let an item that has run run again as if it had not: on a new instance, with nothing captured."""
    item._report_sections.clear()
    for key in (item.nodeid, getattr(item, "id", item.nodeid)):  # from pytest 9.1 on the second
        _failed_subtests(item.config).pop(key, None)
    if skipping.xfailed_key in item.stash:
        del item.stash[skipping.xfailed_key]
    if isinstance(item, pytest.Function):
        item.funcargs = {}
        for name in ("_instance", "_obj"):
            if item.parent is not None and isinstance(item.parent, pytest.Class):
                item.__dict__.pop(name, None)


def _failed_subtests(config: pytest.Config) -> dict[Any, int]:
    """How many subtests of each test have failed; pytest knows that from 9.0 on, pytest-subtests never."""
    key = getattr(config.pluginmanager.getplugin("subtests"), "failed_subtests_key", None)
    return {} if key is None else cast("dict[Any, int]", config.stash.get(key, {}))


# --- values handed to pytest's own protocol ---------------------------------------------------------------------------


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


def show_item(item: pytest.Item) -> None:
    """Show a test between its fixtures, if ``--setup-show`` asks for it."""
    if item.config.getoption("setupshow", False):
        show: Any = show_test_item  # its arguments differ between versions
        show(item, **({"add_space": True} if "add_space" in inspect.signature(show).parameters else {}))


def reports_of(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    """Run a test by pytest's protocol; give its reports, of which nobody has been told."""
    return list(runtestprotocol(item, nextitem=nextitem, log=False))


def tear_down_pytests_own(session: pytest.Session) -> None:
    """End everything that pytest's own protocol has set up."""
    session._setupstate.teardown_exact(None)


# --- rewritten asserts ------------------------------------------------------------------------------------------------

Comparison = Callable[[str, object, object], str | None]


def comparison_of(item: pytest.Item) -> Comparison | None:
    """The comparison hook that pytest would install for ``item``, with its escaping and truncation."""
    protocol = assertion.pytest_runtest_protocol(item)
    next(protocol)
    try:
        return assertion_util._reprcompare
    finally:
        protocol.close()


@contextmanager
def routed_comparison(config: pytest.Config, comparison: Comparison) -> Iterator[None]:
    """Install ``comparison`` for rewritten asserts as long as the block runs."""
    saved = assertion_util._reprcompare
    saved_config = getattr(assertion_util, "_config", None)
    assertion_util._reprcompare = comparison
    assertion_util._config = config
    try:
        yield
    finally:
        assertion_util._reprcompare = saved
        assertion_util._config = saved_config


# --- capture ----------------------------------------------------------------------------------------------------------


def capture_manager(config: pytest.Config) -> Any:
    """Pytest's capture plugin, or None with ``-p no:capture``."""
    return config.pluginmanager.getplugin("capturemanager")


def skipped_at_test(skipped: BaseException) -> BaseException:
    """Say that the test is what was skipped, not the fixture that said so."""
    if isinstance(skipped, pytest.skip.Exception):
        skipped._use_item_location = True
    return skipped


def fixtures_defined_in(module: ModuleType) -> set[str]:
    """Names of the fixtures that a module, such as a conftest file, defines."""
    return {
        value.name if isinstance(value.name, str) else name
        for name, value in vars(module).items()
        if isinstance(value, FixtureFunctionDefinition)
    }


def before_look_ups(session: pytest.Session, look_up: Callable[[str], None]) -> None:
    """Have ``look_up`` called with each name of a fixture before pytest looks it up, in collecting and in running."""
    manager = session._fixturemanager
    get = manager.getfixturedefs

    def getfixturedefs(argname: str, node: Any) -> Any:
        look_up(argname)
        return get(argname, node)

    manager.getfixturedefs = getfixturedefs  # type: ignore[method-assign]


@dataclass(frozen=True, slots=True, eq=False)
class UncaughtQueue:
    """One of pytest's queues of exceptions that nobody could catch.

    Attributes:
        found: What is in it.
        warn: Warns of all of it, and empties it.
    """

    found: deque[Any]
    warn: Callable[[], None]


def uncaught_queues(config: pytest.Config) -> tuple[UncaughtQueue, ...]:
    """The queues of exceptions in finalizers and in threads, as far as their plugins are loaded."""
    known: tuple[tuple[Any, Callable[[pytest.Config], None]], ...] = (
        (unraisable_exceptions, collect_unraisable),
        (thread_exceptions, collect_thread_exception),
    )
    return tuple(
        UncaughtQueue(config.stash[key], partial(collect, config)) for key, collect in known if key in config.stash
    )


def log_handler(config: pytest.Config) -> LogCaptureHandler | None:
    """A new handler that keeps and formats records as pytest's logging plugin would; None when that is off."""
    plugin = config.pluginmanager.getplugin("logging-plugin")
    if plugin is None:
        return None
    handler = LogCaptureHandler()
    handler.setFormatter(plugin.formatter)
    handler.setLevel(plugin.log_level or 0)
    return handler


def log_level(config: pytest.Config) -> int | None:
    """The level that pytest's ``log_level`` sets for the root logger."""
    plugin = config.pluginmanager.getplugin("logging-plugin")
    return cast("int | None", getattr(plugin, "log_level", None))


def share_caplog(item: pytest.Item, handler: LogCaptureHandler) -> None:
    """Let the ``caplog`` fixture of ``item`` read from ``handler``."""
    item.stash[caplog_handler_key] = handler
    item.stash[caplog_records_key] = {}


def caplog_class() -> type[Any]:
    """The class of the ``caplog`` fixture's value."""
    return LogCaptureFixture


def note_caplog_phase(item: pytest.Item, when: str, handler: LogCaptureHandler) -> None:
    """Start a phase in ``caplog``: forget the last one's records, keep them under its name."""
    records = item.stash.get(caplog_records_key, None)
    if records is not None:
        handler.reset()
        records[when] = handler.records


@contextmanager
def caught_warnings(config: pytest.Config, item: pytest.Item | None) -> Generator[None]:
    """Apply the filters of the command line, the ini file and ``item``'s marks; record what is warned."""
    with catch_warnings_for_item(config=config, ihook=config.hook, when="runtest", item=item):
        yield


def apply_mark_filters(item: pytest.Item) -> None:
    """Add the warnings filters of ``item``'s marks to those in force."""
    for mark in item.iter_markers(name="filterwarnings"):
        for argument in mark.args:
            warnings.filterwarnings(*parse_warning_filter(argument, escape=False))


def record_warning(config: pytest.Config, message: warnings.WarningMessage, nodeid: str) -> None:
    """Tell pytest's summary of a warning that the test ``nodeid`` gave."""
    config.hook.pytest_warning_recorded.call_historic(
        kwargs={"warning_message": message, "nodeid": nodeid, "when": "runtest", "location": None}
    )


# --- making items -----------------------------------------------------------------------------------------------------


def test_generators(collector: pytest.Module | pytest.Class) -> set[str]:
    """Whoever may multiply the tests of ``collector``: plugins by their modules, and its own functions."""
    module = collector.getparent(pytest.Module)
    own = {str(one) for one in (collector.obj, module and module.obj) if hasattr(one, "pytest_generate_tests")}
    return own | {_module_of(impl) for impl in collector.ihook.pytest_generate_tests.get_hookimpls()}


def makers_of_items(collector: pytest.Module | pytest.Class) -> set[str]:
    """The modules of the plugins that make items, or prepare for it."""
    implementations = collector.ihook.pytest_pycollect_makeitem.get_hookimpls()
    return {_module_of(impl) for impl in implementations if not impl.wrapper and not impl.hookwrapper}


def item_made_by_others(plugin: object, collector: pytest.Module | pytest.Class, name: str, obj: object) -> object:
    """What the plugins that are asked after ``plugin`` make of ``obj``; wrappers, which are around all, not called."""
    values = {"collector": collector, "name": name, "obj": obj}
    for impl in reversed(collector.ihook.pytest_pycollect_makeitem.get_hookimpls()):
        if impl.plugin is not plugin and not impl.wrapper and not impl.hookwrapper:
            made: object = impl.function(*(values[argument] for argument in impl.argnames))
            if made is not None:
                return made
    return None


def makers_of_ids(collector: pytest.Module | pytest.Class) -> set[str]:
    """The modules of the plugins that name parameters."""
    return {_module_of(impl) for impl in collector.ihook.pytest_make_parametrize_id.get_hookimpls()}


def _module_of(implementation: Any) -> str:
    plugin = implementation.plugin
    return plugin.__name__ if inspect.ismodule(plugin) else type(plugin).__module__


def are_simple(items: Sequence[Any]) -> bool:
    """Whether what a test was made into depends on the fixtures alone, so that another one can be made like it."""
    if not items or any(type(item) is not pytest.Function for item in items):
        return False
    definitions = (one for item in items for some in item._fixtureinfo.name2fixturedefs.values() for one in some)
    # No parameters at all are told as a skip that names the test, and functions that name parameters may count.
    return not any(one.params is not None and (not one.params or callable(one.ids)) for one in definitions)


@dataclass(frozen=True, slots=True)
class Model:
    """An item like which others are made: what pytest made it of, whatever becomes of the item."""

    item: pytest.Function
    info: FuncFixtureInfo
    callspec: Any
    suffix: str

    @classmethod
    def of(cls, item: pytest.Function) -> Model:
        """Take an item as it is now."""
        callspec = getattr(item, "callspec", None)
        suffix = item.name[len(item.originalname) :]
        return cls(item, _copied_info(item._fixtureinfo), callspec and _copied_callspec(callspec), suffix)


def made_like(models: Sequence[Model], name: str, function: FunctionType) -> list[pytest.Item]:
    """Items of another plain test that requests the same fixtures as that of ``models``."""
    model = models[0].item
    own = _copied_info(models[0].info)
    in_module = isinstance(model.parent, pytest.Module)
    is_beside = in_module and function.__code__.co_filename == model.function.__code__.co_filename
    made: list[pytest.Item] = []
    for one in models:
        item = _one_like(one, name, own)
        if is_beside:
            # A cached property, which pytest works out by looking for the file.
            item.__dict__["location"] = (model.location[0], function.__code__.co_firstlineno - 1, item.name)
        made.append(item)
    return made


def _one_like(model: Model, name: str, info: FuncFixtureInfo) -> pytest.Function:
    parent = model.item.parent
    if model.callspec is None:
        item: pytest.Function = pytest.Function.from_parent(parent, name=name, fixtureinfo=info)
        return item
    own = _copied_callspec(model.callspec)
    made: pytest.Function = pytest.Function.from_parent(
        parent,
        name=name + model.suffix,
        callspec=own,
        fixtureinfo=info,
        keywords={own.id: True},
        originalname=name,
    )
    return made


def _copied_info(info: FuncFixtureInfo) -> FuncFixtureInfo:
    return FuncFixtureInfo(info.argnames, info.initialnames, info.names_closure[:], dict(info.name2fixturedefs))


def _copied_callspec(callspec: Any) -> Any:
    return replace(callspec, params=dict(callspec.params), indices=dict(callspec.indices), marks=callspec.marks[:])
