"""What a platform's name means: ``system/architecture[/variant]``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["is_for", "parts_of"]

#: Architectures by the other names that they go by.
_NAMES = {"aarch64": "arm64", "i386": "386"}


def parts_of(platform: str) -> dict[str, str]:
    """A platform in the words of OCI: ``os``, ``architecture``, and ``variant`` if it has one."""
    system, architecture, *variant = platform.lower().split("/")
    parts = {"os": system, "architecture": _NAMES.get(architecture, architecture)}
    return parts | ({"variant": variant[0]} if variant else {})


def is_for(platform: str, image: Mapping[str, Any]) -> bool:
    """Whether an image, as the engine describes it, is one for that platform.

    A processor runs what was made for an older variant of it too.
    """
    wanted, variant = parts_of(platform), image.get("Variant") or ""
    is_like = (image["Os"], image["Architecture"]) == (wanted["os"], wanted["architecture"])
    return is_like and variant <= wanted.get("variant", variant)
