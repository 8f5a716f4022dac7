"""No test here sees what is patched for the tests of another folder."""

import asyncio
import os

import product
import pytest
from trail import used

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("number", range(6))
async def test_never_sees_it(number):
    with used(f"plain-{number}"):
        for _ in range(20):
            assert (product.Settings.DEBUG, product.Settings.LIMIT) == (False, 10)
            assert product.Settings.extra == {"mode": "real"}
            assert product.now() != 42.0
            assert "AMBIENT" not in os.environ
            await asyncio.sleep(0)


def test_sync_never_sees_it():
    with used("alone-sync-plain"):
        assert product.Settings.LIMIT == 10
