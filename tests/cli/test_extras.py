"""README's table of extras, and the messages that name one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def test_the_readme_lists_each_extra_once():
    section = re.search(r"^\| Extra \|.*?\n\n", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert section is not None
    cells = [line.split("|")[1] for line in section[0].splitlines()[2:] if line]
    listed = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]

    assert sorted(listed) == sorted(EXTRAS)


def test_what_names_an_extra_names_one_that_exists():
    files = [*(ROOT / "asynctest_kit").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    named = {
        name
        for file in files
        for text in re.findall(r"asynctest_kit\[([\w,]+)\]", file.read_text())
        for name in text.split(",")
    }

    assert {"api", "openapi"} < named <= EXTRAS
