"""Services in Python: declare them at the top of a ``conftest.py``, and ask for them by fixtures of their names.

    from asynctest_kit.services import Http, container

    API = container(
        "api",
        "shop/api:1",
        ports={"http": 8080},
        scheme="http",
        wait=Http("/health"),
        environment={"DATABASE_URL": "{postgres.url}"},
    )

    async def test_api_answers(api):  # its Endpoint
        async with httpx.AsyncClient(base_url=api.url) as client: ...

It is the same as a table ``[tool.asynctest_kit.services.api]`` in ``pyproject.toml``, which ``atk up`` knows, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from asynctest_kit.container_options import Build, ContainerOptions, CopiedFile, Ulimit, Volume
from asynctest_kit.containers import AllOf, AnyOf, Command, Handshake, Health, Http, Listening, Log, Port, Wait
from asynctest_kit.provision.service import Endpoint
from asynctest_kit.settings import ProviderChoice
from asynctest_kit.settings import ServiceSettings as Service

__all__ = [
    "AllOf",
    "AnyOf",
    "Build",
    "Command",
    "ContainerOptions",
    "CopiedFile",
    "Endpoint",
    "Handshake",
    "Health",
    "Http",
    "Listening",
    "Log",
    "Port",
    "Service",
    "Ulimit",
    "Volume",
    "Wait",
    "container",
]


def container(  # noqa: PLR0913 (what a container may be told)
    name: str,
    image: str,
    *,
    ports: Mapping[str, int | Port] | None = None,
    scheme: str = "tcp",
    wait: Wait | Sequence[Wait] | None = None,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] = (),
    needs: Sequence[str] = (),
    once: bool = False,
    provider: ProviderChoice | None = None,
    startup_timeout: float | None = None,
    options: ContainerOptions | None = None,
) -> Service:
    """Declare a container of any image.

    Args:
        name: Of the service, and of the fixture that gives its :class:`Endpoint` (with _ for each -).
        image: Of the container.
        ports: What it exposes, by name, the main port first.
        scheme: Of the URLs of those ports that are given as numbers.
        wait: What it waits for until it is ready, or all of several; None for all of its ports.
        environment: Variables, with templates such as ``{postgres.url}``.
        command: Arguments for the image's entry point, with templates.
        needs: Names of services that must be ready before it starts; those in templates are among them anyway.
        once: Whether it is run to its end, once, and is ready when that was with exit code 0.
        provider: Who should give it; containers are Docker's to give.
        startup_timeout: Seconds from asked, or from when all that it needs is ready, to ready; by default 60, and 5
            for a server of yours in its place.
        options: How its container is made beyond that: limits, volumes, files and so on.
    """
    try:
        exposed = {key: port if isinstance(port, Port) else Port(port, scheme) for key, port in (ports or {}).items()}
    except ValueError as error:
        raise ValueError(f"The ports of the service {name!r} can't be used: {error}.") from None
    return Service(
        name=name,
        image=image,
        provider=provider,
        environment=MappingProxyType(dict(environment or {})),
        command=tuple(command),
        startup_timeout=startup_timeout,
        ports=MappingProxyType(exposed),
        wait=AllOf(tuple(wait)) if isinstance(wait, Sequence) else wait,
        needs=tuple(needs),
        once=once,
        container=options or ContainerOptions(),
    )
