"""Files of the project that runs write, also beside each other: pacts, exchanges."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["locked", "replace_file"]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing in ``folder``."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace_file(file: Path, text: str) -> bool:
    """Give ``file`` this content, all at once; False if it had it."""
    content = text.encode()
    if file.exists() and file.read_bytes() == content:
        return False
    new = file.with_name(f".{file.name}.new")
    new.write_bytes(content)
    new.replace(file)
    return True
