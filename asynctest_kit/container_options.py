"""How a service's container is made beyond what its kind says, and where images come from: plain frozen data.

Two services that differ in one of these are two services, but for when and for how long images are pulled and built.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

__all__ = ["Build", "ContainerOptions", "CopiedFile", "ImageSource", "PullPolicy", "Ulimit", "Volume"]

PullPolicy: TypeAlias = Literal["missing", "always", "never"]

_HUB = "docker.io/"


class ImageSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where images come from, for all services.

    Attributes:
        prefix: Registry, or registry and path, that images of Docker Hub are fetched from instead; None for the Hub.
        substitutes: Images by the names that are used instead; no prefix is added to these.
        pull: ``missing``: only what is not there. ``always``: each time. ``never``.
        stall: Seconds without progress after which a pull is given up.
    """

    prefix: str | None = None
    substitutes: dict[str, str] = {}
    pull: PullPolicy = "missing"
    stall: float = 30.0

    def name_of(self, image: str) -> str:
        """The name under which ``image`` is to be had."""
        if substitute := self.substitutes.get(image):
            return substitute

        name = image.removeprefix(_HUB)
        first, slash, _ = name.partition("/")
        is_elsewhere = slash and ("." in first or ":" in first or first == "localhost")
        if self.prefix is None or is_elsewhere:
            return image
        return f"{self.prefix.rstrip('/')}/{name}"


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is built from a Dockerfile. Its repr shows no arguments, which may be secret.

    Attributes:
        context: Absolute path of the folder that is sent to the engine, but for what its ``.dockerignore`` names.
        dockerfile: Path in it.
        arguments: Values of the Dockerfile's ``ARG``.
        target: The stage to stop at; None for the last.
        timeout: Seconds for all of it.
        digest: Of what is sent; filled in when the service is asked for.
    """

    context: str
    dockerfile: str = "Dockerfile"
    arguments: dict[str, str] = {}
    target: str | None = None
    timeout: float = 600.0
    digest: str = ""

    def __repr__(self) -> str:
        return f"<Build of {self.context}/{self.dockerfile}>"


class CopiedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file, or a folder with all in it, that is copied into a container before it starts.

    Attributes:
        target: Absolute path in the container.
        source: Absolute path here; None if there is ``content``.
        content: The file's text, which the repr doesn't show.
        mode: Permission bits of files; None for those of the source (0o644 for a text).
        owner: User and group, by number.
        digest: Of the source; filled in when the service is asked for.
    """

    target: str
    source: str | None = None
    content: str | None = None
    mode: int | None = None
    owner: tuple[int, int] = (0, 0)
    digest: str = ""

    def __repr__(self) -> str:
        return f"<CopiedFile {self.target} from {self.source or 'a text'}>"


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """What is mounted into a container.

    Attributes:
        source: A name, or the absolute path of a folder or file here.
        target: Absolute path in the container.
        is_read_only: Whether the container may only read it.
    """

    source: str
    target: str
    is_read_only: bool = False

    @property
    def is_bind(self) -> bool:
        """Whether it is a folder or file of this machine, and no named volume of the run."""
        return self.source.startswith("/")


class Ulimit(msgspec.Struct, frozen=True, kw_only=True):
    """A resource limit of the container's processes, as ``nofile``."""

    name: str
    soft: int
    hard: int


class ContainerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a container is made, beyond what the service's kind says.

    Attributes:
        pull: When its image is pulled; None for what holds for all services.
        platform: As ``linux/amd64``; None for the engine's own.
        build: Build the image instead of pulling it.
        memory: Bytes that it may use, what it keeps in memory included; None for no limit.
        cpus: How many processors' time it may use; None for no limit.
        pids: How many processes it may have; None for no limit.
        shm_size: Bytes of ``/dev/shm``; None for the provider's choice.
        ulimits: Limits of its processes.
        volumes: What is mounted; named volumes are of one run, shared by its services, and removed with the last.
        tmpfs: Paths that are kept in memory, with their mount options.
        files: What is copied in before it starts.
        init_scripts: Absolute paths of files and folders that run once, when the data is made: SQL, shell scripts.
        networks: Names of networks, shared by the services of a run, on which it is known by the service's name.
        aliases: Other names by which it is known on these.
        extra_hosts: Addresses by host name; ``host-gateway`` is the engine's host.
        user: As whom it runs; None for the image's user.
        working_dir: Where; None for the image's.
        entrypoint: Instead of the image's; None for the image's.
    """

    pull: PullPolicy | None = None
    platform: str | None = None
    build: Build | None = None
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    shm_size: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    volumes: tuple[Volume, ...] = ()
    tmpfs: dict[str, str] = {}
    files: tuple[CopiedFile, ...] = ()
    init_scripts: tuple[CopiedFile, ...] = ()
    networks: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    extra_hosts: dict[str, str] = {}
    user: str | None = None
    working_dir: str | None = None
    entrypoint: tuple[str, ...] | None = None

    @property
    def essential(self) -> tuple[str, ...]:
        """Those that are set and without which it would be another service, as settings call them."""
        essential = ("build", "entrypoint", "extra_hosts", "files", "init_scripts", "networks", "volumes")
        return tuple(name.replace("_", "-") for name in essential if getattr(self, name))
