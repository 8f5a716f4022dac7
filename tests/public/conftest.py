"""Suites of public projects, run under pytest and under ``atk run``.

They are fetched from the package index and take minutes, so these tests are collected only where ``PUBLIC_SUITES=1`` is
set, as ``nox -s public`` does; an ordinary ``pytest tests`` leaves this folder out. What was seen, suite by suite, is
shown at the end of the run, and written to the file that ``PUBLIC_SUMMARY`` names.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SUMMARY = pytest.StashKey[list[str]]()

collect_ignore_glob = [] if os.environ.get("PUBLIC_SUITES") == "1" else ["*"]


def pytest_configure(config):
    config.stash[SUMMARY] = []


@pytest.fixture(scope="session")
def summary(pytestconfig):
    """Lines to show at the end of the run."""
    return pytestconfig.stash[SUMMARY]


def pytest_terminal_summary(terminalreporter, config):
    lines = config.stash.get(SUMMARY, [])
    if not lines:
        return
    terminalreporter.section("public suites")
    for line in lines:
        terminalreporter.write_line(line)
    if file := os.environ.get("PUBLIC_SUMMARY"):
        Path(file).write_text("\n".join([*lines, ""]))
