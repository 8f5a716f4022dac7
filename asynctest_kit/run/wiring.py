"""What connects the parts of a run: settings and supervisor to the fixtures, their timings to the event stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from asynctest_kit.engine.events import ServiceFailed, ServicePhase, ServiceReady
from asynctest_kit.engine.stashed import waits_now
from asynctest_kit.fixtures import shared
from asynctest_kit.fixtures.session import open_session, session_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from asynctest_kit.engine.events import Sink
    from asynctest_kit.fixtures.ahead import Ahead
    from asynctest_kit.fixtures.session import ServiceSession
    from asynctest_kit.provision.client import Client
    from asynctest_kit.provision.service import ServicePhase as Measured
    from asynctest_kit.run.record import Record
    from asynctest_kit.settings import Settings

__all__ = ["Wiring"]


@dataclass(eq=False, slots=True)
class Wiring:
    """A pytest plugin for the time of one run with the engine.

    Attributes:
        settings: The run's settings.
        client: The supervisor's client, if the last run's services are being started already.
        sink: Where events go.
        record: Remembers what this run needs, for the next one.
        ahead: What is made for the last run's services meanwhile.
        session: The services of the pytest session, once it is configured.
    """

    settings: Settings
    client: Client | None
    sink: Sink
    record: Record
    ahead: Ahead | None = None
    session: ServiceSession | None = None
    _config: pytest.Config | None = field(default=None, init=False)

    @property
    def connected(self) -> Client | None:
        """The supervisor's client, if any service was asked for so far."""
        return self.client if self.session is None else self.session.connected

    @property
    def waits(self) -> list[tuple[str, float]]:
        """Which tests wait for which, in words, and since when."""
        return [] if self._config is None else waits_now(self._config)

    @property
    def plugins(self) -> tuple[str, ...]:
        """The modules of the installed plugins that pytest has loaded."""
        if self._config is None:
            return ()
        return tuple(
            plugin.__name__
            for plugin, _ in self._config.pluginmanager.list_plugin_distinfo()
            if isinstance(plugin, ModuleType)
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Give the fixtures this run's settings and loop."""
        self._config = config
        self.session = open_session(config, settings=self.settings, client=self.client, shared_loop=True)
        self.session.sink = self.sink
        self.session.ahead = self.ahead
        config.pluginmanager.register(shared, "asynctest_kit-shared")

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_finish(self, session: pytest.Session) -> Generator[None]:
        """Remember what is needed, so that the next run starts it before pytest is imported."""
        yield
        self.record.keep(session.config, sorted(session_of(session.config).needed(session.items)))

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Hand on what the services took; their removal is over by now."""
        services = session_of(config)
        client = services.connected
        if client is None:
            return
        for phase in client.phases:
            name = _told_as(phase.service)
            self.sink(ServicePhase(service=name, phase=phase.phase, start=phase.start, end=phase.end))
        waiting: dict[str, list[str]] = {}
        for fixture, service in services.service_fixtures.items():
            waiting.setdefault(service, []).append(fixture)
        for name in dict.fromkeys(phase.service for phase in client.phases):
            if name not in client.endpoints and _told_as(name) == name:
                self.sink(ServiceFailed(service=name, fixtures=tuple(waiting.get(name, ()))))
        for name, endpoint in client.endpoints.items():
            if _told_as(name) != name:
                continue  # one that is still there, for its test was cut off
            ready = [phase.end for phase in client.phases if phase.service == name and phase.phase == "ready"]
            self.sink(
                ServiceReady(
                    service=name,
                    provider=endpoint.provider,
                    detail=endpoint.detail,
                    at=max(ready, default=0.0),
                    fixtures=tuple(waiting.get(name, ())),
                )
            )
        for event in _own_servers(client.phases):
            self.sink(event)


def _own_servers(phases: Iterable[Measured]) -> Iterator[ServiceReady]:
    """Servers of single tests: of each service as one, which nothing waited for but those tests."""
    ready: dict[str, list[Measured]] = {}
    for phase in phases:
        if phase.phase == "ready" and _told_as(phase.service) != phase.service:
            ready.setdefault(_told_as(phase.service), []).append(phase)
    for name, ends in ready.items():
        yield ServiceReady(
            service=name,
            provider=ends[0].provider or "",
            detail=f"{len(ends)} for single tests",
            at=min(phase.end for phase in ends),
            fixtures=(),
        )


def _told_as(service: str) -> str:
    """The service that a phase is of: servers of single tests are told as one."""
    name, is_own, _ = service.partition(".")
    return f"{name} (own)" if is_own else name
