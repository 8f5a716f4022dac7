"""Hooks around fixtures, as conftest files and plugins have them."""

import pytest
from trail import note


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


class Plugin:
    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef, request):
        """Names that stand for fixtures, as the lazy-fixture plugins have them."""
        parameter = getattr(request, "param", None)
        if isinstance(parameter, str) and parameter.startswith("lazy:"):
            request.param = request.getfixturevalue(parameter.removeprefix("lazy:"))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item):
        note("protocol", item.name)
        yield


def pytest_configure(config):
    config.pluginmanager.register(Plugin(), "of-the-suite")


NOTED = {"value", "shared", "broken", "sync", "replaced", "swallowed", "given", "twice_used"}


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef, request):
    name = fixturedef.argname
    if name not in NOTED:
        return (yield)
    note("before", name, request.scope, request.fixturename)
    try:
        value = yield
    except LookupError:
        note("raised", name)
        if name == "swallowed":
            return None
        raise
    note("after", name, value)
    if name == "replaced":
        fixturedef.cached_result = ("replaced by a hook", *fixturedef.cached_result[1:])
    return value


def pytest_fixture_post_finalizer(fixturedef, request):
    if fixturedef.argname in NOTED and fixturedef.cached_result is not None:
        note("finalized", fixturedef.argname)


class Answers:
    def pytest_fixture_setup(self, fixturedef):
        if fixturedef.argname == "given":
            fixturedef.cached_result = ("given by a hook", None, None)
            return "given by a hook"
        return None


def pytest_sessionstart(session):
    session.config.pluginmanager.register(Answers(), "answers")
