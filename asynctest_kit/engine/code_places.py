"""Where the user's code is: which line of it runs, or waits.

Stacks hold frames of what runs the code (asyncio, anyio, pytest, this package), which tell the user nothing. The place
that is named is the innermost one in code of the project; where there is none, in an installed library.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import inspect
import site
import sysconfig
import traceback
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import CodeType, FrameType

__all__ = [
    "Place",
    "awaited_by",
    "frame_of",
    "is_machinery",
    "is_users",
    "place_in_code",
    "raised_at",
    "running",
    "waiting_at",
    "warm_up",
]

_MACHINERY = ("_pytest", "anyio", "asynctest_kit", "pluggy", "pytest")

#: No chain of awaits is deeper than Python's usual recursion limit.
_DEEPEST = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """A line of code.

    Attributes:
        file: Absolute path.
        line: From 1.
        function: Name of the function that it is in.
    """

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        path = Path(self.file)
        here = Path.cwd()
        name = path.relative_to(here) if path.is_relative_to(here) else path
        return f"{name}:{self.line} in {self.function}"


@cache
def is_machinery(file: str) -> bool:
    """Tell whether ``file`` is part of what runs the tests."""
    return file.startswith(("<frozen importlib", *_machinery_folders()))


@cache
def _machinery_folders() -> tuple[str, ...]:
    found = (importlib.util.find_spec(name) for name in _MACHINERY)
    folders = [str(Path(spec.origin).parent) + "/" for spec in found if spec is not None and spec.origin is not None]
    return (str(Path(asyncio.__file__).parent) + "/", *folders)


@cache
def _is_installed(file: str) -> bool:
    paths = sysconfig.get_paths()
    return file.startswith(("<", *site.getsitepackages(), paths["purelib"], paths["platlib"], paths["stdlib"]))


def is_users(file: str) -> bool:
    """Tell whether ``file`` is part of the project: neither installed nor part of what runs the tests."""
    return not is_machinery(file) and not _is_installed(file)


def running(frame: FrameType, within: FrameType | None = None) -> tuple[Place | None, str]:
    """Where the code whose innermost frame is ``frame`` runs, and its stack as in a traceback, without the machinery.

    Of the stack only what ``within`` called is looked at, if that is given.

    The frames may be another thread's: they are read in one go, before anything that could let that thread run.
    """
    stack = takewhile(lambda one: one[0] is not within, traceback.walk_stack(frame))
    frames = list(stack)[::-1]
    kept = [(one, line) for one, line in frames if not is_machinery(one.f_code.co_filename)]
    return _innermost(kept), "".join(traceback.StackSummary.extract(iter(kept)).format())


def warm_up() -> None:
    """Look up now which folders hold the machinery and installed code."""
    is_machinery("")
    _is_installed("")


def waiting_at(awaitable: object) -> Place | None:
    """Where a suspended coroutine waits; None if nothing of it is the user's."""
    frames = (frame_of(one) for one in awaited_by(awaitable))
    return _innermost([(frame, frame.f_lineno) for frame in frames if frame is not None])


def raised_at(error: BaseException) -> Place | None:
    """Which line ``error``, or else its cause, came from; None if none of it is the user's."""
    place = _innermost(list(traceback.walk_tb(error.__traceback__)))
    return raised_at(error.__cause__) if place is None and error.__cause__ is not None else place


def place_in_code(code: CodeType, instruction: int) -> Place:
    """The line that the instruction at offset ``instruction`` of ``code`` belongs to."""
    line = next((line for start, end, line in code.co_lines() if start <= instruction < end), None)
    return Place(code.co_filename, line or code.co_firstlineno, code.co_name)


def _innermost(frames: Sequence[tuple[FrameType, int]]) -> Place | None:
    """Choose among ``frames``, outermost first."""
    kept = [(frame.f_code, line) for frame, line in frames if not is_machinery(frame.f_code.co_filename)]
    own = [(code, line) for code, line in kept if not _is_installed(code.co_filename)]
    if not kept:
        return None
    code, line = (own or kept)[-1]
    return Place(code.co_filename, line, code.co_name)


def awaited_by(awaitable: object) -> Iterator[object]:
    """A suspended coroutine, what it awaits, what that awaits and so on; async generators after what drives them."""
    for _ in range(_DEEPEST):
        if awaitable is None:
            return
        yield awaitable
        kind = _kind(awaitable)
        if kind is None:
            awaitable = _hidden_generator(awaitable)
        elif kind == "gi" and (driven := _driven_by(awaitable)) is not None:
            awaitable = driven
        else:
            awaitable = getattr(awaitable, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None)


def frame_of(awaitable: object) -> FrameType | None:
    """The frame of a coroutine or generator; None if it has ended, or is something else."""
    kind = _kind(awaitable)
    return None if kind is None else getattr(awaitable, f"{kind}_frame")


def _kind(awaitable: object) -> str | None:
    return next((kind for kind in ("cr", "gi", "ag") if hasattr(awaitable, f"{kind}_frame")), None)


def _driven_by(generator: Any) -> object:
    """The coroutine that a generator of the engine's drives itself, which is its local variable ``driven``."""
    frame = generator.gi_frame
    return None if frame is None or not is_machinery(frame.f_code.co_filename) else frame.f_locals.get("driven")


def _hidden_generator(awaitable: object) -> object:
    """The async generator, or coroutine, that an ``anext`` or another built-in awaitable drives."""
    if type(awaitable).__module__ != "builtins":
        return None
    suspended = (one for one in gc.get_referents(awaitable) if inspect.isasyncgen(one) or inspect.isawaitable(one))
    return next(suspended, None)
