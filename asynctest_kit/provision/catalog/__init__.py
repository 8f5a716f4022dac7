"""The kinds of service that can be asked for, one module each.

Asking (:func:`spec_for`) happens in processes that must start fast, so a kind's module is imported only where the
service is started (:func:`kind_of`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.service import ProviderChoice, ServiceSpec

if TYPE_CHECKING:
    from asynctest_kit.provision.catalog.kind import Kind
    from asynctest_kit.settings import ServiceSettings

__all__ = ["kind_of", "spec_for"]


def spec_for(service: ServiceSettings, *, provider: ProviderChoice) -> ServiceSpec:
    """The spec that settings ask for.

    Args:
        service: One service's settings.
        provider: The run's choice; the service's own wins, and a URL wins over both.
    """
    return ServiceSpec(
        name=service.name,
        kind=service.kind,
        provider="external" if service.url else service.provider or provider,
        image=service.image,
        url=service.url,
        environment=dict(service.environment),
        command=tuple(service.command),
        startup_timeout=service.startup_timeout,
    )


def kind_of(spec: ServiceSpec) -> Kind:
    """The catalogue's entry for ``spec``.

    Raises:
        ProvisionError: There is none.
    """
    match spec.kind:
        case "postgres":
            from asynctest_kit.provision.catalog.postgres import POSTGRES

            return POSTGRES
        case "redis":
            from asynctest_kit.provision.catalog.redis import REDIS

            return REDIS
        case unknown:
            raise ProvisionError(f"Service {spec.name!r} is of the kind {unknown!r}, which the catalogue doesn't have.")
