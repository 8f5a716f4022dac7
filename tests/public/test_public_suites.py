"""Zero differences on suites that nobody here wrote: every test of theirs has the same outcome under ``atk run``.

Two suites run at once, each first under pytest and then under ``atk run``. Some of their tests measure time, and fail
now and then under plain pytest too while the machine is busy. So a suite with differences is run once more under both,
the whole of it, with nothing beside it; a test counts as different if it is in both comparisons. One that was in the
first alone is shown in the summary as unsteady.

The share of the shared loop counts the coroutine functions whose loop is asyncio's: neither sync tests nor those that
ask for trio could run there. The share of all coroutine functions, trio's included, is shown beside it.
"""

from __future__ import annotations

import platform
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import pytest
from comparison import Comparison, NothingRanError, compare, share
from installed import CannotInstallError, IndexUnreachableError, install
from limited_process import TimeLimitError
from suites import SUITES

_PYTEST = tuple(map(int, version("pytest").split(".")[:2]))
_HERE = [suite for suite in SUITES if suite.pytest <= _PYTEST]
_LEAST_SHARE = 0.7


@pytest.fixture(scope="module")
def firsts(tmp_path_factory, request, summary):
    """The first comparison of each suite that is asked for, or what kept it from being made."""
    asked = {item.callspec.params["suite"].name for item in request.session.items if hasattr(item, "callspec")}
    if any(item.name == test_most_coroutine_tests_run_beside_each_other.__name__ for item in request.session.items):
        asked |= {suite.name for suite in _HERE if suite.is_named}
    with ThreadPoolExecutor(2) as pool:
        made = {
            suite.name: pool.submit(_compared, suite, tmp_path_factory.mktemp(suite.name))
            for suite in _HERE
            if suite.name in asked
        }
    summary.append(f"Python {platform.python_version()}, pytest {version('pytest')}; two suites at once")
    return made


@pytest.mark.parametrize("suite", _HERE, ids=lambda suite: suite.name)
def test_no_difference(suite, firsts, summary, tmp_path):
    first = _of(firsts, suite)
    summary.extend(first.lines)
    differences = _unknown(first, suite)
    if differences:
        again = {difference.nodeid for difference in _unknown(compare(install(suite), tmp_path), suite)}
        summary.extend(f"    unsteady: {one}" for one in differences if one.nodeid not in again)
        differences = [one for one in differences if one.nodeid in again]
    if differences:
        pytest.fail("\n".join(map(str, differences)), pytrace=False)


def test_most_coroutine_tests_run_beside_each_other(firsts, summary):
    named = [_of(firsts, suite) for suite in _HERE if suite.is_named]
    shared, asyncio, other = (sum(getattr(one, count) for one in named) for count in ("shared", "asyncio", "other"))
    summary.append(f"the {len(named)} named suites, beside each other: {share(shared, asyncio, other)}")
    assert shared >= _LEAST_SHARE * asyncio


def _compared(suite, folder):
    return compare(install(suite), folder)


def _of(firsts, suite) -> Comparison:
    try:
        return firsts[suite.name].result()
    except IndexUnreachableError as error:
        pytest.skip(str(error))
    except (CannotInstallError, NothingRanError, TimeLimitError) as error:
        pytest.fail(str(error), pytrace=False)


def _unknown(comparison, suite):
    known = dict(suite.known)
    return [one for one in comparison.differences if one.nodeid not in known]
