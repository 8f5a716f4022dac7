"""State of the process, changed in ways that no fixture shows."""

import asyncio
import contextlib
import io
import sys
import unittest.mock as other_name
from unittest.mock import patch as other_patch

import flags
import pytest
from support import flag, flagged

pytestmark = pytest.mark.anyio


async def nap():
    await asyncio.sleep(0.02)


async def test_patched_by_a_module_of_another_name():
    with other_name.patch("flags.FLAG", "mock"):
        await nap()
        assert flags.FLAG == "mock"


async def test_patched_by_a_function_of_another_name():
    with other_patch("flags.FLAG", "patch"):
        await nap()
        assert flags.FLAG == "patch"


async def test_patched_by_a_context():
    with pytest.MonkeyPatch.context() as patcher:
        patcher.setattr(flags, "FLAG", "context")
        await nap()
        assert flags.FLAG == "context"


async def test_patched_by_a_helper():
    with flag("helper"):
        await nap()
        assert flags.FLAG == "helper"


@flagged
async def test_patched_by_a_decorator():
    await nap()
    assert flags.FLAG == "decorated"


async def test_assigned():
    flags.FLAG = "assigned"
    await nap()
    assert flags.FLAG == "assigned"
    flags.FLAG = "original"


async def test_arguments():
    before, sys.argv = sys.argv, ["mine"]
    await nap()
    assert sys.argv == ["mine"]
    sys.argv = before


async def test_redirected():
    with contextlib.redirect_stdout(io.StringIO()) as out:
        await nap()
        print("mine")
    assert out.getvalue() == "mine\n"


@pytest.mark.parametrize("number", range(8))
async def test_unchanged(number):
    for _ in range(5):
        await nap()
        assert flags.FLAG == "original"
