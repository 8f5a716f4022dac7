"""Tests of another file, and tests that pytest makes otherwise here."""

import pytest
from test_classes import Shared, TestFirst  # noqa: F401

pytestmark = pytest.mark.anyio


async def test_here():
    pass


async def test_here_too():
    pass


class TestThird(Shared):
    pass
