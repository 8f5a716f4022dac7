"""Runs pytest with the engine in it: ``python under_engine.py EVENTS CONCURRENCY TIMEOUT ARGUMENT...``.

Further options of the engine come as JSON in the variable SUITE_OPTIONS; its ``rules`` are treatments by pattern.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import pytest

from asynctest_kit.engine.runtestloop import Engine
from asynctest_kit.engine.treatment import Options, Rule, Treatment


def main() -> int:
    events, concurrency, timeout, *arguments = sys.argv[1:]
    given = msgspec.json.decode(os.environ.get("SUITE_OPTIONS", "{}"))
    rules = tuple(Rule(pattern, Treatment(**treatment)) for pattern, treatment in given.pop("rules", {}).items())
    options = Options(concurrency=int(concurrency), timeout=float(timeout), rules=rules, **given)
    with Path(events).open("ab") as stream:
        engine = Engine(options, sink=lambda event: stream.write(msgspec.json.encode(event) + b"\n"))
        return int(pytest.main(arguments, plugins=[engine]))


if __name__ == "__main__":
    sys.exit(main())
