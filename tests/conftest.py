"""For all tests of the project."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

# The suites that tests run in processes of their own name the plugins that they are about; these would else be loaded
# into all of them, where the first warns, the second takes the tests over, and the others cost half of the time.
_foreign = ("asyncio", "rerunfailures", "faker", "hypothesispytest", "pact", "respx", "schemathesis", "valkey")
os.environ["PYTEST_ADDOPTS"] = " ".join(f"-p no:{plugin}" for plugin in _foreign)

# In CI pytest's summary repeats whole messages; suites that tests run say there what they say everywhere.
for _name in ("CI", "BUILD_NUMBER"):
    os.environ.pop(_name, None)

#: What every version of Python, pytest and the libraries is to be tested with in full.
_CORE = {"engine", "fixtures", "isolation"}

# A shell's background job ignores Ctrl-C, and so do processes that it starts; tests send it to theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Snapshots of prepared data: each test process has its own, made by the first server that it starts.
_cache = tempfile.TemporaryDirectory(prefix="asynctest_kit-cache-")
os.environ["XDG_CACHE_HOME"] = _cache.name


def pytest_unconfigure():
    """Remove it: a run that ends by ``os._exit`` calls no finalizers. And the images that it names."""
    images = [file.read_text() for file in Path(_cache.name).glob("asynctest_kit/snapshots/*/image")]
    if images:
        subprocess.run(["docker", "rmi", "-f", *images], check=False, capture_output=True)
    _cache.cleanup()


def pytest_collection_modifyitems(items):
    """No test of the core is marked as one that some versions of Python and pytest need not pass."""
    for item in items:
        if item.path.parent.name in _CORE and item.get_closest_marker("once"):
            raise pytest.UsageError(f"{item.nodeid} is one of the core, and runs everywhere: it may not be marked once")


@pytest.fixture(scope="session")
def anyio_backend():
    """asyncio alone: the kit's own tests, as the kit, know no other backend."""
    return "asyncio"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where everything must be there (``TESTS_MAY_NOT_SKIP``, set in CI), a skip is a failure that says why."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("TESTS_MAY_NOT_SKIP"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} may not skip here, and did: {report.longrepr}"
    return report
