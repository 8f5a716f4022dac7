"""taskiq's own suite under pytest and under ``atk run``, in one run: how much of its waiting is saved.

Of the 23 s that it takes under pytest, 21 are idle waiting, so one round tells enough. The suite is fetched from the
package index and installed into a cache, as for ``nox -s public``, whose code does this.

    python benchmarks/public.py [--check] [--rounds N]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "public"))

import _aims
from comparison import compare, share
from installed import install
from suites import SUITES

_AIM = 0.4


def main() -> None:
    """Measure and print seconds, their ratio, and the share of the shared loop."""
    parser = _aims.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    (suite,) = (suite for suite in SUITES if suite.name == "taskiq")
    installed = install(suite)
    seen = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            seen.append(compare(installed, Path(folder)))
    plain = statistics.median(one.plain_seconds for one in seen)
    engine = statistics.median(one.engine_seconds for one in seen)
    differences = sum(len(one.differences) for one in seen)
    first = seen[0]
    print(f"{first.name}, {first.tests} tests; medians of {options.rounds} rounds; {differences} other outcomes")
    print(f"pytest    {plain:8.2f} s   1.00 x")
    aims = _aims.Aims()
    aims.tell(f"atk run   {engine:8.2f} s   {engine / plain:.2f} x", engine / plain, _AIM)
    print(f"beside each other: {share(first.shared, first.asyncio, first.other)}")
    aims.end(options)


if __name__ == "__main__":
    main()
