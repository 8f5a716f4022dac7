"""Hooks that count for this folder alone."""

import pytest
from trail import note


def pytest_runtest_setup(item):
    note("below", item.name)
    if item.name == "test_refused":
        pytest.skip("refused below")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    note("called-below", item.name)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef, request):
    if fixturedef.argname in {"anyio_backend", "of_below"}:
        note("set-up-below", fixturedef.argname)
    return (yield)
