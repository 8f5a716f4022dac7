"""Which of pytest's plugins a way to run tests loads."""

from __future__ import annotations

__all__ = ["ANYIO", "CONCURRENT", "COOPERATIVE", "XDIST", "Plugin", "chosen"]

#: The entry point's name of a plugin that runs async tests, and its module.
Plugin = tuple[str, str]

ANYIO: Plugin = ("anyio", "anyio.pytest_plugin")
CONCURRENT: Plugin = ("asyncio-concurrent", "pytest_asyncio_concurrent.plugin")
COOPERATIVE: Plugin = ("asyncio-cooperative", "pytest_asyncio_cooperative.plugin")
XDIST: Plugin = ("xdist", "xdist.plugin")

#: Those that get into each other's way.
_RUNNERS = frozenset({"asyncio-cooperative", "asyncio-concurrent", "asyncio", "xdist"})


def chosen(plugin: Plugin, *, lean: bool) -> list[str]:
    """Options of pytest: its own plugin alone (autoload must be off then), or all that are installed but the others."""
    name, module = plugin
    named = [module] if lean else [f"no:{other}" for other in sorted(_RUNNERS - {name})]
    return [word for one in named for word in ("-p", one)]
