"""A sync test over an async fixture that no plugin runs."""

import pytest


@pytest.fixture
async def orphan():
    return "orphan"


@pytest.fixture(autouse=True)
async def orphan_autouse():
    yield


def test_sync(orphan):
    assert orphan == "orphan"
