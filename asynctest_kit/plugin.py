"""The pytest plugin: the kit's fixtures, in any pytest run.

Under ``atk run`` the fixtures share one event loop and the run's supervisor; under plain pytest they work one test at a
time with the anyio plugin. Nothing heavy is imported here: drivers and provisioning load when a test first needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from asynctest_kit.engine.treatment import MARK, check_marks
from asynctest_kit.errors import SettingsError
from asynctest_kit.fixtures import hidden, losses, services, told_once
from asynctest_kit.fixtures.session import KEY, open_session, session_of

if TYPE_CHECKING:
    from collections.abc import Generator

__all__: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer the engine."""
    group = parser.getgroup("asynctest_kit")
    group.addoption("--atk", action="store_true", help="Run async tests concurrently on one event loop, as `atk run`.")


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, Any, Any]:
    """Run with the engine where ``--atk`` asks for it; in a worker of pytest-xdist the tests come one by one."""
    has_engine = config.pluginmanager.hasplugin("asynctest_kit.engine.late_plugins")  # under `atk run`
    if not config.getoption("atk") or hasattr(config, "workerinput") or has_engine:
        return (yield)
    from asynctest_kit.run.within_pytest import RunWithinPytest

    run = RunWithinPytest(config)
    run.register()
    code = yield
    return run.report(int(code or 0))


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark and the fixtures."""
    config.addinivalue_line("markers", MARK)
    if KEY not in config.stash:
        from asynctest_kit.fixtures import plain

        open_session(config)
        config.pluginmanager.register(plain, "asynctest_kit-plain")
    config.pluginmanager.register(services, "asynctest_kit-services")
    config.pluginmanager.register(losses, "asynctest_kit-losses")
    config.pluginmanager.register(told_once, "asynctest_kit-told-once")
    config.pluginmanager.register(hidden, "asynctest_kit-hidden")
    from asynctest_kit.fixtures.declared import DeclaredServices

    session = session_of(config)
    declared = DeclaredServices(session, config)
    try:
        declared.register(session.services_in_settings, "the settings")
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(declared, "asynctest_kit-declared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse an ``atk`` mark that says something unknown."""
    check_marks(items)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Start every service that a collected test needs, all at once, before the first test."""
    services_session = session_of(session.config)
    names = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    needed = services_session.needed(names)
    try:
        services_session.check_variables(needed)
        if not session.config.option.collectonly and not services_session.is_for_show:
            services_session.prestart(needed)
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave the supervisor, which removes what nobody else uses."""
    if KEY in config.stash:
        session_of(config).close()
