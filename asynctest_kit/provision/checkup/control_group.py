"""What the control group that this process is in may use, its parents' limits included. Linux only."""

from __future__ import annotations

from pathlib import Path

__all__ = ["memory_limit", "process_limit"]

_ROOT = Path("/")

#: Version 1 has numbers near 2**63 for "no limit".
_NO_LIMIT = 1 << 60


def memory_limit(root: Path = _ROOT) -> int | None:
    """Bytes of memory, what lies in tmpfs included; None for no limit."""
    return _least(root, controller="memory", names=("memory.max", "memory.limit_in_bytes"))


def process_limit(root: Path = _ROOT) -> int | None:
    """Processes and threads at once; None for no limit."""
    return _least(root, controller="pids", names=("pids.max", "pids.max"))


def _least(root: Path, *, controller: str, names: tuple[str, str]) -> int | None:
    """The least limit from our group upwards; of the two names the first is version 2's."""
    found = []
    for group in _groups(root):
        _, controllers, path = group.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controller if controllers else "")
        name = names[1] if controllers else names[0]
        place = mount / path.lstrip("/")
        # In a container the path may be the host's, and only the mount's own limits are seen.
        for folder in (place, *place.parents):
            found += _limit(folder / name)
            if folder == mount:
                break
    return min(found, default=None)


def _groups(root: Path) -> list[str]:
    try:
        return (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []


def _limit(file: Path) -> list[int]:
    try:
        text = file.read_text().strip()
    except OSError:
        return []
    return [int(text)] if text.isdigit() and int(text) < _NO_LIMIT else []
