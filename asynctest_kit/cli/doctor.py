"""``atk doctor``: what would run here, what would not, and what mends it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from asynctest_kit.budget.wording import several
from asynctest_kit.errors import AtkError
from asynctest_kit.settings import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from asynctest_kit.provision.checkup import Finding, Part
    from asynctest_kit.settings import Settings

__all__ = ["doctor"]

_WIDEST = 100
_LABEL = 24
_MARK = 7
_MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "fault": ("FAULT", "bold red")}
_TITLES: dict[Part, str] = {"engine": "Docker", "services": "Services", "machine": "This machine"}
_CHOICE = " (it will be used)"


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
    from asynctest_kit.report import console

    page, next_run = _Page(console.stdout()), _next_run(settings)
    async for finding in examine(settings, os.environ):
        if finding.part == "machine":  # so behind the services
            for ours in next_run:
                page.tell(ours)
        page.tell(finding)
    return page.conclude()


def _next_run(settings: Settings) -> Iterator[Finding]:
    """Of the databases that are made ahead while services are kept, which are there."""
    from asynctest_kit.cli.warm.next_databases import noted_databases
    from asynctest_kit.provision.checkup import Finding

    if sys.platform == "linux":
        for service, reason in noted_databases(settings.root).items():
            subject = f"{service}, next run" if service else "next run"
            text = f"its database is not made ahead: {reason}" if reason else "its database is there"
            yield Finding("services", subject, "note" if reason else "ok", text)


class _Page:
    """Findings as they come, each part under its title. Colour only repeats what the words say."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._width = min(console.width, _WIDEST)
        self._part: Part | None = None
        self._notes = 0
        self._faults = 0

    def tell(self, finding: Finding) -> None:
        """Print one."""
        if finding.part != self._part:
            self._line(("" if self._part is None else "\n") + _TITLES[finding.part], "bold")
            self._part = finding.part
        self._notes += finding.verdict == "note"
        self._faults += finding.verdict == "fault"
        mark, style = _MARKS[finding.verdict]
        subject = f"  {finding.subject}"
        if len(subject) >= _LABEL:
            self._line(subject, "")
            subject = ""
        head = f"{subject:{_LABEL}}", (f"{mark:{_MARK}}", style)
        self._paragraph(head, f"{finding.text}{_CHOICE * finding.is_choice}")
        if finding.mend:
            self._paragraph((" " * _LABEL, (" " * _MARK, "")), f"{self._arrow} {finding.mend}", "cyan")

    def conclude(self) -> int:
        """Say what it comes to; how many faults there are."""
        notes = f" {several(self._notes, 'note')}, none of which keeps a test from running." if self._notes else ""
        if self._faults:
            self._line(f"\n{several(self._faults, 'fault')} to be mended (see {self._arrow}).", "bold red")
        else:
            self._line(f"\nEverything that tests may want can be had.{notes}", "bold green")
        return self._faults

    @property
    def _arrow(self) -> str:
        try:
            "→".encode(self._console.encoding)
        except UnicodeEncodeError:
            return "->"
        return "→"

    def _paragraph(self, head: tuple[str, tuple[str, str]], text: str, style: str = "") -> None:
        from textwrap import wrap

        from rich.text import Text

        lines = [part for line in text.splitlines() for part in wrap(line, self._width - _LABEL - _MARK) or [""]]
        for place, line in enumerate(lines):
            shown = Text.assemble(*head) if not place else Text(" " * (_LABEL + _MARK))
            self._console.print(shown.append(line, style=style), soft_wrap=True)

    def _line(self, text: str, style: str) -> None:
        from rich.text import Text

        self._console.print(Text(text, style=style), soft_wrap=True)
