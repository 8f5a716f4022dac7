"""Whether a server of stubs can be had: not everybody who tries this example has WireMock and MockServer.

A suite of yours, whose settings or default image say where they come from, needs none of this.
"""

from __future__ import annotations

import os

#: By which variables a provider finds one, of those that begin with ``ATK_`` and the product's name.
_WAYS = {"auto": {"IMAGE", "JAR", "URL"}, "docker": {"IMAGE", "URL"}, "embedded": {"JAR", "URL"}, "external": {"URL"}}


def is_named(product: str) -> bool:
    """Whether the environment names a server of ``product`` for the provider that it allows."""
    provider = os.environ.get(f"ATK_{product}_PROVIDER") or os.environ.get("ATK_PROVIDER") or "auto"
    return any(os.environ.get(f"ATK_{product}_{way}") for way in _WAYS.get(provider, ()))
