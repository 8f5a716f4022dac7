"""The kinds of service that can be asked for, one module each.

Asking (:func:`spec_for`) happens in processes that must start fast, so a kind's module is imported only where the
service is started (:func:`kind_of`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctest_kit.errors import MigrationError, ProvisionError
from asynctest_kit.provision.service import ServiceSpec, provider_variable, shared_name
from asynctest_kit.wiring import needed

if TYPE_CHECKING:
    from asynctest_kit.container_options import ContainerOptions
    from asynctest_kit.provision.catalog.kind import Kind
    from asynctest_kit.provision.service import Endpoint
    from asynctest_kit.settings import ServiceSettings, Settings

__all__ = ["kind_of", "names_image", "replaced_image", "server_digest", "spec_for"]

#: Seconds that a start may take where the settings don't say it; and the answer of a server that should be up already,
#: though CI's may be a moment late.
_START = 60.0
_ANSWER = 5.0


def spec_for(name: str, settings: Settings) -> ServiceSpec:
    """The spec of a service that the settings know, with those that it needs in it.

    Raises:
        ProvisionError: A file that goes into its container can't be read.
    """
    service = settings.services[name]
    if service.shares is not None:
        server = spec_for(service.shares, settings)
        return ServiceSpec(
            name=service.name,
            kind=service.kind,
            provider=server.provider,
            startup_timeout=service.startup_timeout or _START,
            needs=(server,),
            migrations=server.migrations,
            shares=True,
        )
    return ServiceSpec(
        name=service.name,
        kind=service.kind,
        provider="external" if service.url else service.provider or settings.provider,
        image=service.image,
        url=service.url,
        jar=None if service.jar is None else str(service.jar),
        environment=dict(service.environment),
        command=(*service.command, *_options(service)),
        startup_timeout=service.startup_timeout or (_ANSWER if service.url else _START),
        ports=dict(service.ports),
        wait=service.wait,
        # A server of the user's own is there already, whatever a container in its place would need.
        needs=() if service.url else tuple(spec_for(need, settings) for need in needed(service)),
        once=service.once,
        container=_read(service),
        images=settings.images,
        publish_openly=settings.publish_openly,
        snapshots=settings.snapshots,
        migrations=server_digest(name, settings),
    )


def _options(service: ServiceSettings) -> tuple[str, ...]:
    """The settings of a server that we start, as arguments."""
    settings = {} if service.url else service.preparation.settings
    return tuple(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))


def server_digest(name: str, settings: Settings) -> str:
    """The digest of all migrations that are made on a service's server, those of the services that share it too."""
    service = settings.services[name]
    if service.kind != "postgres" or service.url:
        return ""

    import hashlib

    from asynctest_kit.provision.migration_files import digest_of

    beside = [settings.services[other] for other in settings.on_server(name) if other != name]
    try:
        own, *others = (digest_of(one.migrations, one.preparation, root=settings.root) for one in (service, *beside))
    except MigrationError:  # who makes them is told
        return ""
    if not any(others):
        return own
    names = (one.name for one in beside)
    return hashlib.sha256("\0".join((own, *names, *others)).encode()).hexdigest()[:16]


def _read(service: ServiceSettings) -> ContainerOptions:
    options = service.container
    if not (options.files or options.init_scripts or options.build):
        return options

    from asynctest_kit.provision.copied_files import with_digests

    return with_digests(options, service.name)


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
        case "wiremock":
            from asynctest_kit.provision.catalog.wiremock import WIREMOCK

            return WIREMOCK
        case "mockserver":
            from asynctest_kit.provision.catalog.mockserver import MOCKSERVER

            return MOCKSERVER
        case "container":
            from asynctest_kit.provision.catalog.container import CONTAINER

            return CONTAINER
        case unknown:
            raise ProvisionError(f"Service {spec.name!r} is of the kind {unknown!r}, which the catalogue doesn't have.")


def names_image(spec: ServiceSpec) -> bool:
    """Whether the settings say which image it runs, or how to build it, and name no jar for where there is none.

    Raises:
        ProvisionError: The catalogue doesn't have its kind.
    """
    if spec.jar is not None:
        return False
    is_named = spec.image is not None or spec.container.build is not None
    return is_named or kind_of(spec).image in spec.images.substitutes


def replaced_image(spec: ServiceSpec, endpoint: Endpoint) -> str:
    """That a local server was given in the place of an image that the settings name; empty if it was not.

    Args:
        spec: What was asked for.
        endpoint: What was given.
    """
    if endpoint.provider != "embedded" or spec.provider != "auto" or not names_image(spec):
        return ""
    build, name = spec.container.build, shared_name(spec.name)
    image = spec.images.name_of(spec.image or kind_of(spec).image) if build is None else f"built from {build.context}"
    return (
        f"{name}: {endpoint.detail} was taken in the place of the image {image}. Start a Docker engine, or set "
        f'provider = "embedded" ({provider_variable(name)}=embedded) if a local server is meant.'
    )
