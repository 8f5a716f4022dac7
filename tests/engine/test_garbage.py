"""Garbage is found at the end at the latest, and the collector is left as it was."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from parity import SUITES, Bench, both


def test_what_was_left_is_told_as_by_pytest(tmp_path):
    for run in both(Bench(tmp_path, SUITES / "garbage")):
        assert run.code == 0, run.out
        assert "ValueError: by a test was left" in run.out
        assert "ValueError: by a fixture was left" in run.out


@pytest.mark.parametrize("options", [[], ["--collect-only"]], ids=["run", "collect"])
def test_collector_is_left_as_it_was(options):
    done = subprocess.run(
        [sys.executable, "in_process.py", "-panyio.pytest_plugin", "-pno:cacheprovider", "-Wignore", *options],
        cwd=SUITES / "garbage",
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "as before: True" in done.stdout, done.stdout + done.stderr
