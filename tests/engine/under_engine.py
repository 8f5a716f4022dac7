"""Runs pytest with the engine in it: ``python under_engine.py EVENTS CONCURRENCY TIMEOUT ARGUMENT...``.

Further options of the engine come as JSON in the variable SUITE_OPTIONS.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import msgspec
import pytest

from asynctest_kit.engine.runtestloop import Engine
from asynctest_kit.engine.treatment import Options


def main() -> int:
    events, concurrency, timeout, *arguments = sys.argv[1:]
    with Path(events).open("ab") as stream:
        options = Options(
            concurrency=int(concurrency), timeout=float(timeout), **json.loads(os.environ.get("SUITE_OPTIONS", "{}"))
        )
        engine = Engine(options, sink=lambda event: stream.write(msgspec.json.encode(event) + b"\n"))
        return int(pytest.main(arguments, plugins=[engine]))


if __name__ == "__main__":
    sys.exit(main())
