"""``python -m asynctest_kit.isolation.run_alembic alembic.ini``: upgrade the database of DATABASE_URL to head.

env.py finds the URL where it looks: in the config's ``sqlalchemy.url``, with the driver that the ini file names, or as
it is in DATABASE_URL. A database without a driver named gets asyncpg where env.py makes an async engine.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["main"]


def main(ini: str) -> None:
    """Run ``alembic upgrade heads``; errors go to stderr with a traceback."""
    from alembic import command
    from alembic.config import Config

    config = Config(ini)
    url = _with_driver(os.environ["DATABASE_URL"], config.get_main_option("sqlalchemy.url") or "", _environment(config))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    command.upgrade(config, "heads")


def _environment(config: Config) -> str:
    """Return the text of env.py."""
    from alembic.script import ScriptDirectory

    return (Path(ScriptDirectory.from_config(config).dir) / "env.py").read_text(encoding="utf-8")


def _with_driver(url: str, configured: str, environment: str) -> str:
    scheme = configured.partition("://")[0]
    if not re.fullmatch(r"postgres(ql)?\+\w+", scheme):
        scheme = "postgresql+asyncpg" if re.search(r"async_engine|AsyncEngine", environment) else "postgresql"
    return f"{scheme}://{url.partition('://')[2]}"


if __name__ == "__main__":
    main(sys.argv[1])
