"""What the last run with the same arguments needed, kept in pytest's cache.

A run reads it before pytest is imported, so that its services boot while it loads. A wrong or missing record costs time
and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

__all__ = ["Record"]

_KEY = "asynctest_kit/services"


@dataclass(frozen=True, slots=True)
class Record:
    """The record of one invocation.

    Attributes:
        root: The project's root, where pytest keeps its cache by default.
        arguments: The invocation's arguments; others need other services.
    """

    root: Path
    arguments: tuple[str, ...]

    def services(self) -> tuple[str, ...]:
        """Names of the services that the last such run needed."""
        try:
            names = json.loads((self.root / ".pytest_cache" / "v" / self._key).read_text())
        except (OSError, ValueError):
            return ()
        return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()

    def keep(self, config: pytest.Config, services: Sequence[str]) -> None:
        """Remember ``services`` for the next run, where pytest has a cache."""
        cache = getattr(config, "cache", None)
        if cache is not None:
            cache.set(self._key, list(services))

    @property
    def _key(self) -> str:
        return f"{_KEY}/{hashlib.sha256(repr(self.arguments).encode()).hexdigest()[:16]}"
