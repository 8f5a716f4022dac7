"""What ``atk --help`` costs, in bare interpreters.

python benchmarks/startup.py [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import _environment

_COMMANDS = {
    "bare interpreter": [sys.executable, "-c", ""],
    "atk --help": [sys.executable, "-m", "asynctest_kit", "--help"],
    "pytest --version": [sys.executable, "-m", "pytest", "--version"],
}


def main() -> None:
    """Measure and print a table of milliseconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for _ in range(options.rounds):
        for name, command in _COMMANDS.items():
            times[name].append(_measure(command))
    floor = statistics.median(times["bare interpreter"])
    for name, measured in times.items():
        median = statistics.median(measured)
        print(f"{name:20}{median * 1000:8.0f} ms {median / floor:8.1f} x")


def _measure(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=_environment.clean(), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
