"""The user's Docker configuration: ``config.json`` and the contexts beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asynctest_kit.provision.providers import Refusal

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
    """The engine of the context in use, and the folder of its TLS material; None for the default context.

    Raises:
        Refusal: There is no such context, or it has no engine.
    """
    chosen = environ.get("DOCKER_CONTEXT")
    name = str(chosen or configuration(environ).get("currentContext") or "default")
    if name == "default":
        return None

    key = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    contexts = folder(environ) / "contexts"
    endpoint = _table(_table(_json_file(contexts / "meta" / key / "meta.json"), "Endpoints"), "docker")
    if not endpoint.get("Host"):
        source = "DOCKER_CONTEXT" if chosen else f"currentContext in {folder(environ) / 'config.json'}"
        raise Refusal(
            f"{source} names the Docker context {name!r}, and no engine of that name is known in {contexts} "
            "(`docker context ls` shows those that are)"
        )
    return endpoint, contexts / "tls" / key / "docker"


def _json_file(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _table(content: dict[str, Any], name: str) -> dict[str, Any]:
    table = content.get(name)
    return table if isinstance(table, dict) else {}
