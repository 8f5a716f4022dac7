"""The one place that touches pytest's private names.

pytest declares and collects; the engine needs a few things of what it found that have no public name: the fixture
definitions in force for an item, the instance that a scope means, skip and xfail marks, the comparison hook of
rewritten asserts, and the cache through which a fixture's value is handed to pytest's own protocol. Everything else in
the engine sees pytest through the names here, so a new pytest version is a change to this package alone; import-linter
refuses ``_pytest`` anywhere else.

Tried with pytest 8.4, 9.0 and 9.2.
"""

from __future__ import annotations

from asynctest_kit.engine.collection.answers import (
    Answers,
    as_if_cached,
    failure_kept,
    fixtures_answered,
    forget_value,
    shown_parameter,
)
from asynctest_kit.engine.collection.fixtures import (
    all_definitions,
    before_look_ups,
    bound_function,
    check_scope,
    closure_key,
    definition_of,
    fixture_names,
    fixtures_defined_in,
    has_fixtures,
    is_awaited,
    parameter_of,
    request_for,
    scope_instance,
    set_function,
    test_argument_names,
)
from asynctest_kit.engine.collection.items import (
    Model,
    are_simple,
    is_coroutine_item,
    item_made_by_others,
    made_like,
    makers_of_ids,
    makers_of_items,
    test_generators,
)
from asynctest_kit.engine.collection.output import (
    UncaughtQueue,
    apply_mark_filters,
    caplog_class,
    capture_manager,
    caught_warnings,
    log_handler,
    log_level,
    note_caplog_phase,
    record_warning,
    share_caplog,
    uncaught_queues,
)
from asynctest_kit.engine.collection.reports import PassedReports, call_info, skipped_at_test, wants_interaction
from asynctest_kit.engine.collection.requests import Owner, Parameter, Request, ScopeName, TestRequest, parent_of
from asynctest_kit.engine.collection.running import (
    Comparison,
    clear_runtime_state,
    comparison_of,
    conftests_elsewhere,
    evaluate_marks,
    mark_names,
    refresh_xfail,
    reports_of,
    routed_comparison,
    start_afresh,
    tear_down_pytests_own,
)
from asynctest_kit.engine.collection.terminal import (
    count_passed,
    count_quietly,
    has_plainly_passed,
    show_item,
    writes_letters,
    written_at_once,
)

__all__ = [
    "Answers",
    "Comparison",
    "Model",
    "Owner",
    "Parameter",
    "PassedReports",
    "Request",
    "ScopeName",
    "TestRequest",
    "UncaughtQueue",
    "all_definitions",
    "apply_mark_filters",
    "are_simple",
    "as_if_cached",
    "before_look_ups",
    "bound_function",
    "call_info",
    "caplog_class",
    "capture_manager",
    "caught_warnings",
    "check_scope",
    "clear_runtime_state",
    "closure_key",
    "comparison_of",
    "conftests_elsewhere",
    "count_passed",
    "count_quietly",
    "definition_of",
    "evaluate_marks",
    "failure_kept",
    "fixture_names",
    "fixtures_answered",
    "fixtures_defined_in",
    "forget_value",
    "has_fixtures",
    "has_plainly_passed",
    "is_awaited",
    "is_coroutine_item",
    "item_made_by_others",
    "log_handler",
    "log_level",
    "made_like",
    "makers_of_ids",
    "makers_of_items",
    "mark_names",
    "note_caplog_phase",
    "parameter_of",
    "parent_of",
    "record_warning",
    "refresh_xfail",
    "reports_of",
    "request_for",
    "routed_comparison",
    "scope_instance",
    "set_function",
    "share_caplog",
    "show_item",
    "shown_parameter",
    "skipped_at_test",
    "start_afresh",
    "tear_down_pytests_own",
    "test_argument_names",
    "test_generators",
    "uncaught_queues",
    "wants_interaction",
    "writes_letters",
    "written_at_once",
]
