"""A pytest plugin that writes each report as a line of JSON to the file that ``SUITE_REPORTS`` names."""

from __future__ import annotations

import json
import os
from pathlib import Path


def pytest_runtest_logreport(report):
    longrepr = report.longrepr
    line = {
        "nodeid": report.nodeid,
        "when": report.when,
        "outcome": report.outcome,
        "longrepr": "" if longrepr is None else str(longrepr),
        "wasxfail": getattr(report, "wasxfail", None),
        "sections": report.sections,
        "properties": report.user_properties,
    }
    with Path(os.environ["SUITE_REPORTS"]).open("a") as stream:
        stream.write(json.dumps(line) + "\n")


def pytest_warning_recorded(warning_message, nodeid):
    line = {"nodeid": nodeid, "when": "warning", "longrepr": str(warning_message.message)}
    with Path(os.environ["SUITE_REPORTS"]).open("a") as stream:
        stream.write(json.dumps(line) + "\n")
