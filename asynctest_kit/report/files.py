"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import IO, TYPE_CHECKING

from asynctest_kit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_writable", "replacing"]


def check_writable(path: Path) -> None:
    """Refuse a path that :func:`replacing` could not write, as far as can be told without writing.

    Raises:
        SettingsError: It is a folder or a device, or the nearest folder above it is none or can't be written.
    """
    target = Path(os.path.realpath(path))
    if os.path.exists(target) and not target.is_file():  # noqa: PTH110  # Path's raises for a name that is too long
        raise SettingsError(f"{path} can't be written: it is no regular file. Give the path of a file.")

    above = next(folder for folder in target.parents if os.path.exists(folder))  # noqa: PTH110
    if not above.is_dir():
        raise SettingsError(f"{path} can't be written: {above} is no folder. Give a path in a folder.")

    if not os.access(above, os.W_OK | os.X_OK):
        raise SettingsError(f"{path} can't be written: no permission to write in {above}.")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file beside ``path`` that takes its place when the block ends well, and is removed when it does not.

    Folders that are missing are made.

    Raises:
        SettingsError: It can't be written.
    """
    check_writable(path)
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".atk-{token_hex(8)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("xb") as file:
            yield file
        beside.replace(target)
    except OSError as error:
        raise SettingsError(f"{path} can't be written: {error.strerror}.") from error
    finally:
        beside.unlink(missing_ok=True)
