"""Every test here sees what the autouse fixture of its folder has set."""

import asyncio
import os

import product
import pytest
from trail import used

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
async def before_all(anyio_backend):
    """Under pytest it is set up before any test's own fixtures, so without the change."""
    return product.Settings.DEBUG, product.now() == 42.0


@pytest.mark.parametrize("number", range(6))
async def test_sees_it(number):
    with used(f"patched-{number}"):
        for _ in range(20):
            assert (product.Settings.DEBUG, product.Settings.LIMIT, product.now()) == (True, 99, 42.0)
            assert product.Settings.extra == {"mode": "patched"}
            assert os.environ["AMBIENT"] == "patched"
            await asyncio.sleep(0)


async def test_over_the_session(before_all):
    with used("patched-over-session"):
        assert before_all == (False, False)
        assert product.Settings.DEBUG
        await asyncio.sleep(0)


async def test_of_its_own(counted):
    with used("alone-counted"):
        assert product.Settings.LIMIT == 7
        await asyncio.sleep(0)


async def test_uses_monkeypatch(monkeypatch):
    with used("alone-monkeypatch"):
        monkeypatch.setattr(product.Settings, "REGIONS", ("us",))
        assert product.Settings.DEBUG
        await asyncio.sleep(0)


async def test_undoes(monkeypatch):
    with used("alone-undoes"):
        monkeypatch.undo()
        assert not product.Settings.DEBUG
        await asyncio.sleep(0)


def test_sync():
    with used("alone-sync"):
        assert (product.Settings.LIMIT, product.now()) == (99, 42.0)
