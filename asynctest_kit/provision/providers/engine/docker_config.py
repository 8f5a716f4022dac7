"""The user's Docker configuration: ``config.json`` and the contexts beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["configuration", "context_endpoint", "folder"]


def folder(environ: Mapping[str, str]) -> Path:
    """Where it is: DOCKER_CONFIG, else ``~/.docker``."""
    return Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME", "/")) / ".docker")


def configuration(environ: Mapping[str, str]) -> dict[str, Any]:
    """The content of ``config.json``; empty if it can't be read."""
    return _json_file(folder(environ) / "config.json")


def context_endpoint(environ: Mapping[str, str]) -> tuple[dict[str, Any], Path] | None:
    """The engine of the context in use, and the folder of its TLS material; None for the default context."""
    name = environ.get("DOCKER_CONTEXT") or configuration(environ).get("currentContext")
    if not name or name == "default":
        return None

    key = hashlib.sha256(name.encode()).hexdigest()
    contexts = folder(environ) / "contexts"
    endpoint = _json_file(contexts / "meta" / key / "meta.json").get("Endpoints", {}).get("docker", {})
    return (endpoint, contexts / "tls" / key / "docker") if endpoint.get("Host") else None


def _json_file(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
