"""``atk doctor``: what would run here, what would not, and what mends it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from asynctest_kit.errors import AtkError
from asynctest_kit.settings import load

if TYPE_CHECKING:
    from asynctest_kit.provision.checkup import Finding
    from asynctest_kit.settings import Settings

__all__ = ["doctor"]

_WIDTH = 100
_LABEL = 20
_MARKS = {"ok": "ok", "note": "-", "fault": "FAULT"}


def doctor(provider: str | None) -> None:
    """Print what each check found; exit with 1 if one found a fault."""
    try:
        settings = load(paths=(), directory=Path.cwd(), environ=os.environ, options={"provider": provider})
    except AtkError as error:
        print(f"atk: {error}", file=sys.stderr)  # noqa: T201  # the command's own message
        sys.exit(4)
    if asyncio.run(_examine(settings)):
        sys.exit(1)


async def _examine(settings: Settings) -> int:
    from asynctest_kit.provision.checkup import examine

    faults = 0
    async for finding in examine(settings, os.environ):
        faults += finding.verdict == "fault"
        print(_written(finding), flush=True)  # noqa: T201  # the command's own answer
    print("Everything that tests may want can be had." if not faults else f"{faults} to be mended.")  # noqa: T201
    return faults


def _written(finding: Finding) -> str:
    text = finding.text if not finding.mend else f"{finding.text}\n→ {finding.mend}"
    lines = [part for line in text.splitlines() for part in wrap(line, _WIDTH - _LABEL - 6) or [""]]
    head = f"{finding.subject:{_LABEL}}{_MARKS[finding.verdict]:6}"
    return "\n".join((head if not place else " " * len(head)) + line for place, line in enumerate(lines))
