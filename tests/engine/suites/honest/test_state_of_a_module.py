"""A fixture of this module patches for this module's tests alone."""

import asyncio
from unittest import mock

import flags
import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", autouse=True)
def on():
    with mock.patch("flags.FLAG", "on"):
        yield


async def test_on():
    await asyncio.sleep(0.05)
    assert flags.FLAG == "on"
