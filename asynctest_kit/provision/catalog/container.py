"""A container of any image: what it is, its user says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctest_kit.provision.catalog.kind import ContainerPlan, Kind, Login

if TYPE_CHECKING:
    from asynctest_kit.provision.service import ServiceSpec

__all__ = ["CONTAINER"]


def _login(_spec: ServiceSpec, _password: str) -> Login:
    return Login(username=None, password="", database=None)


def _container(spec: ServiceSpec, _login: Login) -> ContainerPlan:
    return ContainerPlan(environment=spec.environment, command=spec.command, memory=())


CONTAINER = Kind(
    name="container",
    title="a container of an image",
    schemes=(),
    port=0,
    image="",
    handshake=None,
    login=_login,
    container=_container,
    embedded=None,
)
