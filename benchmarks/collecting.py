"""10,000 trivial async tests: what it costs to collect them, and to run them.

CPU seconds (user and system) of the whole process and its children, pytest with the anyio plugin beside ``atk run``, in
one run. The tests do nothing, so all of it is overhead.

    python benchmarks/collecting.py [--files N] [--tests N] [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import _environment

_CONFTEST = """
import pytest


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"
"""


def main() -> None:
    """Measure and print a table of CPU seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--tests", type=int, default=100, help="in each file")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder)
        _write(suite, options.files, options.tests)
        print(f"{options.files * options.tests} trivial async tests; medians of {options.rounds} rounds, CPU seconds")
        for title, arguments in {"collect": ["--collect-only", "-q"], "run": ["-q"]}.items():
            peer, ours = [], []
            for _ in range(options.rounds):
                peer.append(_cpu([sys.executable, "-m", "pytest", *arguments], suite))
                ours.append(_cpu([sys.executable, "-m", "asynctest_kit", "run", *arguments], suite))
            theirs, own = statistics.median(peer), statistics.median(ours)
            print(f"{title:8} pytest + anyio {theirs:6.2f} s   atk run {own:6.2f} s   {own / theirs:5.3f} x")


def _write(suite: Path, files: int, tests: int) -> None:
    (suite / "pytest.ini").write_text("[pytest]\n")
    (suite / "conftest.py").write_text(_CONFTEST)
    body = "".join(f"\n\nasync def test_{number}():\n    pass\n" for number in range(tests))
    for number in range(files):
        (suite / f"test_file_{number}.py").write_text(f"import pytest\n\npytestmark = pytest.mark.anyio\n{body}")


def _cpu(command: list[str], suite: Path) -> float:
    process = subprocess.Popen(command, cwd=suite, env=_environment.clean(), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
