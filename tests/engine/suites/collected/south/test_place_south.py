"""
>>> 1 + 1
2
"""

import pytest


def pytest_generate_tests(metafunc):
    if "multiplied" in metafunc.fixturenames:
        metafunc.parametrize("multiplied", [metafunc.function.__name__, "x"])


@pytest.mark.anyio
async def test_multiplied(multiplied, place):
    pass


@pytest.mark.anyio
async def test_multiplied_too(multiplied, place):
    pass


@pytest.mark.anyio
async def test_plain(place):
    pass


@pytest.mark.anyio
async def test_plain_too(place):
    pass
