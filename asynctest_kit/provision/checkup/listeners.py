"""Who listens at a port of this machine, as far as the system tells us. Linux only; elsewhere nobody is known."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["listener"]

_PROC = Path("/proc")

#: The state of a socket that listens, see proc(5) and include/net/tcp_states.h.
_LISTENS = "0A"


def listener(port: int) -> str | None:
    """Who listens at ``port``, for people; empty if nobody does, None if that can't be known."""
    tables = [table for table in (_PROC / "net/tcp", _PROC / "net/tcp6") if table.exists()]
    if not tables:
        return None
    sockets = {inode: owner for table in tables for inode, owner in _listening(table, port)}
    if not sockets:
        return ""
    for process, descriptor in _descriptors():
        with suppress(OSError):
            if (link := os.readlink(descriptor)) and link[8:-1] in sockets and link.startswith("socket:["):  # noqa: PTH115
                name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                return f"{name} (process {process.name})"
    return f"a process of the user {_user(next(iter(sockets.values())))}"


def _listening(table: Path, port: int) -> Iterator[tuple[str, int]]:
    """The inodes and owners of the sockets in a table of the kernel's that listen there."""
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields[9], int(fields[7])


def _descriptors() -> Iterator[tuple[Path, Path]]:
    """Every process's open descriptors, where we may look."""
    for process in _PROC.iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                for descriptor in (process / "fd").iterdir():
                    yield process, descriptor


def _user(number: int) -> str:
    import pwd

    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return str(number)
