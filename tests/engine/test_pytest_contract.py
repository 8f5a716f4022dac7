"""What ``engine.collection`` takes from pytest without a public name. A pytest that changes it fails here first."""

from __future__ import annotations

import importlib
import inspect
import io
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter

from asynctest_kit.engine import collection
from asynctest_kit.engine.foreign_hooks import foreign_hooks

#: Private names: where, what, and what a function of it must accept.
NAMES = [
    ("_pytest.assertion", "pytest_runtest_protocol", ("item",)),
    ("_pytest.assertion.util", "_reprcompare", None),
    ("_pytest.fixtures", "FixtureLookupError", ("argname", "request")),
    ("_pytest.fixtures", "SubRequest", ("request", "scope", "param", "param_index", "fixturedef", "_ispytest")),
    ("_pytest.fixtures", "TopRequest", ("pyfuncitem", "_ispytest")),
    ("_pytest.fixtures", "get_scope_node", ("node", "scope")),
    ("_pytest.fixtures", "get_scope_package", ("node", "fixturedef")),
    ("_pytest.fixtures", "resolve_fixture_function", ("fixturedef", "request")),
    ("_pytest.logging", "LogCaptureHandler", ()),
    ("_pytest.logging", "caplog_handler_key", None),
    ("_pytest.logging", "caplog_records_key", None),
    ("_pytest.scope", "Scope", None),
    ("_pytest.skipping", "evaluate_xfail_marks", ("item",)),
    ("_pytest.skipping", "pytest_runtest_setup", ("item",)),
    ("_pytest.skipping", "xfailed_key", None),
    ("_pytest.unittest", "TestCaseFunction", None),
    ("_pytest.warnings", "catch_warnings_for_item", ("config", "ihook", "when", "item")),
    ("_pytest.compat", "NOTSET", None),
]


