"""What the parts of an image's name mean: ``[registry/]repository[:tag][@digest]``."""

from __future__ import annotations

__all__ = ["DOCKER_HUB", "name_and_tag", "registry_of"]

DOCKER_HUB = "docker.io"


def registry_of(image: str) -> str:
    """The registry that an image comes from, e.g. ``docker.io`` or ``registry.example:5000``."""
    first, slash, _ = image.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost")
    return first if is_host else DOCKER_HUB


def name_and_tag(image: str) -> tuple[str, str]:
    """The name and the tag, which is ``latest`` if none is said and empty if there is a digest."""
    if "@" in image:
        return image, ""

    name, colon, tag = image.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (image, "latest")
