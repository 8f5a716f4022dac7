"""MockServer: expectations over HTTP, for all tests at once.

It writes down warnings alone: at its usual level every expectation that doesn't match a request is told. What nothing
matches is not passed on to where its Host header leads, which may be here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctest_kit.provision.catalog.java import FOR_THE_IMAGE, from_jar, no_login
from asynctest_kit.provision.catalog.kind import ContainerPlan, Kind, Login, Site
from asynctest_kit.provision.readiness.admin import AdminAnswer

if TYPE_CHECKING:
    from asynctest_kit.provision.service import ServiceSpec

__all__ = ["MOCKSERVER"]

_PORT = 1080

_PROPERTIES = ("logLevel=WARN", "attemptToProxyIfNoMatchingExpectation=false")

#: The same for the image.
_FOR_THE_IMAGE = {
    "MOCKSERVER_LOG_LEVEL": "WARN",
    "MOCKSERVER_ATTEMPT_TO_PROXY_IF_NO_MATCHING_EXPECTATION": "false",
}


def _container(spec: ServiceSpec, _login: Login) -> ContainerPlan:
    return ContainerPlan(
        environment=FOR_THE_IMAGE | _FOR_THE_IMAGE | spec.environment,
        command=("-serverPort", str(_PORT), *spec.command),
        memory=(),
    )


def _serve(site: Site, port: int) -> tuple[str, ...]:
    properties = ("localBoundIP=127.0.0.1", "proxySetupLogging=false", *_PROPERTIES)
    options = tuple(f"-Dmockserver.{one}" for one in properties)
    return (*options, "-jar", str(site.jar), "-serverPort", str(port))


MOCKSERVER = Kind(
    name="mockserver",
    title="MockServer",
    schemes=("http", "https"),
    port=_PORT,
    image="mockserver/mockserver:mockserver-8.0.0",
    handshake=AdminAnswer(server="MockServer", method="PUT", path="/mockserver/status", sign=b'"ports"'),
    login=no_login,
    container=_container,
    embedded=from_jar(_serve),
)