@pytest.mark.parametrize(
    ("module", "name", "parameters"), NAMES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_private_name_is_there(module, name, parameters):
    value = getattr(importlib.import_module(module), name)
    if parameters is not None:
        inspect.signature(value).bind(**dict.fromkeys(parameters))


@pytest.fixture(params=["value"])
def parametrized(request):
    return request.param


@pytest.fixture(scope="module")
def shared():
    return "shared"


@pytest.fixture(scope="module")
def asked_late():
    raise AssertionError("its value is given")


@pytest.fixture
def own(shared):
    return shared


@pytest.fixture
def item(request):
    return request.node


def test_closure_of_an_item(item, own, parametrized):
    assert collection.has_fixtures(item)
    assert set(collection.test_argument_names(item)) == {"item", "own", "parametrized"}
    assert {"item", "own", "parametrized", "shared", "request"} <= set(collection.fixture_names(item))
    parameter = collection.parameter_of(item, "parametrized")
    assert parameter is not None
    assert (parameter.value, parameter.index, parameter.scope.value) == ("value", 0, "function")
    assert collection.parameter_of(item, "own") is None


def test_request_of_our_own(item, parametrized):
    top = collection.TestRequest(item, _ispytest=True)
    assert top.node is item
    definition = collection.definition_of(item, "parametrized", top)
    assert definition.argname == "parametrized"
    assert tuple(definition.argnames) == ("request",)
    request, scope = collection.request_for(item, definition, top)
    assert scope == "function"
    assert request.param == "value"
    assert request.fixturename == "parametrized"
    assert list(request._iter_chain()) == [request]
    assert collection.parent_of(request) is top
    assert collection.bound_function(definition, request)(request) == "value"


def test_fixtures_asked_for_late_are_found(item, request):
    top = collection.TestRequest(item, _ispytest=True)
    definition = collection.definition_of(item, "shared", top)
    assert definition.scope == "module"
    assert collection.scope_instance(item, definition, "module") is item.getparent(pytest.Module)
    assert collection.scope_instance(item, definition, "session") is item.session
    assert collection.scope_instance(item, definition, "class") is item
    with pytest.raises(pytest.FixtureLookupError):
        collection.definition_of(item, "no_such_fixture", top)


def test_scopes_are_checked(item, request):
    top = collection.TestRequest(item, _ispytest=True)
    wide = collection.definition_of(item, "shared", top)
    narrow = collection.definition_of(item, "own", top)
    wide_request, _ = collection.request_for(item, wide, top)
    with pytest.raises(pytest.fail.Exception, match="ScopeMismatch"):
        collection.check_scope(narrow, wide_request)


def test_marks_are_evaluated(item):
    collection.evaluate_marks(item)
    item.add_marker(pytest.mark.skip(reason="asked to"))
    with pytest.raises(pytest.skip.Exception, match="asked to"):
        collection.evaluate_marks(item)


def test_marks_added_late_are_noted(item, request):
    request.applymarker(pytest.mark.xfail(reason="added late"))
    collection.refresh_xfail(item)
    from _pytest.skipping import xfailed_key

    assert item.stash[xfailed_key].reason == "added late"
    item.stash[xfailed_key] = None
    item.own_markers.clear()


def test_phase_records_make_reports(item):
    with pytest.raises(ValueError, match="x") as raised:
        int("x")
    error = raised.value
    info = collection.call_info("call", error, start=1.0, duration=2.0)
    assert (info.when, info.start, info.stop, info.duration) == ("call", 1.0, 3.0, 2.0)
    assert info.excinfo.value is error
    report = pytest.TestReport.from_item_and_call(item, info)
    assert report.failed
    assert report.duration == 2.0


def test_reports_of_phases_that_passed_are_pytests(item):
    """Whatever attributes those have: the first is made by pytest's class, the later ones are copies."""
    reports = collection.PassedReports(item)
    for when in ("setup", "call", "teardown"):
        ours = reports.report(when, start=1.0, duration=2.0)
        info = collection.call_info(when, None, start=1.0, duration=2.0)
        pytests = pytest.TestReport.from_item_and_call(item, info)
        assert ours is not None
        assert vars(ours) == vars(pytests)
        assert ours.user_properties is not item.user_properties


def test_a_test_that_passed_is_counted_as_by_the_reporter(item):
    """In letters: the same is written, and the same is known, as if the hook had been called."""
    report = collection.PassedReports(item).report("call", start=1.0, duration=2.0)
    reporters = []
    for count in (TerminalReporter.pytest_runtest_logreport, collection.count_passed):
        written = io.StringIO()
        reporter = TerminalReporter(item.config, written)
        reporter._session = item.session
        for _ in range(100):
            with collection.written_at_once(reporter):
                count(reporter, report)
        known = {name: vars(reporter)[name] for name in ("stats", "_tests_ran", "_progress_nodeids_reported")}
        reporters.append((written.getvalue(), known))
    assert reporters[0] == reporters[1]
    assert reporters[0][0].startswith("." * 40)


def test_error_of_hidden_frames_can_be_shown(item):
    elsewhere = {}
    source = "def fail():\n __tracebackhide__ = True\n raise ExceptionGroup('both', [ValueError(1), ValueError(2)])\n"
    exec(compile(source, "elsewhere.py", "exec"), elsewhere)
    with pytest.raises(ExceptionGroup) as raised:
        elsewhere["fail"]()
    error = raised.value.with_traceback(raised.value.__traceback__.tb_next)
    info = collection.call_info("call", error, start=1.0, duration=2.0)
    assert "2 sub-exceptions" in str(pytest.TestReport.from_item_and_call(item, info).longrepr)


def test_values_are_given_to_pytest_instead_of_the_function(item, request):
    definition = collection.definition_of(item, "asked_late", collection.TestRequest(item, _ispytest=True))

    class Given:
        def answer(self, asked, request):
            return (lambda: "given") if asked is definition else None

        def is_answered(self, asked):
            return asked is definition

    before = vars(item.session).get("gethookproxy")
    with collection.fixtures_answered(item.session, Given()):
        assert request.getfixturevalue("asked_late") == "given"
        assert request.getfixturevalue("own") == "shared"
    assert vars(item.session).get("gethookproxy") is before
    assert definition.cached_result[0] == "given"
    collection.forget_value(definition)
    assert definition.cached_result is None
    assert request.session._setupstate.teardown_exact


def test_conftest_files_elsewhere_are_known(request):
    elsewhere = collection.conftests_elsewhere(request.config, request.path)
    assert not any(request.path.is_relative_to(Path(module.__file__).parent) for module in elsewhere)


def test_comparisons_are_worded_by_pytest(item, request):
    comparison = collection.comparison_of(item)
    assert comparison is not None
    text = comparison("==", [1, 2], [1, 3])
    assert text.startswith("[1, 2] == [1, 3]")
    assert "At index 1 diff: 2 != 3" in text
    with (
        collection.routed_comparison(request.config, lambda op, left, right: f"{left}{op}{right}, seen"),
        pytest.raises(AssertionError, match=r"1==2, seen"),
    ):
        assert 1 == 2  # noqa: PLR0133


def test_logging_plugin(item, request):
    handler = collection.log_handler(request.config)
    assert handler.records == []
    assert handler.stream.getvalue() == ""
    assert collection.log_level(request.config) in {None, 0, *range(1, 60)}


def test_capture_plugin(request):
    manager = collection.capture_manager(request.config)
    if manager is None:
        pytest.skip("capture is off")
    for name in ("is_globally_capturing", "resume_global_capture", "suspend_global_capture", "read_global_capture"):
        assert callable(getattr(manager, name))


def test_coroutine_items_are_told(item):
    assert not collection.is_coroutine_item(item)


def test_foreign_hooks_are_told_from_pytests_own(request):
    class Plugin:
        def pytest_runtest_setup(self, item):
            seen.append(("setup", item))

        def pytest_runtest_call(self):
            seen.append("call")

        def pytest_runtest_teardown(self, item, nextitem):
            seen.append(("teardown", item, nextitem))

    seen = []
    plugin, item = Plugin(), request.node
    request.config.pluginmanager.register(plugin)
    try:
        hooks = foreign_hooks(request.config)
        for hook in (hooks.setup, hooks.call, hooks.teardown):
            with hook(item):
                seen.append("phase")
    finally:
        request.config.pluginmanager.unregister(plugin)
    assert seen == [("setup", item), "phase", "call", "phase", ("teardown", item, item), "phase"]
