"""alembic in a process of its own: inside one it keeps its state in module globals, which tests would share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio

__all__ = ["ALEMBIC_INI", "alembic"]

ALEMBIC_INI = Path(__file__).parents[1] / "alembic.ini"


async def alembic(url: str, *arguments: str) -> None:
    """Run a command, for example ``upgrade head``, on the database at ``url``."""
    result = await anyio.run_process(
        [sys.executable, "-m", "alembic", "-c", str(ALEMBIC_INI), *arguments],
        env={**os.environ, "DATABASE_URL": url},
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
