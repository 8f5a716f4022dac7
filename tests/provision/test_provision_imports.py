"""What is imported before pytest must be light."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["asynctest_kit.provision.client", "asynctest_kit.provision.catalog"])
def test_what_a_runner_imports_first_is_light(module):
    heavy = ("asyncio", "anyio", "aiodocker", "aiohttp", "asyncpg", "redis", "pytest")
    script = f"import sys, {module}; print(*sorted(set({heavy!r}) & set(sys.modules)))"
    assert subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=True).stdout == "\n"


def test_a_supervisor_imports_no_driver_until_it_is_asked():
    heavy = ("anyio", "aiodocker", "aiohttp", "asyncpg", "redis", "pytest")
    script = f"import sys, asynctest_kit.provision.supervisor; print(*sorted(set({heavy!r}) & set(sys.modules)))"
    assert subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=True).stdout == "\n"
