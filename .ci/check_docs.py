"""Run every command that README.md shows, as a newcomer would: in a copy of the tree, in a fresh environment.

A ``console`` block's lines that start with ``$`` are commands. A ``python`` block after a line that says "Put this in
`FILE`" is written to FILE first. Commands that this project's own CI runs as sessions of their own are not run again.
A ``toml`` block is pasted into a pyproject.toml of its own, with which a run has to start.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

#: Run by CI as they are, beside this check.
_RUN_ELSEWHERE = {"python3 -m pip install nox && nox -s tests": ".ci/run begins with `nox -s tests`"}

_FILE = re.compile(r"^Put this in `([^`]+)`:\n\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_TOML = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def main() -> None:
    """Run all; exit with 1 after the first that fails."""
    text = Path("README.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "project"
        ignored = shutil.ignore_patterns(".git", ".nox", "__pycache__", ".*_cache", ".coverage*")
        shutil.copytree(".", tree, ignore=ignored)
        environment = _fresh_environment(Path(folder) / "venv")
        for name, content in _FILE.findall(text):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(content, encoding="utf-8")
        commands = [line[2:] for block in _CONSOLE.findall(text) for line in block.splitlines() if line[:2] == "$ "]
        if not commands:
            sys.exit("README.md shows no command")
        for command in commands:
            _check(command, tree, environment)
        for number, settings in enumerate(_TOML.findall(text)):
            project = Path(folder) / f"pasted-{number}"
            project.mkdir()
            (project / "pyproject.toml").write_text(settings, encoding="utf-8")
            (project / "test_it.py").write_text("async def test_it():\n    pass\n", encoding="utf-8")
            _check("atk run -q", project, environment)


def _fresh_environment(venv: Path) -> dict[str, str]:
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    clean = {key: value for key, value in os.environ.items() if key not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    return clean | {"PATH": f"{venv / 'bin'}:{os.environ['PATH']}"}


def _check(command: str, tree: Path, environment: dict[str, str]) -> None:
    if command in _RUN_ELSEWHERE:
        print(f"not here: {command}\n          ({_RUN_ELSEWHERE[command]})", flush=True)
        return
    print(f"$ {command}", flush=True)
    done = subprocess.run(["bash", "-c", command], cwd=tree, env=environment, check=False)
    if done.returncode:
        sys.exit(f"README.md: {command!r} ended with {done.returncode} in {tree}")


if __name__ == "__main__":
    main()
