"""Loaded into every run of a public suite: notes what was collected and what came of it, one JSON array a line."""

from __future__ import annotations

import inspect
import json
import os

import pytest


def pytest_collectreport(report):
    if not report.passed:
        _note("report", report.nodeid, "collect", report.outcome, str(report.longrepr)[-2000:])


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    for item in session.items:
        _note("item", item.nodeid, _is_coroutine(item))


def pytest_runtest_logreport(report):
    outcome = report.outcome
    if hasattr(report, "wasxfail"):
        outcome = {"skipped": "xfailed", "passed": "xpassed"}.get(outcome, outcome)
    _note("report", report.nodeid, report.when, outcome, str(report.longrepr)[-2000:] if report.failed else "")


def _is_coroutine(item):
    function = getattr(item, "obj", None)
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", None)
    return inspect.iscoroutinefunction(inner or function)


def _note(*words):
    with open(os.environ["PUBLIC_RECORD"], "a") as file:  # noqa: PTH123  # pathlib may be patched by a suite
        file.write(json.dumps(words) + "\n")
