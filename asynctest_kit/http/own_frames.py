"""Where in its own code an application raised: what stands in libraries tells its author little."""

from __future__ import annotations

import site
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["own_frames", "place_raised"]

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
    path, here = Path(frames[-1].filename), Path.cwd()
    name = path.relative_to(here) if path.is_relative_to(here) else path
    return f"{name}:{frames[-1].lineno} in {frames[-1].name}"
