"""WireMock: stubs over HTTP, for all tests at once.

It delays answers without a thread for each, and doesn't write down what it answers: its journal has that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctest_kit.provision.catalog.java import FOR_THE_IMAGE, from_jar, no_login
from asynctest_kit.provision.catalog.kind import ContainerPlan, Kind, Login, Site
from asynctest_kit.provision.readiness.admin import AdminAnswer

if TYPE_CHECKING:
    from asynctest_kit.provision.service import ServiceSpec

__all__ = ["WIREMOCK"]

_OPTIONS = (
    "--disable-banner",
    "--disable-request-logging",
    *("--container-threads", "64"),
    *("--async-response-enabled", "true"),
    *("--async-response-threads", "16"),
)


def _container(spec: ServiceSpec, _login: Login) -> ContainerPlan:
    return ContainerPlan(environment=FOR_THE_IMAGE | spec.environment, command=(*_OPTIONS, *spec.command), memory=())


def _serve(site: Site, port: int) -> tuple[str, ...]:
    place = ("--bind-address", "127.0.0.1", "--port", str(port), "--root-dir", str(site.directory))
    return ("-jar", str(site.jar), *place, *_OPTIONS)


WIREMOCK = Kind(
    name="wiremock",
    title="WireMock",
    schemes=("http", "https"),
    port=8080,
    image="wiremock/wiremock:3.13.2",
    handshake=AdminAnswer(server="WireMock 3", method="GET", path="/__admin/health", sign=b'"healthy"'),
    login=no_login,
    container=_container,
    embedded=from_jar(_serve),
)
