"""The environment that every benchmark's processes get."""

from __future__ import annotations

import os

__all__ = ["clean"]


def clean(**extra: str) -> dict[str, str]:
    """This environment, with byte code cached: without it, imports dominate every short process."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return environment | extra
