"""What ``atk --help`` costs, in bare interpreters.

python benchmarks/startup.py [--check] [--rounds N]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import _aims
import _environment

_AIM = 5.0

_COMMANDS = {
    "bare interpreter": [sys.executable, "-c", ""],
    "atk --help": [sys.executable, "-m", "asynctest_kit", "--help"],
    "pytest --version": [sys.executable, "-m", "pytest", "--version"],
}


def main() -> None:
    """Measure and print a table of milliseconds and ratios."""
    parser = _aims.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for _ in range(options.rounds):
        for name, command in _COMMANDS.items():
            times[name].append(_measure(command))
    aims = _aims.Aims()
    floor = statistics.median(times["bare interpreter"])
    for name, measured in times.items():
        median = statistics.median(measured)
        print(f"{name:20}{median * 1000:8.0f} ms {median / floor:8.1f} x")
    ratio = statistics.median(times["atk --help"]) / floor
    aims.tell(f"atk --help: {ratio:.1f} bare interpreters", ratio, _AIM)
    aims.end(options)


def _measure(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=_environment.clean(), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
