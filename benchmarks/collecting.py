"""10,000 trivial async tests: what it costs to collect them, and to run them.

CPU seconds (user and system) of the whole process and its children, pytest with the anyio plugin beside ``atk run``, in
one run. The tests do nothing, so all of it is overhead.

    python benchmarks/collecting.py [--check] [--files N] [--tests N] [--rounds N]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import _aims
import _environment

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Of the time of pytest + anyio.
_AIMS = {"collect, plain": 1 / 3, "run, plain": 1 / 5}

_CONFTEST = """
import pytest


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"
"""

_PLAIN = """

async def test_{number}():
    pass
"""

_PARAMETRIZED = """

@pytest.mark.parametrize("value", range({values}))
async def test_{number}(value):
    pass
"""

#: Values of a parametrised test.
_VALUES = 10


def main() -> None:
    """Measure and print a table of CPU seconds and ratios."""
    parser = _aims.parser(__doc__)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--tests", type=int, default=100, help="in each file")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    aims, ratios = _aims.Aims(), dict[str, float]()
    print(f"{options.files * options.tests} trivial async tests; medians of {options.rounds} rounds, CPU seconds")
    print(f"{'':42}{'pytest + anyio':>16}{'atk run':>12}")
    for title, write in {
        "plain": _write_plain,
        "anyio_backend as anyio has it": _write_with_anyios_backend,
        f"parametrised, {_VALUES} values each": _write_parametrized,
    }.items():
        with tempfile.TemporaryDirectory() as folder:
            suite = Path(folder)
            write(suite, options.files, options.tests)
            for task, arguments in {"collect": ["--collect-only", "-q"], "run": ["-q"]}.items():
                ratios[f"{task}, {title}"] = _measure(f"{task}, {title}", arguments, suite, options.rounds)
    for title, limit in _AIMS.items():
        aims.tell(f"{title}: {ratios[title]:.3f} of pytest + anyio", ratios[title], limit)
    aims.end(options)


def _write_plain(suite: Path, files: int, tests: int) -> None:
    (suite / "conftest.py").write_text(_CONFTEST)
    _write(suite, files, (_PLAIN.format(number=number) for number in range(tests)))


def _write_with_anyios_backend(suite: Path, files: int, tests: int) -> None:
    _write(suite, files, (_PLAIN.format(number=number) for number in range(tests)))


def _write_parametrized(suite: Path, files: int, tests: int) -> None:
    (suite / "conftest.py").write_text(_CONFTEST)
    bodies = (_PARAMETRIZED.format(number=number, values=_VALUES) for number in range(tests // _VALUES))
    _write(suite, files, bodies)


def _write(suite: Path, files: int, bodies: Iterable[str]) -> None:
    (suite / "pytest.ini").write_text("[pytest]\n")
    text = "import pytest\n\npytestmark = pytest.mark.anyio\n" + "".join(bodies)
    for number in range(files):
        (suite / f"test_file_{number}.py").write_text(text)


def _measure(title: str, arguments: list[str], suite: Path, rounds: int) -> float:
    peer, ours = [], []
    for _ in range(rounds):
        peer.append(_cpu([sys.executable, "-m", "pytest", *arguments], suite))
        ours.append(_cpu([sys.executable, "-m", "asynctest_kit", "run", *arguments], suite))
    theirs, own = statistics.median(peer), statistics.median(ours)
    print(f"{title:42}{theirs:>14.2f} s{own:>10.2f} s{own / theirs:>8.3f} x")
    return own / theirs


def _cpu(command: list[str], suite: Path) -> float:
    """Seconds of CPU that a process and the children that it waited for have taken."""
    process = subprocess.Popen(command, cwd=suite, env=_environment.clean(), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
