"""The pytest plugin: the kit's fixtures, in any pytest run.

Under ``atk run`` the fixtures share one event loop and the run's supervisor; under plain pytest they work one test at a
time with the anyio plugin. Nothing heavy is imported here: drivers and provisioning load when a test first needs them.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from asynctest_kit.engine.treatment import MARK, check_marks
from asynctest_kit.errors import SettingsError
from asynctest_kit.fixtures import (
    escapes,
    full_servers,
    graphql,
    hidden,
    http,
    lock_waits,
    losses,
    migrations,
    openapi,
    pacts,
    redis_refusals,
    refusals,
    services,
    sqlalchemy,
    stubs,
    test_data,
)
from asynctest_kit.fixtures.replaced_images import ReplacedImages
from asynctest_kit.fixtures.session import KEY, open_session, session_of
from asynctest_kit.fixtures.told_once import ToldOnce
from asynctest_kit.fixtures.written import WrittenFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

    from asynctest_kit.provision.client import Client

__all__: list[str] = []

#: Begins to show services while they start, where somebody sees it.
_SHOW: pytest.StashKey[Callable[[], None]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer the engine."""
    group = parser.getgroup("asynctest_kit")
    group.addoption("--atk", action="store_true", help="Run async tests concurrently on one event loop, as `atk run`.")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, Any, Any]:
    """Let what pytest prints pass through the services view, which needs it before capturing begins."""
    if _may_show(early_config):
        watching = ExitStack()
        early_config.stash[_SHOW] = watching.enter_context(_watched(early_config))
        early_config.add_cleanup(watching.close)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, Any, Any]:
    """Run with the engine where ``--atk`` asks for it; in a worker of pytest-xdist the tests come one by one."""
    if not config.getoption("atk") or hasattr(config, "workerinput") or _is_atk_run(config):
        return (yield)
    from asynctest_kit.engine.interrupts import raising
    from asynctest_kit.run.within_pytest import RunWithinPytest

    run = RunWithinPytest(config)
    run.register()
    with raising():
        code = yield
    return run.report(int(code or 0))


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark and the fixtures."""
    config.addinivalue_line("markers", MARK)
    if KEY not in config.stash:
        from asynctest_kit.fixtures import plain

        open_session(config)
        config.pluginmanager.register(plain, "asynctest_kit-plain")
    session_of(config).on_connected = config.stash.get(_SHOW, None)
    config.pluginmanager.register(services, "asynctest_kit-services")
    config.pluginmanager.register(sqlalchemy, "asynctest_kit-sqlalchemy")
    config.pluginmanager.register(test_data, "asynctest_kit-test-data")
    config.pluginmanager.register(http, "asynctest_kit-http")
    config.pluginmanager.register(stubs, "asynctest_kit-stubs")
    config.pluginmanager.register(pacts, "asynctest_kit-pacts")
    config.pluginmanager.register(pacts.PactFiles(config), "asynctest_kit-pact-files")
    config.pluginmanager.register(WrittenFiles(config), "asynctest_kit-written-files")
    config.pluginmanager.register(ReplacedImages(config), "asynctest_kit-replaced-images")
    config.pluginmanager.register(migrations, "asynctest_kit-migrations")
    config.pluginmanager.register(openapi, "asynctest_kit-openapi")
    config.pluginmanager.register(graphql, "asynctest_kit-graphql")
    config.pluginmanager.register(losses, "asynctest_kit-losses")
    config.pluginmanager.register(redis_refusals, "asynctest_kit-redis-refusals")
    config.pluginmanager.register(refusals, "asynctest_kit-refusals")
    config.pluginmanager.register(lock_waits, "asynctest_kit-lock-waits")
    config.pluginmanager.register(full_servers, "asynctest_kit-full-servers")
    config.pluginmanager.register(escapes, "asynctest_kit-escapes")
    once = ToldOnce(config, is_worker=hasattr(config, "workerinput"))
    config.pluginmanager.register(once, "asynctest_kit-told-once")
    config.pluginmanager.register(hidden, "asynctest_kit-hidden")
    from asynctest_kit.fixtures.declared import DeclaredServices

    session = session_of(config)
    declared = DeclaredServices(session, config)
    try:
        declared.register(session.services_in_settings, "the settings")
        declared.register_usual()
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
    try:
        services_session.check_variables(services_session.needed(session.items))
        services_session.place(session.items)
        services_session.leave_out_shared(session.items)
        needed = services_session.needed(session.items)
        if not session.config.option.collectonly and not services_session.is_for_show:
            services_session.prestart(needed)
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave the supervisor, which removes what nobody else uses."""
    if KEY in config.stash:
        session_of(config).close()


def _is_atk_run(config: pytest.Config) -> bool:
    """Whether the run is the command's, which does by itself what is done here for pytest's."""
    return config.pluginmanager.hasplugin("asynctest_kit.engine.late_plugins")


def _may_show(config: pytest.Config) -> bool:
    """Whether services may be shown while they start: where somebody sees it, and wants to.

    Without capturing, what a test's child processes print would come between.
    """
    options = config.known_args_namespace
    is_in_the_way = getattr(options, "capture", "no") == "no" or getattr(options, "usepdb", False)
    if is_in_the_way or options.verbose < 0 or os.environ.get("CI") or _is_atk_run(config):
        return False
    try:
        return os.environ.get("TERM", "dumb") != "dumb" and sys.stdout.isatty() and sys.stdout.fileno() >= 0
    except (AttributeError, ValueError, OSError):  # something else, or closed
        return False


def _watched(config: pytest.Config) -> AbstractContextManager[Callable[[], None]]:
    from asynctest_kit.engine.stashed import waits_now
    from asynctest_kit.report.live import watched_output

    return watched_output(lambda: _connected(config), lambda: waits_now(config))


def _connected(config: pytest.Config) -> Client | None:
    return config.stash[KEY].connected if KEY in config.stash else None
