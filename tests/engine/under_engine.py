"""Runs pytest with the engine in it: ``python under_engine.py EVENTS CONCURRENCY TIMEOUT ARGUMENT...``."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from asynctest_kit.engine.runtestloop import Engine


def main() -> int:
    events, concurrency, timeout, *arguments = sys.argv[1:]
    with Path(events).open("ab") as stream:
        engine = Engine(
            concurrency=int(concurrency),
            timeout=float(timeout),
            sink=lambda event: stream.write(msgspec.json.encode(event) + b"\n"),
        )
        return int(pytest.main(arguments, plugins=[engine]))


if __name__ == "__main__":
    sys.exit(main())
