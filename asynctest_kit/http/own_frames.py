"""Where in its own code an application raised: what stands in libraries tells its author little."""

from __future__ import annotations

import asyncio.events
import site
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType

__all__ = ["own_frames", "place_called", "place_defined", "place_raised"]

_OURS: Final = str(Path(__file__).parent.parent) + "/"
_PATHS: Final = ("stdlib", "platstdlib", "purelib", "platlib")
_LIBRARIES: Final = ("<", _OURS, *{sysconfig.get_path(name) for name in _PATHS}, *site.getsitepackages())


def own_frames(error: BaseException) -> Sequence[traceback.FrameSummary]:
    """The frames that ``error`` came through which are no library's, outermost first."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_LIBRARIES)]


def place_raised(error: BaseException) -> str:
    """The innermost line of the application's own; of a library where none is; empty where there is none at all."""
    frames = own_frames(error) or traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    return _place(frames[-1].filename, frames[-1].lineno, frames[-1].name)


def place_called() -> str:
    """The line that awaits what runs now, innermost of those that are no library's; empty if its task has none."""
    frame = sys._getframe(1)  # noqa: SLF001  # the only way to a frame without a traceback's cost
    while frame is not None and frame.f_code.co_filename != asyncio.events.__file__:
        if not frame.f_code.co_filename.startswith(_LIBRARIES):
            return _place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def place_defined(code: CodeType) -> str:
    """Where a function is defined."""
    return _place(code.co_filename, code.co_firstlineno, code.co_name)


def _place(file: str, line: int | None, function: str) -> str:
    path, here = Path(file), Path.cwd()
    name = path.relative_to(here) if path.is_relative_to(here) else path
    return f"{name}:{line} in {function}"
